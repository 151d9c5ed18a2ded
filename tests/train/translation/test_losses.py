"""The masked loss: what padding, micro-batches and vocabularies must not change, and the figures by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from lineal.generate.translate import Ids
from lineal.models.transformer import Transformer, TransformerConfig
from lineal.tokenizers import CharTokenizer
from lineal.train.translation.batches import Encoded, encode, make_batch
from lineal.train.translation.losses import batch_loss, figures
from lineal.train.translation.pairs import Pairs

LETTERS = CharTokenizer.train("abcdefgh")
IDS = Ids(start=1, end=0, pad=0)
PAIRS = Pairs(["abc", "a", "hgfedcba", "dd"], ["cba", "a", "abcdefgh", "däd"[::2]], "here")


@pytest.fixture(scope="module")
def model() -> Transformer:
    """A float64 model over letters."""
    return Transformer(TransformerConfig(LETTERS.vocab_size, 16, 24, 2, 2, 2)).initialise(0).double().eval()


@pytest.fixture(scope="module")
def data() -> Encoded:
    """Four pairs."""
    return encode(PAIRS, LETTERS, IDS.end)


def by_hand(model: Transformer, data: Encoded, rows: list[int], epsilon: float) -> torch.Tensor:
    """The summed loss, one pair at a time, with torch's cross-entropy."""
    total = torch.zeros((), dtype=torch.float64)
    for row in rows:
        target = data.target(row)
        h = model(torch.tensor([data.source(row)]), torch.tensor([[IDS.start, *target[:-1]]]))
        total = total + F.cross_entropy(
            model.logits(h)[0], torch.tensor(target), label_smoothing=epsilon, reduction="sum"
        )
    return total


@pytest.mark.parametrize("epsilon", [0.0, 0.1])
def test_a_padded_batch_is_its_pairs_one_by_one(model: Transformer, data: Encoded, epsilon: float) -> None:
    batch = make_batch(data, np.arange(4), IDS, torch.device("cpu"))
    loss, expected = batch_loss(model, batch, epsilon), by_hand(model, data, [0, 1, 2, 3], epsilon)
    torch.testing.assert_close(loss.smoothed, expected)
    assert loss.tokens == sum(len(t) + 1 for t in PAIRS.targets)
    weights = list(model.parameters())
    for one, other in zip(
        torch.autograd.grad(loss.smoothed, weights), torch.autograd.grad(expected, weights), strict=True
    ):
        torch.testing.assert_close(one, other, atol=1e-12, rtol=1e-9)


def test_the_gradient_does_not_depend_on_micro_batches(model: Transformer, data: Encoded) -> None:
    weights = list(model.parameters())

    def gradient(parts: list[list[int]]) -> list[torch.Tensor]:
        losses = [
            batch_loss(model, make_batch(data, np.array(p), IDS, torch.device("cpu")), 0.1).smoothed
            for p in parts
        ]
        return list(torch.autograd.grad(sum(losses, torch.zeros((), dtype=torch.float64)), weights))

    for one, other in zip(gradient([[0, 1, 2, 3]]), gradient([[2], [3, 0], [1]]), strict=True):
        torch.testing.assert_close(one, other, atol=1e-12, rtol=1e-9)


def test_figures_are_what_they_are_called(model: Transformer, data: Encoded) -> None:
    found = figures(model, data, IDS)
    with torch.no_grad():
        nats = by_hand(model, data, [0, 1, 2, 3], 0.0).item()
    tokens = sum(len(t) + 1 for t in PAIRS.targets)
    assert found.loss == pytest.approx(nats / tokens, rel=1e-9)
    assert found.perplexity == pytest.approx(math.exp(nats / tokens), rel=1e-9)
    assert found.bits_per_byte == pytest.approx(
        nats / math.log(2) / sum(len(t.encode()) for t in PAIRS.targets), rel=1e-9
    )
    assert 0 <= found.token_accuracy <= 1
    assert set(found.metrics()) == {
        "eval/loss",
        "eval/perplexity",
        "eval/bits_per_byte",
        "eval/token_accuracy",
    }


def test_a_perfect_model_has_all_tokens_right(data: Encoded) -> None:
    """A model that always says the end token is right once a sentence."""
    model = (
        Transformer(TransformerConfig(LETTERS.vocab_size, 16, 24, 2, 1, 1, logit_bias=True))
        .initialise(0)
        .eval()
    )
    with torch.no_grad():
        assert model.logit_bias is not None
        model.logit_bias[IDS.end] = 1e4
    tokens = sum(len(t) + 1 for t in PAIRS.targets)
    assert figures(model, data, IDS).token_accuracy == pytest.approx(4 / tokens)
