"""Hidden words filled in, and the probe of two nouns: probabilities that are the model's, and what is refused."""

from __future__ import annotations

import math

import pytest
import torch

from lineal.errors import UsageError
from lineal.generate.fill import COREFERENCE, NOUNS, SENTENCES, Filler, coreference, fillings
from lineal.models.bert import Bert, BertConfig
from lineal.tokenizers.pipeline import Pipeline
from lineal.tokenizers.training import KINDS, Learning, train

TEXTS = [*SENTENCES, COREFERENCE, "a dog ran over the wide street", "tired animal it"] * 3


@pytest.fixture(scope="module")
def filler() -> Filler:
    """A random encoder with more rows than its vocabulary has words."""
    tokenizer = train(
        "wordpiece", texts=TEXTS, parts=KINDS["wordpiece"].parts, learning=Learning(vocab_size=120)
    )
    assert isinstance(tokenizer, Pipeline)
    config = BertConfig(tokenizer.vocab_size + 7, width=16, inner=24, heads=2, layers=2, context=48)
    model = Bert(config).initialise(0)
    made = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.3 * torch.randn(parameter.shape, generator=made)
    return Filler(model.eval(), tokenizer)


def test_each_gap_has_a_distribution_over_the_words_of_texts(filler: Filler) -> None:
    chance_MV = filler.probabilities("the [MASK] of a [MASK] dog")
    assert chance_MV.shape == (2, filler.model.config.vocab_size) and chance_MV.dtype == torch.float64
    torch.testing.assert_close(chance_MV.sum(-1), torch.ones(2, dtype=torch.float64))
    size = filler.tokenizer.vocab_size
    assert (chance_MV[:, size:] == 0).all() and (
        chance_MV[:, sorted(filler.tokenizer.special_ids)] == 0
    ).all()


def test_probabilities_are_the_model_s_at_the_gap(filler: Filler) -> None:
    text = "a dog ran over the [MASK] street"
    ids = filler.ids(text)
    assert filler.word(ids[0]) == "[CLS]" and filler.word(ids[-1]) == "[SEP]"
    place = ids.index(filler.tokenizer.id("[MASK]") or 0)
    with torch.no_grad():
        hidden_BTD = filler.model(torch.tensor([ids]), torch.zeros(1, len(ids), dtype=torch.int64))
        logits_V = filler.model.words(hidden_BTD)[0, place].double()
    allowed = [i for i in range(filler.tokenizer.vocab_size) if i not in filler.tokenizer.special_ids]
    wanted_V = logits_V[allowed].softmax(-1)
    torch.testing.assert_close(filler.probabilities(text)[0, allowed], wanted_V)


def test_the_likeliest_words_come_first_and_no_more_than_there_are(filler: Filler) -> None:
    (gap,) = filler.fill("the [MASK]", 4)
    values = [p for _, p in gap]
    assert len(gap) == 4 and values == sorted(values, reverse=True)
    (every,) = filler.fill("the [MASK]", 10_000)
    special = {i for i in filler.tokenizer.special_ids if i < filler.tokenizer.vocab_size}
    assert len(every) == filler.tokenizer.vocab_size - len(special) and special
    assert not {word for word, _ in every} & {filler.word(i) for i in special}
    assert math.fsum(p for _, p in every) == pytest.approx(1)
    assert every[:4] == gap


def test_dropout_is_off_while_it_fills_and_back_on_afterwards(filler: Filler) -> None:
    before = filler.fill("the [MASK]")
    filler.model.train()
    try:
        assert filler.fill("the [MASK]") == before and filler.model.training
        filler.looks("a dog")
        assert filler.model.training
    finally:
        filler.model.eval()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("nothing here", r"write \[MASK\]"),
        ("", r"write \[MASK\]"),
        ("[mask]", r"write \[MASK\]"),
        ("[MASK] " * 47, "has 49 tokens .* reads 48"),
    ],
)
def test_what_cannot_be_filled_is_said(filler: Filler, text: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        filler.probabilities(text)


def test_a_text_that_just_fits_is_filled(filler: Filler) -> None:
    assert len(filler.fill("[MASK] " * 46)) == 46


def test_a_vocabulary_without_marks_is_no_berts(filler: Filler) -> None:
    other = train("bpe", texts=TEXTS, learning=Learning(vocab_size=280))
    assert isinstance(other, Pipeline)
    with pytest.raises(UsageError, match="the model is no BERT"):
        Filler(filler.model, other).ids("a")


def test_who_looks_at_whom_is_a_share_of_all(filler: Filler) -> None:
    tokens, map_LHTT = filler.looks("the animal was tired")
    assert map_LHTT.shape == (2, 2, len(tokens), len(tokens))
    torch.testing.assert_close(map_LHTT.sum(-1), torch.ones(2, 2, len(tokens)))


def test_the_report_s_sentences_have_their_words(filler: Filler) -> None:
    for record, sentence in zip(fillings(filler), SENTENCES, strict=True):
        assert record["text"] == sentence and len(record["words"]) == sentence.count("[MASK]") == 1
        assert all(isinstance(word, str) and 0 <= p <= 1 for word, p in record["words"][0])


def test_the_probe_shares_its_pronoun_between_both_nouns(filler: Filler) -> None:
    found = coreference(filler)
    assert [row["cause"] for row in found["rows"]] == ["tired", "wide"]
    for row in found["rows"]:
        assert sum(row["chosen"]) == pytest.approx(1) and min(row["chosen"]) > 0
        text = COREFERENCE.format("the [MASK]", row["cause"])
        chance_V = filler.probabilities(text)[0]
        first = [chance_V[filler.tokenizer.encode(noun)[0]].item() for noun in NOUNS]
        assert row["chosen"][0] == pytest.approx(first[0] / sum(first))
        tokens, map_LHTT = filler.looks(COREFERENCE.format("it", row["cause"]))
        for noun, attention in zip(NOUNS, row["attention"], strict=True):
            pieces = [filler.word(i) for i in filler.tokenizer.encode(noun)]
            start = next(i for i in range(len(tokens)) if tokens[i : i + len(pieces)] == pieces)
            # "it" may be of several pieces: its first looks.
            it = next(i for i, token in enumerate(tokens) if i > start and "it".startswith(token))
            share_L = map_LHTT[:, :, it, start : start + len(pieces)].sum(-1).mean(1)
            if tokens[it] == "it":
                assert attention == pytest.approx(share_L.tolist())
