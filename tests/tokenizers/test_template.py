"""Templates: what they put where, and what cannot be one."""

from __future__ import annotations

import pytest

from lineal.errors import UsageError
from lineal.tokenizers.template import Slot, Template

IDS = {"[CLS]": 101, "[SEP]": 102, "two": (7, 8), "a:b": 9}
BERT = Template.parse("[CLS] $A [SEP]", "[CLS] $A [SEP] $B:1 [SEP]:1", IDS)


def test_one_text_and_two() -> None:
    assert BERT.apply([1, 2]) == ([101, 1, 2, 102], [0, 0, 0, 0])
    assert BERT.apply([1], [2, 3]) == ([101, 1, 102, 2, 3, 102], [0, 0, 0, 1, 1, 1])
    assert BERT.apply([], []) == ([101, 102, 102], [0, 0, 1])
    assert (BERT.prefix, BERT.suffix, BERT.added(), BERT.added(pair=True)) == ((101,), (102,), 2, 3)


def test_without_a_template_texts_follow_one_another() -> None:
    assert Template().apply([1], [2]) == ([1, 2], [0, 1])
    assert Template().prefix == ()


@pytest.mark.parametrize(
    "word,slot",
    [
        ("$A", Slot("A")),
        ("$", Slot("A")),
        ("$b", Slot("B")),
        ("$A:2", Slot("A", type=2)),
        ("$3", Slot("A", type=3)),
        ("[SEP]:4", Slot("", (102,), 4, "[SEP]")),
        ("two", Slot("", (7, 8), 0, "two")),
        ("a:b", Slot("", (9,), 0, "a:b")),
        ("a:b:1", Slot("", (9,), 1, "a:b")),
    ],
)
def test_words_of_a_template(word: str, slot: Slot) -> None:
    assert Template.parse(word, "$A $B", IDS).single == (slot,)


@pytest.mark.parametrize(
    "single,pair,words",
    [
        ("[MASK] $A", "$A $B", r"\[MASK\].*has no ids"),
        ("$A:x", "$A $B", "type that is no number"),
        ("$C", "$A $B", "is no text"),
        ("$A", "$A [SEP]", "no place for both"),
    ],
)
def test_what_cannot_be_one(single: str, pair: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        Template.parse(single, pair, IDS)


def test_the_librarys_own_words_mean_the_same() -> None:
    tokenizers = pytest.importorskip("tokenizers", reason="the oracle is in the [hf] extra")
    inner = tokenizers.Tokenizer(tokenizers.models.WordLevel({"x": 5, "y": 6}, unk_token="x"))
    single, pair = "$A:3 [SEP]:2 [CLS]", "[SEP]:1 $B:1 $A [CLS] $B:4"
    inner.post_processor = tokenizers.processors.TemplateProcessing(
        single=single, pair=pair, special_tokens=[("[CLS]", 101), ("[SEP]", 102)]
    )
    ours = Template.parse(single, pair, IDS)
    for texts in (("x",), ("x", "y")):
        found = inner.encode(*texts)
        assert ours.apply(*([5 if text == "x" else 6] for text in texts)) == (found.ids, found.type_ids)
