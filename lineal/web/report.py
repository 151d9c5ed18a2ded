"""RUN/report.html: one self-contained page on what a run did, whether it worked, and why it did not."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, fields
from importlib import import_module
from pathlib import Path
from typing import Any

from lineal.errors import RunError
from lineal.train.files import replace_file
from lineal.train.progress import show_seconds
from lineal.web.diagnose import diagnose
from lineal.web.experts import experts_section
from lineal.web.fill import fill_section
from lineal.web.film import film_section
from lineal.web.page import escape, page, show, table
from lineal.web.panels import charts
from lineal.web.read import RunView, find_runs, read_run
from lineal.web.samples import moments, samples_section
from lineal.web.scores import scores_section


def write_report(folder: Path | str) -> Path:
    """Write RUN/report.html and return its path; raises RunError when there is nothing to show or no room for it."""
    run = read_run(folder)
    if not run.metrics:
        raise RunError(f"{folder} has no metrics yet: there is nothing to report.")
    path = run.path / "report.html"
    try:
        replace_file(path, render(run).encode("utf-8", "replace"))
    except OSError as error:
        raise RunError(
            f"{path} cannot be written ({error.strerror}): free some space and run it again."
        ) from error
    return path


def render(run: RunView) -> str:
    """The page of a run."""
    wide, small, other = charts(run)
    more = f'<details><summary>Every other number</summary><div class="charts">{other}</div></details>'
    curves = f'<h2>Curves</h2>{wide}<div class="charts">{small}</div>{more if other else ""}'
    middle, film = [curves, _findings(run)], film_section(run.path)
    parts = [
        _header(run),
        _tiles(run),
        _beside(run),
        *(reversed(middle) if _stuck(run) else middle),
        film,
        _formula(run),
        samples_section(run),
        experts_section(run),
        fill_section(run),
        scores_section(run),
        _options(run),
        _next(run),
        '<footer class="soft">Written by lineal; no script, no network.</footer>',
    ]
    title, body = f"{run.name}: {run.recipe}", "\n".join(part for part in parts if part)
    return page(title, body, pictures=bool(film))


def _header(run: RunView) -> str:
    paper = _paper(run.recipe)
    about = f" · {paper}" if paper else ""
    state = {"done": "finished", "running": "still running", "stopped": "stopped", "empty": "not saved yet"}
    created = str(run.record.get("created", ""))[:16].replace("T", " ")
    line = f"{state[run.state]} at step {run.step} · started {created}"
    return (
        f'<header><p class="soft">lineal run {escape(run.recipe)}{about}</p><h1>{escape(run.name)}</h1>'
        f'<p class="soft">{escape(line)}</p></header>'
    )


def _paper(recipe: str) -> str:
    from lineal.recipes import RECIPES

    if recipe not in RECIPES:
        return ""
    paper = getattr(import_module(RECIPES[recipe]), "PAPER", None)
    if paper is None:
        return ""
    return f'<a href="{escape(paper.url)}">{escape(paper.title)}</a> ({escape(paper.year)})'


HELD_OUT = (("eval/accuracy", "held-out accuracy"), ("eval/greedy", "held-out, greedy"))
RETURNS = (
    ("eval/bleu", "BLEU"),
    ("eval/masked_accuracy", "held-out hidden words right"),
    ("eval/next_accuracy", "held-out next sentences told"),
    ("eval/f1", "held-out F1 of answers"),
    ("eval/pearson", "held-out correlation"),
    ("eval/return", "return, most probable actions"),
    ("return_100", "return, last 100 episodes"),
    ("true_return", "true return, last iteration"),
)
LOSSES = (
    ("eval/perplexity", "validation perplexity"),
    ("eval/loss", "validation loss"),
    ("loss", "training loss"),
)


@dataclass(frozen=True)
class Judged:
    """A number that a run is judged by: at its start (None when it was not measured there) and at its end."""

    label: str
    start: float | None
    end: float


def headline(run: RunView) -> list[Judged]:
    """What the run is judged by, the most telling first."""
    # Evaluations on the way use other prompts (validation) than those of the start and the end.
    final = [line for line in run.metrics if line.get("eval/final")]
    found = []
    for name, label in HELD_OUT:
        values = [line[name] for line in final if _finite(line.get(name))] or run.values(name)
        if values:
            found.append(Judged(label, values[0] if len(values) > 1 else None, values[-1]))
    for name, label in (*RETURNS, *LOSSES):
        values = run.values(name)
        if values:
            found.append(Judged(label, values[0] if len(values) > 1 else None, values[-1]))
    rewards = run.values("reward")
    if rewards:
        few = max(1, len(rewards) // 10)
        found.append(Judged("training reward", _mean(rewards[:few]), _mean(rewards[-few:])))
    return found


def _finite(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _mean(values: list[float]) -> float:
    return math.fsum(values) / len(values)


def _tiles(run: RunView) -> str:
    tiles = [
        (j.label, show(round(j.end, 3)), "" if j.start is None else f"from {show(round(j.start, 3))}")
        for j in headline(run)
    ]
    spent = math.fsum(run.values("step_time", "timing"))
    if spent:
        tiles.append(("training time", show_seconds(spent), f"{spent / max(1, run.step):.3g} s a step"))
    speed = sorted(run.values("tokens_per_second", "timing"))
    if speed:
        tiles.append(("speed", f"{speed[len(speed) // 2]:,.0f}", "tokens a second, median"))
    stepped = sorted(run.values("env_steps_per_second", "timing"))
    if stepped:
        tiles.append(
            ("speed", f"{stepped[len(stepped) // 2]:,.0f}", "steps of the environment a second, median")
        )
    tokens, taken = run.last("num_tokens"), run.last("env_steps")
    below = f"{tokens:,.0f} tokens" if tokens else f"{taken:,.0f} steps of the environment" if taken else ""
    tiles.append(("steps", f"{run.step:,}", below))
    cells = "".join(
        f'<div class="tile"><dt>{escape(name)}</dt><dd>{escape(value)}<small>{escape(below)}</small></dd></div>'
        for name, value, below in tiles
    )
    return f'<dl class="tiles">{cells}</dl>'


def _findings(run: RunView) -> str:
    items = []
    for finding in diagnose(run):
        word = {"bad": "Problem", "warn": "Watch", "good": "Fine"}[finding.level]
        items.append(
            f'<li><b class="{finding.level}">{word}</b>{escape(finding.text)} '
            f'<span class="soft">{escape(finding.remedy)}</span></li>'
        )
    title = "Why is nothing learning?" if _stuck(run) else "Diagnosis"
    return f'<h2>{title}</h2><ul class="findings">{"".join(items)}</ul>'


def _stuck(run: RunView) -> bool:
    """The number it is judged by did not get better by more than noise."""
    judged = headline(run)
    # An evaluation at the end alone says nothing of progress.
    first = next((j for j in judged if j.start is not None), None)
    if first is None or first.start is None:
        return False
    error = run.last("eval/error") or 0.0
    lower = "loss" in first.label or "perplexity" in first.label
    gain = first.start - first.end if lower else first.end - first.start
    noise = 2 * math.sqrt(2) * error if "accuracy" in first.label else 0.0
    return gain <= max(0.01 * abs(first.start), noise)


def _formula(run: RunView) -> str:
    text = run.record.get("algorithm") or run.record["config"].get("algorithm")
    if not isinstance(text, str):
        text = algorithm_text(run)
    return f"<h2>What is optimised</h2><pre>{escape(text)}</pre>" if text else ""


def algorithm_text(run: RunView) -> str:
    """The algorithm's formula with this run's numbers; "" where there is none or it cannot be rebuilt."""
    name = run.option("algorithm") or run.option("demo_algorithm")
    if not isinstance(name, str) or ".py:" in name:
        # A report never runs a user's file.
        return ""
    from lineal.recipes import RECIPES
    from lineal.recipes.config import EnvironmentConfig, from_json
    from lineal.train.parts import read_algorithm

    try:
        if "environment" in run.options:
            from lineal.train.control.parts import read_step_algorithm

            known = {field.name for field in fields(EnvironmentConfig)}
            options = {name: group for name, group in run.options.items() if name in known}
            return str(read_step_algorithm(from_json(EnvironmentConfig, options)))
        paper = import_module(RECIPES[run.recipe])
        config = from_json(type(paper.default()), dict(run.options))
        if "algorithm" not in run.options:
            # The demonstration derives the configuration of its second part.
            config = import_module(paper.LOOP).rl_config(config, run.path)
        return str(read_algorithm(config))
    except (ValueError, TypeError, KeyError, AttributeError):
        return ""


def _beside(run: RunView) -> str:
    """The runs inside this run's folder: what it started from, and its control."""
    inner = [other for other in find_runs(run.path) if other.path != run.path]
    rows = []
    for view in [*inner, run]:
        name = "this run" if view is run else view.path.name
        judged = {j.label: j.end for j in headline(view)}
        rows.append([name, view.recipe, show(view.step), *(_cell(judged, label) for _, label in HELD_OUT)])
    head = ["run", "recipe", "steps", *(label for _, label in HELD_OUT)]
    return f"<h2>The runs inside it</h2>{table(head, rows, 'numbers')}" if inner else ""


