"""Which numbers of a run are drawn, in which order, and what each means in a sentence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lineal.web.chart import Line, line_chart
from lineal.web.read import RunView


@dataclass(frozen=True)
class Panel:
    """One figure: its title, the numbers it may draw (those a run has), what they mean, the range of its axis."""

    title: str
    names: tuple[str, ...]
    note: str
    floor: float | None = None
    ceiling: float | None = None


HEROES = (
    Panel("Held-out accuracy", ("eval/accuracy", "eval/greedy"), "On prompts never trained on.", 0.0, 1.0),
    Panel("Return by the true reward", ("true_return",), "Of whole episodes; hidden from the learner."),
    Panel(
        "Return",
        ("return_100", "eval/return"),
        "Mean over the last 100 episodes; by the most probable actions.",
    ),
    Panel(
        "BLEU", ("eval/bleu",), "Of translations on the way, greedy; the last point is the test set's.", 0.0
    ),
    Panel("Reward", ("reward",), "Mean over the completions of a step."),
    Panel("Loss", ("loss", "nll", "eval/loss"), "Mean negative log-likelihood per token, in nats."),
)
"""As wide as the page; the first of them that a run has comes first."""

PANELS = (
    Panel(
        "KL to the policy before the step",
        ("kl",),
        "How far each update moved: mean KL(old || new) per token or step.",
        0.0,
    ),
    Panel("KL to the reference", ("reference_kl",), "How far from the starting policy.", 0.0),
    Panel(
        "Entropy",
        ("entropy",),
        "Of the next token or action, in nats; choices with 0 leave nothing to explore.",
    ),
    Panel("Gradient norm", ("grad_norm",), "Before clipping.", 0.0),
    Panel(
        "Clipped",
        ("clip_ratio/region_mean", "clip_ratio/low_mean", "clip_ratio/high_mean"),
        "Share of terms whose ratio left the clip range and that give no gradient.",
        0.0,
    ),
    Panel("Episode length", ("episode_length", "eval/episode_length"), "Mean steps of an episode.", 0.0),
    Panel("Length", ("completions/mean_length",), "Mean tokens of a completion.", 0.0),
    Panel("Cut off", ("completions/clipped_ratio",), "Share of completions that hit the length limit.", 0.0),
    Panel(
        "Equal groups",
        ("frac_reward_zero_std",),
        "Share of groups whose samples all got the same reward.",
        0.0,
        1.0,
    ),
    Panel("Spread of rewards", ("reward_std",), "Standard deviation within a group.", 0.0),
    Panel(
        "Sampler against trainer",
        ("sampling/sampling_logp_difference/mean", "sampling/sampling_logp_difference/max"),
        "Distance between the log-probabilities that sampled and those trained on.",
        0.0,
    ),
    Panel(
        "Line search",
        ("trust_region/accepted", "trust_region/step_scale"),
        "1: the step was kept; and which share of the full step it was.",
        0.0,
        1.0,
    ),
    Panel(
        "KL of the natural step",
        ("trust_region/kl", "trust_region/expected_kl"),
        "Measured, and as the quadratic model expected it.",
        0.0,
    ),
    Panel(
        "Load of the experts",
        ("routing/max_over_mean",),
        "The busiest expert's tokens over the mean, averaged over layers: 1 is balanced.",
        1.0,
    ),
    Panel(
        "Spread over the experts",
        ("routing/importance_cv2", "routing/load_cv2"),
        "Squared coefficient of variation of summed gates and of tokens: 0 is balanced.",
        0.0,
    ),
    Panel("Refused by full experts", ("routing/dropped",), "Share of choices that no expert took.", 0.0),
    Panel(
        "Routing change",
        ("routing/changed",),
        "Share of the experts chosen when sampling that the policy being updated would not choose.",
        0.0,
    ),
    Panel("Value loss", ("value_loss",), "The critic's error.", 0.0),
    Panel("Predicted return", ("predicted_return",), "What the policy was paid: the learned reward, summed."),
    Panel("Labels", ("labels", "asked"), "Comparisons answered, and asked for.", 0.0),
    Panel(
        "Labels predicted",
        ("reward_model/validation_accuracy", "reward_model/training_accuracy"),
        "Share of decided labels: held out, and trained on.",
        0.0,
        1.0,
    ),
    Panel(
        "Learned and true reward",
        ("reward_model/pearson", "reward_model/spearman"),
        "Correlation on steps that were just taken.",
    ),
    Panel(
        "Calibration of the reward",
        ("reward_model/calibration_error", "reward_model/brier"),
        "Of predictions of held-out labels: 0 means that they mean what they say.",
        0.0,
    ),
    Panel("Drift of the reward", ("reward_model/drift",), "1 - correlation before and after each fit.", 0.0),
    Panel(
        "Over-fitting of the reward",
        ("reward_model/ratio",),
        "Validation over training loss; kept in 1.1-1.5.",
        0.0,
    ),
    Panel("Explained variance", ("explained_variance",), "1: the critic predicts every return; 0: none."),
    Panel(
        "Tokens right",
        ("token_accuracy", "eval/token_accuracy"),
        "The most probable token is the right one.",
        0.0,
        1.0,
    ),
    Panel(
        "Hidden words right",
        ("masked_accuracy", "eval/masked_accuracy"),
        "Share of hidden pieces whose likeliest filling is the right one.",
        0.0,
        1.0,
    ),
    Panel(
        "Hidden words", ("masked_loss", "eval/masked_loss"), "Mean -log p of a hidden piece, in nats.", 0.0
    ),
    Panel(
        "What follows",
        ("next_accuracy", "eval/next_accuracy"),
        "Share of pairs told right: does the second text follow the first? Guessing gives a half.",
        0.0,
        1.0,
    ),
    Panel("Padding", ("padding",), "Share of tokens that only fill rows up.", 0.0),
    Panel("Bits a byte", ("eval/bits_per_byte",), "Of held-out text: comparable between vocabularies.", 0.0),
    Panel(
        "Mixture of ELMo's layers",
        ("mix/layer_0", "mix/layer_1", "mix/layer_2"),
        "Share of each: 0 is the word without its sentence, the last is the topmost.",
        0.0,
        1.0,
    ),
    Panel("Layers that learn", ("layers_learning",), "Unfrozen from the top.", 0.0),
    Panel("F1 of spans", ("eval/span_f1",), "Names found whole, with both ends right.", 0.0, 1.0),
    Panel("Learning rate", ("learning_rate",), "", 0.0),
)


def charts(run: RunView) -> tuple[str, str, str]:
    """The wide figures, the small ones, and those of every other number that varies, as HTML."""
    # One measurement makes no curve; it is among the figures above.
    heroes = [p for p in HEROES if any(len(run.values(name)) > 1 for name in p.names)]
    wide = "".join(_figure(run, panel, hero=True) for panel in heroes)
    small = "".join(_figure(run, panel) for panel in PANELS if _present(run, panel))
    drawn = {name for panel in (*HEROES, *PANELS) for name in panel.names}
    rest = [name for name in run.names() if name not in drawn and len(set(run.values(name))) > 1]
    other = "".join(_figure(run, Panel(name, (name,), "")) for name in rest)
    return wide, small, other


def _present(run: RunView, panel: Panel) -> list[str]:
    return [name for name in panel.names if run.values(name)]


def _figure(run: RunView, panel: Panel, *, hero: bool = False) -> str:
    names = _present(run, panel)
    lines = [line_of(run, name) for name in names]
    # A line that never leaves zero beside others would only hide them.
    lines = [line for line in lines if any(y for _, y in line.points)] or lines[:1]
    return line_chart(
        panel.title, lines, note=panel.note, hero=hero, floor=panel.floor, ceiling=panel.ceiling
    )


def line_of(run: RunView, name: str, label: str | None = None) -> Line:
    """A number of a run as a line; few points, such as evaluations, are dots."""
    points = run.series(name)
    label = label or name.rsplit("/", 1)[-1].replace("_", " ")
    return Line(label, points, smooth=len(points) > 30, dots=len(points) <= 12)


def comparison(runs: Sequence[RunView], labels: Sequence[str]) -> str:
    """One figure per number that at least one run has, all runs in each."""
    figures = []
    for hero, panels in ((True, HEROES), (False, PANELS)):
        parts = []
        for panel in panels:
            for name in panel.names:
                lines = [line_of(r, name, label) for r, label in zip(runs, labels) if r.values(name)]
                if lines:
                    title = panel.title if name == panel.names[0] else f"{panel.title}: {name}"
                    ends = {"floor": panel.floor, "ceiling": panel.ceiling}
                    parts.append(line_chart(title, lines, note=panel.note, hero=hero, **ends))
        figures.append("".join(parts))
    return f'{figures[0]}<div class="charts">{figures[1]}</div>'
