"""The options of every recipe, as frozen dataclasses of plain values; no torch here, so that help is instant.

A recipe's configuration is a dataclass of at most five groups; the names are unique over the groups, so the
command line needs no prefixes, and `config.json` is this dataclass written out.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any, TypeVar

from lineal.errors import UsageError
from lineal.optim.schedules import SCHEDULES

T = TypeVar("T")


def at_least(options: Any, **least: float) -> None:
    """Refuse values below what means something; None is a default that is filled in later."""
    for name, low in least.items():
        value = getattr(options, name)
        # nan is not at least anything.
        if value is not None and not value >= low:
            flag = "--" + name.replace("_", "-")
            raise UsageError(f"{flag} {value:g}: it must be at least {low:g}.")


def one_of(options: Any, **allowed: tuple[str, ...]) -> None:
    """Refuse names beyond those allowed, with the nearest one."""
    for field_name, names in allowed.items():
        value = getattr(options, field_name)
        if value not in names:
            near = get_close_matches(value, names, 1)
            hint = f" Did you mean {near[0]}?" if near else ""
            raise UsageError(
                f"--{field_name.replace('_', '-')} {value} is not one of {', '.join(names)}.{hint}"
            )


def optimisation(options: Any, *more_schedules: str) -> None:
    """Refuse what no Adam can work with: an unknown schedule, a decay that is no share, a number that is not finite."""
    one_of(options, schedule=(*more_schedules, *SCHEDULES))
    for entry in dataclasses.fields(options):
        value, flag = getattr(options, entry.name), "--" + entry.name.replace("_", "-")
        if isinstance(value, float) and not math.isfinite(value):
            raise UsageError(f"{flag} {value}: it must be a finite number.")
        if entry.name in ("beta1", "beta2") and not 0 <= value < 1:
            raise UsageError(f"{flag} {value:g}: it must be at least 0 and below 1.")


@dataclass(frozen=True)
class ModelOptions:
    """Which model, or the shape of a fresh one."""

    model: str | None = None
    """A model folder in the Hugging Face layout, a run folder, or hf:OWNER/NAME. Without it: a fresh model."""
    tokenizer: str | None = None
    """char, byte, or a folder with tokenizer.json. Default: the model's own; char for a fresh model."""
    layout: str = "llama"
    """Layout of a fresh model: llama, qwen2, qwen3, gpt2 or openai-gpt."""
    layers: int = 3
    """Blocks of a fresh model."""
    width: int = 128
    """Width of a fresh model."""
    heads: int = 4
    """Attention heads of a fresh model."""
    kv_heads: int | None = None
    """Key-value heads of a fresh model (default: as many as heads)."""
    inner: int | None = None
    """Inner width of the feed-forward layers (default: 4 x width)."""
    context: int | None = None
    """Longest sequence of a fresh model (default: what the task needs)."""
    dropout: float = 0.0
    """Dropout during pretraining and sft of a fresh model; policies always sample and score without it."""
    dtype: str = "auto"
    """auto (a short probe decides), float32, bfloat16 (autocast) or float64."""
    device: str = "auto"
    """auto, cpu, cuda or mps."""
    threads: int = 0
    """CPU threads; 0 lets the probe decide."""
    shard: bool = True
    """Under torchrun: shard model and optimiser over the processes (FSDP2); --no-shard keeps a whole copy in each."""
    chat: bool = False
    """Render prompts with the model's own chat template."""

    def __post_init__(self) -> None:
        at_least(self, layers=1, width=1, heads=1, kv_heads=1, inner=1, context=1, threads=0, dropout=0)
        if self.dropout >= 1:
            raise UsageError(f"--dropout {self.dropout:g}: nothing would be left; it must be below 1.")


