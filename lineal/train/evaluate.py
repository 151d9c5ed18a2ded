"""Held-out figures of a model: sampled accuracy at temperature 1, greedy accuracy, and what it still gets wrong."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from lineal.environments.text import Example
from lineal.generate.prefill import Speaker
from lineal.models.decoder import Decoder
from lineal.objectives.algorithm import Group
from lineal.train.collect import EVALUATION, Source, sample_groups
from lineal.train.gathered import Gathered


@dataclass(frozen=True)
class Evaluation:
    """Mean reward over held-out prompts; with a 0/1 reward that is accuracy.

    sampled: over all samples at the training temperature. greedy: of the most probable completion, one per prompt.
    error: standard error of `sampled`, prompts being the independent draws. length: mean tokens per completion.
    groups: `sampled` by the value of the column `operator` (the embedded task's), when there is one.
    records: prompts with completions and rewards, for reports; wrong ones first.
    """

    sampled: float
    greedy: float
    error: float
    length: float
    prompts: int
    groups: dict[str, float]
    records: list[dict[str, Any]]

    def line(self) -> str:
        """One line for the user."""
        if not self.prompts:
            return "no prompt is held out, so accuracy is not measured"
        return f"held-out accuracy {self.sampled:.3f} sampled, {self.greedy:.3f} greedy"

    def metrics(self) -> dict[str, float]:
        """As they go into metrics.jsonl; nothing where there was no prompt to ask."""
        if not self.prompts:
            return {}
        named = {f"eval/accuracy/{name}": value for name, value in self.groups.items()}
        return {
            "eval/accuracy": self.sampled,
            "eval/greedy": self.greedy,
            "eval/error": self.error,
            "eval/length": self.length,
            **named,
        }


@torch.no_grad()
def evaluate(
    decoder: Decoder,
    source: Source,
    examples: Sequence[Example],
    *,
    samples: int = 2,
    step: int = 0,
    greedy: bool = True,
) -> Evaluation:
    """Sample each prompt `samples` times, and once greedily, and score everything; several processes share the prompts.

    source: gives tokenizer, scorer, sampling, seed and processes.
    """
    if not examples:
        return Evaluation(math.nan, math.nan, math.nan, math.nan, 0, {}, [])
    training = decoder.training
    decoder.eval()
    found = answers(decoder, source, examples, samples, step)
    best = math.nan
    if greedy:
        pure = replace(source, sampling=replace(source.sampling, temperature=0.0))
        best = math.fsum(r[0] for r in answers(decoder, pure, examples, 1, step).rewards) / len(examples)
    decoder.train(training)
    texts, rewards, length = found.texts, found.rewards, mean_length(found)
    mean_P = [math.fsum(r) / len(r) for r in rewards]
    mean = math.fsum(mean_P) / len(mean_P)
    spread = math.fsum((m - mean) ** 2 for m in mean_P) / max(1, len(mean_P) - 1)
    kinds: dict[str, list[float]] = {}
    for example, value in zip(examples, mean_P, strict=True):
        if "operator" in example.columns:
            kinds.setdefault(str(example.columns["operator"]), []).append(value)
    groups = {kind: math.fsum(values) / len(values) for kind, values in kinds.items()}
    records = [
        {"prompt": e.prompt, "completions": t, "rewards": r, "answer": e.columns.get("answer")}
        for e, t, r in zip(examples, texts, rewards, strict=True)
    ]
    records.sort(key=lambda record: sum(record["rewards"]))
    error = math.sqrt(spread / len(mean_P))
    return Evaluation(mean, best, error, length, len(examples), groups, records)


def answers(
    decoder: Speaker, source: Source, examples: Sequence[Example], samples: int, step: int = 0
) -> Gathered:
    """`samples` completions of each prompt with their rewards; one whose reward is missing counts 0."""
    asked = replace(source, examples=examples, group=Group(samples), shuffle_rewards=False)
    found, _ = sample_groups(decoder, asked, range(len(examples)), EVALUATION + step, 0)
    found.rewards = [[0.0 if math.isnan(reward) else reward for reward in group] for group in found.rewards]
    return found


def mean_length(found: Gathered) -> float:
    """Tokens per completion."""
    lengths = [len(completion.ids) for group in found.completions for completion in group]
    return math.fsum(lengths) / max(1, len(lengths))


def pass_at_k(correct: int, samples: int, k: int) -> float:
    """1 - C(n - c, k) / C(n, k): the chance that k of n samples hold a right one  (Chen et al. 2021, eq. 1)."""
    if samples - correct < k:
        return 1.0
    return 1.0 - math.comb(samples - correct, k) / math.comb(samples, k)
