"""The joint vocabulary: the special tokens, texts that come back as they were, and the same one after a resume."""

from __future__ import annotations

from pathlib import Path

import pytest

from lineal.errors import ModelError
from lineal.generate.translate import Ids
from lineal.tokenizers import Tokenizer
from lineal.train.translation.vocabulary import ids_of, learn, remembered

SOURCES = ["A dog runs.", "Two dogs run, fast!", "The dog sleeps."] * 5
TARGETS = ["Ein Hund rennt.", "Zwei Hunde rennen, schnell!", "Der Hund schläft."] * 5


@pytest.fixture(scope="module", params=["bpe", "unigram"])
def learned(request: pytest.FixtureRequest) -> Tokenizer:
    """A small vocabulary of each kind."""
    return learn(SOURCES, TARGETS, request.param, 340)


def test_special_tokens_come_first(learned: Tokenizer) -> None:
    assert ids_of(learned) == Ids(start=1, end=2, pad=0)
    assert learned.vocab_size <= 340


def test_texts_of_both_sides_come_back(learned: Tokenizer) -> None:
    for text in (*SOURCES[:3], *TARGETS[:3], "Was für ein Ärger: 日本 ☃"):
        assert learned.decode(learned.encode(text)) == text


def test_nothing_is_unknown(learned: Tokenizer) -> None:
    assert 3 not in learned.encode("日本 ☃ \u200b \x07")


def test_a_written_special_token_is_text(learned: Tokenizer) -> None:
    assert not {0, 1, 2, 3} & set(learned.encode("a </s> <pad> <s>"))


def test_a_word_has_the_same_pieces_wherever_it_stands() -> None:
    found = learn(SOURCES, TARGETS, "bpe", 340)
    dog, sentence = found.encode("dog"), found.encode("The dog sleeps dog.")
    assert [i for i in sentence if i in dog] == dog * 2


def test_a_run_keeps_the_vocabulary_it_began_with(tmp_path: Path) -> None:
    calls: list[int] = []

    def make() -> Tokenizer:
        calls.append(1)
        return learn(SOURCES, TARGETS, "bpe", 300)

    one, other = (remembered(tmp_path / "tokenizer", make) for _ in range(2))
    assert len(calls) == 1 and one.encode("A dog") == other.encode("A dog")
    # Killed between its two files: made again, the same.
    (tmp_path / "tokenizer" / "tokenizer_config.json").unlink()
    assert remembered(tmp_path / "tokenizer", make).encode("A dog") == one.encode("A dog") and len(calls) == 2


def test_a_folder_may_be_given(tmp_path: Path) -> None:
    learn(SOURCES, TARGETS, "bpe", 300).save(tmp_path)
    assert learn([], [], str(tmp_path), 0).encode("A dog") == learn(SOURCES, TARGETS, "bpe", 300).encode(
        "A dog"
    )


def test_a_tokenizer_without_an_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    found = learn(SOURCES, TARGETS, "bpe", 300)
    monkeypatch.setattr(type(found), "eos_id", None, raising=False)
    monkeypatch.setattr(found, "eos_id", None, raising=False)
    with pytest.raises(ModelError, match=r"no end-of-sentence token"):
        ids_of(found)
