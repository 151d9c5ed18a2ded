"""What the verbs about models share, and the verbs eval and doctor."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any

from lineal.cli_options import help_lines, parse
from lineal.cli_runs import positionals
from lineal.errors import UsageError
from lineal.generate.sampling import Sampling

if TYPE_CHECKING:
    from pathlib import Path

    from lineal.environments.chat import ChatTemplate
    from lineal.environments.text import Example, TextTask
    from lineal.generate.prefill import Speaker
    from lineal.recipes.config import DataOptions
    from lineal.tokenizers import Tokenizer


@dataclass(frozen=True)
class Loading:
    """Where the model runs."""

    chat: bool = False
    """Apply the model's own chat template to prompts."""
    device: str = "auto"
    """auto, cpu, cuda or mps."""
    dtype: str = "float32"
    """float32, bfloat16 or float64: what the weights are held in."""
    threads: int = 0
    """CPU threads; 0 leaves torch's own choice."""


@dataclass(frozen=True)
class Judging:
    """Which prompts, and what counts as right."""

    data: str | None = None
    """Prompts with answers, every row of it: JSONL, CSV, TSV, Parquet, hf:NAME. Without it: a run's own held-out ones."""
    prompt_field: str = "prompt"
    """Name of the prompt's column."""
    completion_field: str | None = None
    """Name of the gold answer's column (default: completion, answer or solution, whichever is there)."""
    reward: tuple[str, ...] = ()
    """What scores a completion: a built-in name or path.py:function; right means 1 or more (default: exact)."""
    reward_timeout: float = 60.0
    """Seconds one call of a reward function may take."""
    limit: int = 0
    """Read at most this many rows; 0 reads all."""
    on_bad_row: str = "error"
    """error, skip or warn: what a row that cannot be read does."""
    samples: int = 1
    """Completions per prompt: pass@k is estimated for every power of two up to it."""
    seed: int = 0
    """Seed of the sampling."""
    json: bool = False
    """Print one JSON object instead of lines."""


@dataclass(frozen=True)
class EvalConfig:
    """Everything `lineal eval` can be told."""

    judging: Judging = field(default_factory=Judging)
    sampling: Sampling = field(default_factory=Sampling)
    loading: Loading = field(default_factory=Loading)


FEW = ("prompt", "data", "prompt_field", "completion_field", "reward", "samples", "max_new_tokens", "temperature",
       "top_p", "stop", "seed", "beams", "stream", "explain", "chat", "json")  # fmt: skip
"""The options that short help shows."""


def read_words(words: list[str], config: Any, usage: str) -> tuple[str, Any] | None:
    """The model and the configuration; None after help was printed."""
    names, rest = positionals(words)
    if any(word in rest for word in ("--help", "-h", "--help-all")):
        everything = "--help-all" in rest
        lines = [f"lineal {usage}", *help_lines(config, None if everything else FEW)]
        print(
            "\n".join(
                lines if everything else [*lines, "", f"all options: lineal {usage.split()[0]} --help-all"]
            )
        )
        return None
    if len(names) != 1:
        raise UsageError(f"{len(names)} models were given, not one: lineal {usage}")
    return names[0], parse(config, rest)


@dataclass(frozen=True)
class Loaded:
    """A model ready to be asked: weights, tokenizer, chat template when one is wanted, and further end tokens."""

    decoder: Speaker
    tokenizer: Tokenizer
    template: ChatTemplate | None
    ends: tuple[int, ...] = ()

    def sampling(self, settings: Sampling) -> Sampling:
        """The settings with every token that ends this model's turn."""
        return replace(settings, stop_ids=(*settings.stop_ids, *self.ends))


def load(name: str, loading: Loading) -> Loaded:
    """Load a model folder, a run's final model or hf:OWNER/NAME onto its device."""
    import torch

    from lineal.environments.chat import load_chat_template
    from lineal.generate.recurrent import load_language
    from lineal.tokenizers import load_tokenizer
    from lineal.train.build import model_folder
    from lineal.train.device import DTYPES, pick_device

    if loading.dtype not in DTYPES:
        raise UsageError(f"--dtype {loading.dtype} is not one of {', '.join(DTYPES)}.")
    if loading.threads:
        torch.set_num_threads(loading.threads)
    folder = model_folder(name)
    decoder = load_language(folder, DTYPES[loading.dtype], pick_device(loading.device))
    template = load_chat_template(folder) if loading.chat else None
    return Loaded(decoder, load_tokenizer(folder), template, _end_tokens(folder))


def _end_tokens(folder: Path) -> tuple[int, ...]:
    """The end tokens of generation_config.json: chat models often have one for the turn and one for the text."""
    from lineal.models.hf.files import read_json

    path = folder / "generation_config.json"
    found = read_json(path).get("eos_token_id") if path.is_file() else None
    ids = found if isinstance(found, list) else [found]
    return tuple(i for i in ids if isinstance(i, int) and i >= 0)


def visible(text: str) -> str:
    """Text for a terminal: its lines are kept, everything that a terminal would obey is not."""
    from lineal.train.console import clean

    return "\n".join(clean(line) for line in text.replace("\r\n", "\n").split("\n"))


