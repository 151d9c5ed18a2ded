"""Held-out figures of a model: sampled accuracy at temperature 1, greedy accuracy, and what it still gets wrong."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from lineal.environments.scoring import Scorer
from lineal.environments.text import Example, encode_prompts, samples_of
from lineal.generate.engine import generate
from lineal.generate.sampling import Sampling
from lineal.models.decoder import Decoder
from lineal.objectives.algorithm import Group
from lineal.tokenizers import Tokenizer
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


def score_completions(
    decoder: Decoder,
    tokenizer: Tokenizer,
    examples: Sequence[Example],
    scorer: Scorer,
    sampling: Sampling,
    *,
    samples: int,
    seed: int,
    step: int,
) -> tuple[list[list[str]], list[list[float]], float]:
    """Texts and rewards of `samples` completions of each prompt, and their mean length in tokens."""
    prompts = encode_prompts(examples, tokenizer, decoder.config.context)
    groups = generate(
        decoder,
        prompts,
        sampling,
        samples=samples,
        seed=seed,
        step=EVALUATION + step,
        eos_id=tokenizer.eos_id,
        decode=tokenizer.decode,
    )
    flat = [completion for group in groups for completion in group]
    texts = [tokenizer.decode(list(completion.ids)) for completion in flat]
    repeated = [example for example in examples for _ in range(samples)]
    ids, ends = [list(c.ids) for c in flat], [c.finish for c in flat]
    scored = scorer(samples_of(repeated, texts, ids, ends), {"step": step})
    rewards = [0.0 if math.isnan(reward) else reward for reward in scored.rewards]
    cut = range(0, len(flat), samples)
    length = math.fsum(map(len, ids)) / max(1, len(flat))
    return [texts[i : i + samples] for i in cut], [rewards[i : i + samples] for i in cut], length


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
    found = _answers(decoder, source, examples, samples, step)
    best = math.nan
    if greedy:
        pure = replace(source, sampling=replace(source.sampling, temperature=0.0))
        best = math.fsum(r[0] for r in _answers(decoder, pure, examples, 1, step).rewards) / len(examples)
    decoder.train(training)
    texts, rewards = found.texts, found.rewards
    lengths = [len(completion.ids) for group in found.completions for completion in group]
    length = math.fsum(lengths) / max(1, len(lengths))
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


def _answers(
    decoder: Decoder, source: Source, examples: Sequence[Example], samples: int, step: int
) -> Gathered:
    asked = replace(source, examples=examples, group=Group(samples), shuffle_rewards=False)
    found, _ = sample_groups(decoder, asked, range(len(examples)), EVALUATION + step, 0)
    found.rewards = [[0.0 if math.isnan(reward) else reward for reward in group] for group in found.rewards]
    return found


def pass_at_k(correct: int, samples: int, k: int) -> float:
    """1 - C(n - c, k) / C(n, k): the chance that k of n samples hold a right one  (Chen et al. 2021, eq. 1)."""
    if samples - correct < k:
        return 1.0
    return 1.0 - math.comb(samples - correct, k) / math.comb(samples, k)