@dataclass(frozen=True)
class DataOptions:
    """Which prompts and which rewards."""

    data: str | None = None
    """JSONL, CSV, TSV, TXT or Parquet file (.gz read as it is), or hf:NAME. Without it: the embedded arithmetic task."""
    task: str = "arithmetic"
    """The embedded task used when there is no --data."""
    level: int = 2
    """Difficulty of the embedded task: 1, 2 or 3 digits."""
    prompt_field: str = "prompt"
    """Name of the prompt's column."""
    completion_field: str | None = None
    """Name of the gold answer's column (default: completion, answer or solution, whichever is there)."""
    eval_data: str | None = None
    """A separate file of held-out prompts; without it a part of --data is held out."""
    held_out: float = 0.1
    """Share of --data's distinct prompts that is held out and never trained on."""
    limit: int = 0
    """Read at most this many rows; 0 reads all."""
    on_bad_row: str = "error"
    """error, skip or warn: what a row that cannot be read does."""
    reward: tuple[str, ...] = ()
    """Reward functions: a built-in name or path.py:function, several allowed (default: exact)."""
    reward_weights: tuple[float, ...] = ()
    """One weight per reward (default: 1 each)."""
    reward_timeout: float = 60.0
    """Seconds one call of a reward function may take before its process group is killed."""
    on_reward_error: str = "stop"
    """stop, zero or drop: what a failing reward does to its samples; always counted and shown."""
    overlong_buffer: int = 0
    """Soft overlong penalty over the last N tokens before max_new_tokens (DAPO, eq. 13); 0 turns it off."""
    shuffle_rewards: bool = False
    """Control: permute rewards across the batch's completions, so that nothing can be learned."""

    def __post_init__(self) -> None:
        at_least(self, limit=0, reward_timeout=0, overlong_buffer=0)


@dataclass(frozen=True)
class AlgorithmOptions:
    """The algorithm and its numbers; an unset number keeps the algorithm's own."""

    algorithm: str = "grpo"
    """A named algorithm or path.py:NAME."""
    prompts: int = 32
    """Prompts per step; completions per step = prompts x group size."""
    group_size: int | None = None
    """Completions per prompt."""
    epochs: int | None = None
    """Passes over each rollout."""
    minibatches: int | None = None
    """Optimiser steps per pass."""
    learning_rate: float | None = None
    """Learning rate of the policy."""
    clip_low: float | None = None
    """Lower clip bound: ratios below 1 - clip_low are clipped."""
    clip_high: float | None = None
    """Upper clip bound: ratios above 1 + clip_high are clipped."""
    max_kl: float | None = None
    """Trust region: largest mean KL(old || new)."""
    reference_kl: float | None = None
    """Coefficient of KL to the frozen starting model (k3, in the loss)."""
    entropy: float | None = None
    """Coefficient of the entropy bonus."""
    discount: float | None = None
    """Discount per token."""
    trace_decay: float | None = None
    """Trace decay of generalised advantage estimation."""
    whiten: str | None = None
    """rollout, minibatch or off: whitening of advantages."""
    critic: str | None = None
    """head or separate: where the critic lives."""
    value_clip: float | None = None
    """Clip range of the value loss; 0 turns it off."""
    reward_scaling: bool = False
    """Divide rewards by their running standard deviation."""
    orthogonal: bool = False
    """Orthogonal start of the critic's head."""
    schedule: str = "constant"
    """Learning-rate schedule: constant, linear or cosine."""
    warmup: int = 0
    """Steps of linear warm-up."""
    max_grad_norm: float | None = None
    """Global gradient clip; 0 turns it off."""
    token_budget: int = 16384
    """Most tokens of one micro-batch, padding included; the gradient does not depend on it."""
    subset: str | None = None
    """Trust region: only parameters whose name contains one of these comma-separated parts move."""
    routing_replay: bool = False
    """Mixtures of experts: score and train with the experts that each token went to when it was sampled."""

    def __post_init__(self) -> None:
        at_least(self, prompts=1, warmup=0, max_grad_norm=0, token_budget=1)


@dataclass(frozen=True)
class SamplingOptions:
    """How completions are sampled."""

    max_new_tokens: int | None = None
    """Longest completion (default: what the task needs, else 256)."""
    temperature: float = 1.0
    """Sampling temperature; the policy that is trained is softmax(logits / temperature)."""
    max_batch: int = 512
    """Most completions decoded at once; more wait and join as others finish."""

    def __post_init__(self) -> None:
        at_least(self, max_new_tokens=1, temperature=0, max_batch=1)