def _cell(judged: dict[str, float], label: str) -> str:
    return show(round(judged[label], 3)) if label in judged else "–"


def _options(run: RunView) -> str:
    defaults = _defaults(run)
    changed, rest = [], []
    for group, options in run.options.items():
        for name, value in options.items():
            usual = defaults.get(name, value)
            same = value == usual or (isinstance(value, list) and tuple(value) == usual)
            (rest if same else changed).append([name.replace("_", "-"), show(value), group])
    head = ["option", "value", "group"]
    parts = ["<h2>Options</h2>"]
    parts.append(table(head, changed, "pairs") if changed else "<p>All options at the recipe's defaults.</p>")
    parts.append(f"<details><summary>The {len(rest)} others</summary>{table(head, rest, 'pairs')}</details>")
    facts = _facts(run.record)
    parts.append(f"<details><summary>Machine and versions</summary>{table([], facts, 'pairs')}</details>")
    return "".join(parts)


def _facts(record: Mapping[str, Any]) -> list[list[str]]:
    rows = []
    for group in ("device", "versions"):
        part = record.get(group)
        for name, value in part.items() if isinstance(part, dict) else ():
            text = (
                ", ".join(f"{k} {show(v)}" for k, v in value.items())
                if isinstance(value, dict)
                else show(value)
            )
            rows.append([name, text])
    return rows


