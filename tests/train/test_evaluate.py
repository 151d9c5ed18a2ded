"""Held-out figures: sampled and greedy accuracy, their error, and pass@k."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lineal.environments.rewards import Reward
from lineal.environments.scoring import Scorer
from lineal.environments.text import Example
from lineal.generate.sampling import Sampling
from lineal.models.decoder import Decoder, llama_config
from lineal.objectives.algorithm import Group
from lineal.tokenizers import CharTokenizer
from lineal.train.collect import Source, collect
from lineal.train.evaluate import evaluate, pass_at_k
from lineal.train.order import Order

TOKENIZER = CharTokenizer.train("0123456789=+-")
EXAMPLES = [Example(f"{i}=", {"answer": str(i), "operator": "+-"[i % 2]}, str(i)) for i in range(10)]


def odd(completions: list[str], **_: Any) -> list[float | None]:
    """1 for completions of odd length."""
    return [float(len(text) % 2) for text in completions]


@pytest.fixture
def decoder() -> Decoder:
    """A tiny model, fresh."""
    return Decoder(llama_config(TOKENIZER.vocab_size, 16, 1, 2, 32, 16)).initialise(0).eval()


@pytest.fixture
def source() -> Source:
    """Where training would draw from: groups of 8, shuffled rewards."""
    scorer = Scorer([Reward("odd", "odd", function=odd)])
    sampling = Sampling(max_new_tokens=4)
    return Source(
        EXAMPLES, Order(10, 3), TOKENIZER, scorer, Group(8, keep="mixed"), sampling, 3, shuffle_rewards=True
    )


def test_figures_are_means_over_prompts(decoder: Decoder, source: Source) -> None:
    found = evaluate(decoder, source, EXAMPLES, samples=4, step=2)
    rewards = {r["prompt"]: r["rewards"] for r in found.records}
    assert [len(r) for r in rewards.values()] == [4] * 10
    mean_P = [sum(r) / 4 for r in rewards.values()]
    assert found.sampled == pytest.approx(sum(mean_P) / 10)
    spread = sum((m - found.sampled) ** 2 for m in mean_P) / 9
    assert found.error == pytest.approx(math.sqrt(spread / 10))
    for record in found.records:
        assert record["rewards"] == odd(record["completions"]), "never shuffled: this is a measurement"
    assert sum(found.groups.values()) / 2 == pytest.approx(found.sampled)
    assert found.metrics()["eval/accuracy/+"] == found.groups["+"]
    assert found.prompts == 10 and 1 <= found.length <= 4


def test_wrong_answers_come_first(decoder: Decoder, source: Source) -> None:
    sums = [sum(record["rewards"]) for record in evaluate(decoder, source, EXAMPLES, samples=4).records]
    assert sums == sorted(sums) and sums[0] < sums[-1]


def test_greedy_is_one_answer_without_chance(decoder: Decoder, source: Source) -> None:
    one, other = (evaluate(decoder, replace(source, seed=seed), EXAMPLES, samples=1) for seed in (1, 2))
    assert one.greedy == other.greedy and 0 <= one.greedy <= 1
    assert [r["completions"] for r in one.records] != [r["completions"] for r in other.records]
    assert math.isnan(evaluate(decoder, source, EXAMPLES, greedy=False).greedy)


def test_an_evaluation_changes_nothing(decoder: Decoder, source: Source) -> None:
    """Neither the model's mode nor the draws of training, whatever its step."""
    before = collect(decoder, source, 3, 1, 0)
    decoder.train()
    state = torch.get_rng_state()
    evaluate(decoder, source, EXAMPLES, step=1)
    assert decoder.training and torch.equal(state, torch.get_rng_state())
    decoder.eval()
    after = collect(decoder, source, 3, 1, 0)
    assert before.samples == after.samples and before.metrics == after.metrics


def test_a_sample_without_reward_counts_as_wrong(decoder: Decoder, source: Source) -> None:
    def some(completions: list[str], answer: list[str], **_: Any) -> list[float | None]:
        return [None if int(a) < 5 else 1.0 for a in answer]

    scorer = Scorer([Reward("some", "some", function=some)])
    found = evaluate(decoder, replace(source, scorer=scorer), EXAMPLES, samples=2)
    assert found.sampled == found.greedy == 0.5


@given(st.integers(1, 9).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n), st.integers(1, n))))
def test_pass_at_k_is_a_count(case: tuple[int, int, int]) -> None:
    samples, correct, k = case
    right = [True] * correct + [False] * (samples - correct)
    draws = list(itertools.combinations(right, k))
    assert pass_at_k(correct, samples, k) == pytest.approx(sum(map(any, draws)) / len(draws))