@dataclass(frozen=True)
class RunOptions:
    """The run folder: how long, how often, from which seed."""

    out: str | None = None
    """The run folder (default: runs/RECIPE-N)."""
    steps: int = 200
    """Steps to take."""
    seed: int = 0
    """Seed of initialisation, order of data and sampling."""
    save_every: int = 50
    """Checkpoint every N steps (the last step is always saved)."""
    keep_last: int = 2
    """Checkpoints kept."""
    keep_every: int = 0
    """Also keep every checkpoint whose step is a multiple of this; 0 for none."""
    eval_every: int = 0
    """Evaluate on held-out prompts every N steps; 0 means at the start and at the end."""
    eval_prompts: int = 500
    """Held-out prompts of the final evaluation (fewer when the task has fewer)."""
    eval_samples: int = 2
    """Samples per held-out prompt at temperature 1."""
    time_limit: float = 0.0
    """Stop (cleanly, with a final model) after this many seconds of training; 0 for no limit."""
    token_limit: int = 0
    """Stop after this many tokens were sampled (or trained on); 0 for no limit."""
    eval_split: str = "held_out"
    """Prompts of the first and last evaluation: held_out, or validation while settings are still being chosen."""
    quiet: bool = False
    """Print no progress."""

    def __post_init__(self) -> None:
        at_least(
            self,
            steps=0,
            save_every=1,
            keep_last=1,
            keep_every=0,
            eval_every=0,
            eval_prompts=1,
            eval_samples=1,
        )
        at_least(self, time_limit=0, token_limit=0)
        if self.eval_split not in ("held_out", "validation"):
            raise UsageError(f"--eval-split {self.eval_split} is neither held_out nor validation.")


@dataclass(frozen=True)
class OptimiserOptions:
    """Batches and AdamW, for pretrain and sft."""

    batch_size: int = 64
    """Sequences per step."""
    block: int = 64
    """Tokens per packed block (pretrain)."""
    learning_rate: float = 2e-3
    """Peak learning rate."""
    schedule: str = "constant"
    """constant, linear, cosine, wsd (a linear fall over the last fifth) or inverse_sqrt."""
    warmup: int = 50
    """Steps of linear warm-up."""
    floor: float = 0.1
    """Share of the peak that linear and cosine end at."""
    weight_decay: float = 0.01
    """Decoupled weight decay, on matrices only."""
    beta1: float = 0.9
    """Adam's first decay."""
    beta2: float = 0.99
    """Adam's second decay."""
    max_grad_norm: float = 1.0
    """Global gradient clip; 0 turns it off."""
    token_budget: int = 16384
    """Most tokens of one micro-batch, padding included."""
    stop_accuracy: float = 0.0
    """sft: stop once sampled accuracy on validation prompts reaches this; 0 for never."""

    def __post_init__(self) -> None:
        at_least(
            self, batch_size=1, block=1, learning_rate=0, warmup=0, floor=0, max_grad_norm=0, token_budget=1
        )
        at_least(self, weight_decay=0)
        optimisation(self)


@dataclass(frozen=True)
class PolicyGradientConfig:
    """Everything the policy-gradient recipes can be told."""

    model: ModelOptions = field(default_factory=ModelOptions)
    data: DataOptions = field(default_factory=DataOptions)
    algorithm: AlgorithmOptions = field(default_factory=AlgorithmOptions)
    sampling: SamplingOptions = field(default_factory=SamplingOptions)
    run: RunOptions = field(default_factory=RunOptions)


@dataclass(frozen=True)
class LanguageConfig:
    """Everything pretrain and sft can be told."""

    model: ModelOptions = field(default_factory=ModelOptions)
    data: DataOptions = field(default_factory=DataOptions)
    optimiser: OptimiserOptions = field(default_factory=OptimiserOptions)
    sampling: SamplingOptions = field(default_factory=SamplingOptions)
    run: RunOptions = field(default_factory=RunOptions)


def with_options(config: T, **options: Any) -> T:
    """The same configuration with some options changed, found by name in whichever group has them."""
    for name, value in options.items():
        for group in dataclasses.fields(config):  # type: ignore[arg-type]
            part = getattr(config, group.name)
            if any(f.name == name for f in dataclasses.fields(part)):
                changed = {group.name: dataclasses.replace(part, **{name: value})}
                config = dataclasses.replace(config, **changed)  # type: ignore[type-var]
                break
        else:
            raise UsageError(f"no option is called {name}: see --help-all for those there are.")
    return config


def to_json(config: Any) -> dict[str, Any]:
    """The configuration as nested plain values."""
    return dataclasses.asdict(config)


def from_json(config_type: type[T], saved: dict[str, Any]) -> T:
    """The configuration that `to_json` wrote; unknown names are refused, absent ones take their defaults."""
    default, parts = config_type(), {}
    for group, values in saved.items():
        part = getattr(default, group, None)
        if part is None:
            raise UsageError(
                f"the saved configuration has a group {group!r} that {config_type.__name__} lacks."
            )
        values = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        unknown = set(values) - {f.name for f in dataclasses.fields(part)}
        if unknown:
            raise UsageError(
                f"the saved configuration sets {sorted(unknown)}, which this version does not have."
            )
        parts[group] = dataclasses.replace(part, **values)
    return dataclasses.replace(default, **parts)  # type: ignore[type-var]