def _defaults(run: RunView) -> dict[str, Any]:
    from lineal.recipes import RECIPES
    from lineal.recipes.config import from_json
    from lineal.recipes.environment import OnEnvironment

    if run.recipe not in RECIPES:
        return {}
    paper = import_module(RECIPES[run.recipe])
    if hasattr(paper, "tuned"):
        known = {field.name for field in fields(type(paper.default()))}
        asked = from_json(
            type(paper.default()), {name: dict(group) for name, group in run.options.items() if name in known}
        )
        groups = vars(paper.tuned(asked))
    elif "environment" in run.options:
        groups = vars(OnEnvironment(run.recipe, str(run.option("env"))).default())
    else:
        groups = vars(paper.default())
    return {name: value for group in groups.values() for name, value in vars(group).items()}


def _same_task(run: RunView) -> str:
    """The data options of a run that are not the defaults, as they are typed."""
    from lineal.recipes.config import DataOptions

    words = []
    for name, usual in vars(DataOptions()).items():
        value = run.options.get("data", {}).get(name, usual)
        values = value if isinstance(value, list | tuple) else [value]
        if tuple(values) != (usual if isinstance(usual, tuple) else (usual,)):
            words += [f"--{name.replace('_', '-')}", *(shlex.quote(str(v)) for v in values)]
    return "".join(f" {word}" for word in words)


