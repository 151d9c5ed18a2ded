"""The stages of an explanation are the model's distribution, each filter's, and what the sampler draws from."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from lineal.errors import UsageError
from lineal.generate.engine import generate
from lineal.generate.explain import explain
from lineal.generate.sampling import Sampling
from lineal.models.decoder import Decoder
from lineal.ops import filters

PROMPT, SAID = [5, 1, 7], [2, 9, 2]
ALL = Sampling(
    repetition_penalty=1.3, frequency_penalty=0.4, presence_penalty=0.2, no_repeat_ngram=2, temperature=0.8, top_k=8,
    top_p=0.95, min_p=0.02,
)  # fmt: skip


@pytest.fixture
def logit_1V(model: Decoder) -> torch.Tensor:
    """What the model says next."""
    with torch.no_grad():
        return model.logits(model(torch.tensor([[*PROMPT, *SAID]]))[:, -1])


def test_every_filter_has_its_stage_in_order(model: Decoder, logit_1V: torch.Tensor) -> None:
    found = explain(model, PROMPT, ALL, generated=SAID)
    assert [stage.name for stage in found.stages] == ["model", *ALL.filters]
    count_1V = torch.zeros(1, 13, dtype=torch.int64)
    count_1V[0, 2], count_1V[0, 9] = 2, 1
    expected = [logit_1V, filters.repetition(logit_1V, count_1V, 1.3)]
    expected.append(filters.frequency(expected[-1], count_1V, 0.4))
    expected.append(filters.presence(expected[-1], count_1V, 0.2))
    for stage, x_1V in zip(found.stages, expected, strict=False):
        torch.testing.assert_close(stage.logit_V, x_1V[0])
        torch.testing.assert_close(stage.probability_V, x_1V[0].softmax(-1))
    kept = [stage.kept for stage in found.stages]
    assert kept == sorted(kept, reverse=True) and kept[3:6] == [13, 12, 12] and kept[6] == 8
    assert found.stages[0].entropy == pytest.approx(
        torch.distributions.Categorical(logits=logit_1V[0]).entropy().item()
    )


@pytest.mark.parametrize(
    "settings", [ALL, Sampling(), Sampling(temperature=0), Sampling(temperature=0, top_k=1)]
)
def test_it_draws_what_the_sampler_draws(model: Decoder, settings: Sampling) -> None:
    one = dataclasses.replace(settings, max_new_tokens=1)
    for seed in range(20):
        ((sampled,),) = generate(model, [PROMPT], one, seed=seed)
        assert explain(model, PROMPT, one, seed=seed).token == sampled.ids[0]


def test_the_notable_tokens_are_the_most_probable_and_the_one_drawn(
    model: Decoder, logit_1V: torch.Tensor
) -> None:
    found = explain(model, [*PROMPT, *SAID], Sampling(temperature=0))
    (tops,) = logit_1V.topk(4).indices.tolist()
    assert found.notable(4) == tops
    late = dataclasses.replace(found, token=int(logit_1V.argmin()))
    assert late.notable(4) == [*tops, late.token]


def test_formulas_carry_their_numbers(model: Decoder) -> None:
    what = {s.name: s.what for s in explain(model, PROMPT, ALL).stages}
    assert what["repetition"] == "logit / 1.3^n, n = times generated"
    assert what["top_p"] == "the fewest that sum to 0.95"
    signed = dataclasses.replace(ALL, repetition_mode="huggingface", temperature=0.0)
    what = {s.name: s.what for s in explain(model, PROMPT, signed).stages}
    assert "x 1.3 where negative" in what["repetition"] and "greedy" in what["temperature"]


def test_a_prompt_without_room_is_refused(model: Decoder) -> None:
    with pytest.raises(UsageError, match="context"):
        explain(model, [1] * 38, Sampling(), generated=[1, 1])
