"""Texts compared by their vectors, whatever makes them: cosines, neighbours, long texts in parts, and layers side by side."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from lineal.errors import UsageError
from lineal.models.bert import Bert, BertBody, BertConfig
from lineal.models.finetuned import Inputs
from lineal.tokenizers import CharTokenizer
from lineal.train.embedding import POOLING, Embedder, Near
from lineal.train.finetune.inputs import ClassMarks, lay_out

TOKENIZER = CharTokenizer.train("abcdefgh ")
SIZE = TOKENIZER.vocab_size
MARKS = ClassMarks(SIZE, SIZE + 1)
TEXTS = ["abc", "a", "hgfe dcba", "abc abc abc abc abc abc", "", "e" * 31]
WORDS = st.lists(st.text("abc", min_size=1, max_size=4), min_size=1, max_size=8)


class Counts(Near):
    """A text's vector is how often each of three letters stands in it."""

    def __call__(self, texts: Sequence[str]) -> Tensor:
        return torch.tensor([[float(text.count(letter)) for letter in "abc"] for text in texts]).view(-1, 3)


@given(WORDS, WORDS)
def test_similarity_is_the_cosine_of_every_pair(one: list[str], other: list[str]) -> None:
    near = Counts()
    found = near.similarity(one, other)
    assert found.shape == (len(one), len(other))
    torch.testing.assert_close(found.T, near.similarity(other, one))
    wanted = torch.nn.functional.cosine_similarity(near(one)[:, None], near(other)[None], dim=-1)
    torch.testing.assert_close(found, wanted)
    # As often again says the same, and everything is like itself.
    torch.testing.assert_close(near.similarity([text * 3 for text in one], other), found)
    torch.testing.assert_close(near.similarity(one, one).diagonal(), torch.ones(len(one)))


@given(st.text("abc", min_size=1, max_size=4), WORDS, st.integers(1, 12))
def test_the_nearest_come_first_and_no_more_than_there_are(text: str, among: list[str], count: int) -> None:
    near = Counts()
    found = near.nearest(text, among, count)
    assert len(found) == min(count, len(among))
    values = [value for _, value in found]
    assert values == sorted(values, reverse=True)
    every = sorted(near.similarity([text], among)[0].tolist(), reverse=True)
    assert values == pytest.approx(every[: len(values)], abs=1e-6)
    for word, value in found:
        assert near.similarity([text], [word])[0, 0].item() == pytest.approx(value, abs=1e-6)


def test_among_no_texts_there_is_no_neighbour() -> None:
    assert Counts().nearest("a", []) == []


def embedder(pooling: str = "mean", layers: tuple[int, ...] = (-1,), marked: bool = True) -> Embedder:
    """A random encoder of two layers that reads 12 tokens."""
    model = Bert(BertConfig(SIZE + 2, 8, 12, 2, 2, 12)).initialise(0)
    made = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.3 * torch.randn(parameter.shape, generator=made)
    return Embedder(BertBody(model).eval(), TOKENIZER, MARKS if marked else None, pooling, layers)


@torch.no_grad()
def by_hand(embed: Embedder, text: str) -> Tensor:
    """A text's vector from its parts, each read alone, weighted by their tokens."""
    ids, room = TOKENIZER.encode(text), 12 - (2 if embed.marks else 0)
    total, weight = torch.zeros(8 * len(embed.layers)), 0
    for start in range(0, max(1, len(ids)), room):
        part = ids[start : start + room]
        whole = [MARKS.cls, *part, MARKS.sep] if embed.marks else part or [TOKENIZER.eos_id or 0]
        token_1T = torch.tensor([whole])
        states = list(embed.body.encoder.states(token_1T, torch.zeros_like(token_1T)))  # type: ignore[union-attr]
        pick = {"cls": 0, "last": -1}
        rows = [
            states[layer][0].mean(0) if embed.pooling == "mean" else states[layer][0, pick[embed.pooling]]
            for layer in embed.layers
        ]
        total, weight = total + len(whole) * torch.cat(rows), weight + len(whole)
    return total / weight


@pytest.mark.parametrize("marked", [True, False])
@pytest.mark.parametrize("layers", [(-1,), (0, 2), (1, -1, 0)])
@pytest.mark.parametrize("pooling", POOLING)
def test_a_vector_is_that_of_its_parts_read_alone(
    pooling: str, layers: tuple[int, ...], marked: bool
) -> None:
    embed = embedder(pooling, layers, marked)
    wanted = torch.stack([by_hand(embed, text) for text in TEXTS])
    for budget in (1, 30, 16384):
        embed.token_budget = budget
        found = embed(TEXTS)
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(embed(TEXTS[::-1]), wanted.flip(0), rtol=1e-4, atol=1e-5)
    assert embed([]).shape == (0, 8 * len(layers))


def test_dropout_is_off_while_it_embeds_and_back_on_afterwards() -> None:
    embed = embedder()
    before = embed(TEXTS)
    embed.body.set_dropout(0.5)
    embed.body.train()
    torch.testing.assert_close(embed(TEXTS), before)
    assert embed.body.training


def test_no_gradient_is_kept_of_a_vector() -> None:
    assert not embedder()(["abc"]).requires_grad


@pytest.mark.parametrize(
    ("pooling", "layers"), [("max", (-1,)), ("mean", (3,)), ("mean", (-4,)), ("cls", (0, 9))]
)
def test_what_a_model_does_not_have_is_refused(pooling: str, layers: tuple[int, ...]) -> None:
    with pytest.raises(UsageError, match=r"--pooling max|--layers (3|-4|9): the model has 2"):
        embedder(pooling, layers)


def test_layers_are_counted_from_both_ends() -> None:
    embed = embedder()
    inputs: Inputs = lay_out([[MARKS.enclose([0, 1, 2])]])
    states = embed.body.layer_states(inputs)
    assert len(states) == embed.body.layer_count + 1 == 3
    torch.testing.assert_close(embedder(layers=(2,))(TEXTS), embedder(layers=(-1,))(TEXTS))
    torch.testing.assert_close(embedder(layers=(0,))(TEXTS), embedder(layers=(-3,))(TEXTS))