def _gentle_rate(run: RunView) -> str:
    """A learning rate that this model has borne; imitation bears about ten times what reinforcement does."""
    rate = max(run.values("learning_rate"), default=0.0)
    return f" --learning-rate {rate / 10 if run.recipe == 'sft' else rate:g}" if rate else ""


def _next_stage(run: RunView, path: str) -> list[tuple[str, str]]:
    """What follows a stage of ulmfit, and what ELMo's layers are for."""
    if run.recipe == "elmo":
        further = f"lineal run tagger --features elmo --model {path} --data FILE"
        return [(further, "tag words with its layers")]
    stage = run.options.get("stage", {}).get("stage")
    following = {"lm": ("tune", "go on with your own texts"), "tune": ("classify", "then with labelled rows")}
    if stage in following:
        name, why = following[stage]
        return [(f"lineal run ulmfit --stage {name} --model {path} --data FILE", why)]
    return [(f"lineal predict {path} < FILE", "a label for each line")] if stage == "classify" else []


def next_commands(run: RunView) -> list[tuple[str, str]]:
    """What to type next, each with what it does; every one works as it stands."""
    path = shlex.quote(str(run.path))
    if run.state != "done":
        return [(f"lineal resume {path}", "go on from the last checkpoint")] if run.state == "stopped" else []
    others = (f"lineal list {shlex.quote(str(run.path.parent))}", "all runs beside it")
    if "environment" in run.options:
        return [
            (f"lineal eval {path} --episodes 100", "play more episodes"),
            (f"lineal record {path}", "a film of one episode"),
            others,
        ]
    if run.recipe in ("ulmfit", "elmo", "tagger"):
        return [*_next_stage(run, path), others]
    if run.recipe == "transformer":
        return [(f"lineal translate {path} < FILE", "translate sentences, one a line"), others]
    if run.recipe == "finetune":
        return [(f"lineal predict {path} < FILE", "a label for each line"), others]
    if run.recipe == "bert":
        return [
            (f"lineal fill {path} 'the [MASK] of the house'", "fill words in"),
            (f"lineal embed {path} < FILE > vectors.npy", "a vector for each line"),
            (f"lineal run finetune --model {path} --data FILE", "tune it on labelled texts"),
            others,
        ]
    if run.recipe in ("word2vec", "glove"):
        vectors = shlex.quote(str(run.path / "final" / "vectors.bin"))
        return [(f"lineal vectors near {vectors} WORD", "the words nearest to one"), others]
    before, after = moments(run)
    prompt = next((s.prompt for s in (*after, *before) if s.prompt.isprintable() and len(s.prompt) < 200), "")
    commands = []
    if prompt:
        commands.append(
            (f"lineal generate {path} --prompt {shlex.quote(prompt)}", "sample from the trained model")
        )
    if run.recipe == "gpt":
        further = f"lineal run finetune --model {path} --data FILE"
        commands += [
            (f"lineal generate {path} --prompt 'It was' --stream", "let it write"),
            (further, "tune it on labelled texts"),
        ]
    if run.recipe not in ("pretrain", "moe", "gpt"):
        commands.append((f"lineal eval {path} --samples 8", "pass@1 and pass@8 on the held-out prompts"))
        further = f"lineal run dapo --model {path}{_same_task(run)}{_gentle_rate(run)}"
        commands.append((further, "train it further, with another algorithm"))
    return [*commands, others]


def _next(run: RunView) -> str:
    commands = next_commands(run)
    if not commands:
        return ""
    lines = "\n".join(f"{command}   # {why}" for command, why in commands)
    return f"<h2>Next</h2><pre>{escape(lines)}</pre>"