def evaluate(words: list[str]) -> int:
    """`lineal eval MODEL --data FILE`: pass@1, pass@k and greedy accuracy."""
    read = read_words(words, EvalConfig(), "eval MODEL [--data FILE] [--reward NAME] [--samples N]")
    if read is None:
        return 0
    name, config = read
    if config.judging.samples < 1:
        raise UsageError(f"--samples {config.judging.samples}: must be at least 1.")
    model = load(name, config.loading)
    task, examples, options = _task(name, config.judging, model.template)
    if model.template is not None:
        model.template.close()
    given = config.sampling.max_new_tokens != Sampling().max_new_tokens
    room = config.sampling.max_new_tokens if given else task.max_new_tokens or config.sampling.max_new_tokens
    result = measure(
        model, examples, task, options, replace(config.sampling, max_new_tokens=room), config.judging
    )
    if config.judging.json:
        print(json.dumps(result))
        return 0
    for key, value in result.items():
        if not key.endswith("_error"):
            error = f" ± {result[f'{key}_error']:.4f}" if f"{key}_error" in result else ""
            print(f"{key:<8} {value:.4f}{error}" if isinstance(value, float) else f"{key:<8} {value}")
    return 0


def _task(
    name: str, judging: Judging, template: ChatTemplate | None
) -> tuple[TextTask, Sequence[Example], DataOptions]:
    """The task, the examples to judge, and the data options they come from."""
    from lineal.recipes.config import PolicyGradientConfig, with_options
    from lineal.train.tasks import build_task

    if judging.data is None:
        options = _options_of_run(name, judging)
        task = build_task(options, template)
        return task, task.held_out, options
    shared = {f.name for f in fields(judging)} & {f.name for f in fields(PolicyGradientConfig().data)}
    given = {name: getattr(judging, name) for name in shared}
    options = with_options(PolicyGradientConfig(), **given, held_out=0.0).data
    task = build_task(options, template)
    return task, task.train, options


def _options_of_run(name: str, judging: Judging) -> DataOptions:
    """The data a run was trained on, whose held-out part it is judged on."""
    from pathlib import Path

    from lineal.errors import RunError
    from lineal.recipes.config import PolicyGradientConfig, from_json, with_options
    from lineal.web.read import read_run

    folder = Path(name)
    try:
        run = read_run(folder.parent if folder.name == "final" else folder)
    except RunError:
        raise UsageError(
            f"{name} is a model, not a run: say what it is judged on with --data FILE."
        ) from None
    saved = from_json(PolicyGradientConfig, {"data": dict(run.options.get("data", {}))})
    foreign = [reward for reward in saved.data.reward if ".py:" in reward]
    if foreign and not judging.reward:
        # A run's folder may come from someone else; what it names is not run unasked.
        raise UsageError(
            f"the run's reward is {foreign[0]}: to run that file, say so with --reward {foreign[0]}"
        )
    reward = judging.reward or saved.data.reward
    return with_options(saved, reward=reward, overlong_buffer=0, reward_timeout=judging.reward_timeout).data


def measure(
    model: Loaded,
    examples: Sequence[Example],
    task: TextTask,
    options: DataOptions,
    sampling: Sampling,
    judging: Judging,
) -> dict[str, Any]:
    """Sample every prompt, score every completion, and estimate pass@k for each power of two up to the samples.

    pass@k = mean over prompts of 1 - C(n - c, k) / C(n, k), c of n samples being right (Chen et al. 2021, eq. 1);
    pass@k_error is its standard error over prompts.
    """
    from lineal.objectives.algorithm import Group
    from lineal.train.collect import Source
    from lineal.train.evaluate import answers, mean_length, pass_at_k
    from lineal.train.order import Order
    from lineal.train.tasks import build_scorer

    n, sampling = judging.samples, model.sampling(sampling)
    with build_scorer(options, task, sampling.max_new_tokens) as scorer:
        order = Order(len(examples), judging.seed)
        source = Source(examples, order, model.tokenizer, scorer, Group(n), sampling, judging.seed)
        found = answers(model.decoder, source, examples, n)
        pure = replace(source, sampling=replace(sampling, temperature=0.0))
        sure = answers(model.decoder, pure, examples, 1).rewards
    rewards = found.rewards
    right = [sum(reward >= 1.0 for reward in group) for group in rewards]
    result: dict[str, Any] = {"prompts": len(examples), "samples": n}
    for k in (2**i for i in range(n.bit_length())):
        mean, error = _mean_error([pass_at_k(c, n, k) for c in right])
        result |= {f"pass@{k}": mean, f"pass@{k}_error": error}
    result["greedy"], _ = _mean_error([float(group[0] >= 1.0) for group in sure])
    result["reward"], _ = _mean_error([math.fsum(group) / n for group in rewards])
    return result | {"length": mean_length(found)}


def _mean_error(values: Sequence[float]) -> tuple[float, float]:
    mean = math.fsum(values) / len(values)
    spread = math.fsum((v - mean) ** 2 for v in values) / max(1, len(values) - 1)
    return mean, math.sqrt(spread / len(values))


def doctor(words: list[str]) -> int:
    """`lineal doctor`: device, dtype probe, versions and extras, as a table (--json: as JSON)."""
    if any(word not in ("--json",) for word in words):
        if words[0] in ("--help", "-h"):
            print("lineal doctor [--json]: device, dtype probe, versions and extras")
            return 0
        raise UsageError(f"there is no option {words[0]}: lineal doctor [--json]")
    from lineal.train.device import describe

    facts = describe()
    if words:
        print(json.dumps(facts))
        return 0
    for name, value in facts.items():
        rows = value.items() if isinstance(value, dict) else [("", value)]
        for key, part in rows:
            label = f"{name} {key}".strip().replace("_", " ")
            print(f"{label:<32} {'not installed' if part is None else part}")
    return 0
