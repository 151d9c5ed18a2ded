"""Training by name: every kind learns, keeps what it promises, can be exchanged part by part, and refuses what can't work."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lineal.errors import DataError, UsageError
from lineal.tokenizers import Pipeline, load_tokenizer
from lineal.tokenizers.base import Tokenizer
from lineal.tokenizers.bpe import BPE
from lineal.tokenizers.corpus.counting import count_texts, merge_counts
from lineal.tokenizers.text import normalise, split
from lineal.tokenizers.training import (
    KINDS,
    NORMALISERS,
    SPLITTERS,
    Learning,
    alphabet_of,
    assemble,
    check,
    learn,
    train,
)

LINES = [
    "the cat sat on the mat, and the rat sat on the cat.\n",
    "A naïve Queen: 'hugs and mugs' cost 12 or 345 coins!\n",
    "der Hund und die Katze; the hound and the cat\n",
] * 4
TEXT = "the naïve cat and 12 hugs"
SMALL = Learning(vocab_size=330)
Trained = Callable[[str], Tokenizer]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small file."""
    path = tmp_path_factory.mktemp("corpus") / "lines.txt"
    path.write_text("".join(LINES), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def trained(corpus: Path) -> Trained:
    """One of each kind; the SentencePiece way with each algorithm under it."""

    @cache
    def make(name: str) -> Tokenizer:
        kind = "sentencepiece" if name.startswith("sentencepiece") else name
        learning = replace(SMALL, algorithm="bpe") if kind != name else SMALL
        return train(kind, [corpus], learning=learning)

    return make


NAMES = [*KINDS, "sentencepiece-bpe"]


@pytest.mark.parametrize("name", NAMES)
def test_a_text_of_the_corpus_is_known(trained: Trained, name: str) -> None:
    tokenizer = trained(name)
    ids = tokenizer.encode(TEXT)
    assert 0 < len(ids) <= len(TEXT.encode())
    assert getattr(tokenizer, "unk_id", None) not in ids or name == "wordpiece"
    back = tokenizer.decode(ids)
    assert back == (TEXT.replace("ï", "i") if name == "wordpiece" else TEXT)


@pytest.mark.parametrize("name", NAMES)
def test_what_is_saved_is_what_was_trained(trained: Trained, name: str, tmp_path: Path) -> None:
    trained(name).save(tmp_path)
    again = load_tokenizer(tmp_path)
    assert type(again) is type(trained(name))
    assert (again.vocab_size, again.bos_id, again.eos_id, again.pad_id, again.prefix) == (
        trained(name).vocab_size,
        trained(name).bos_id,
        trained(name).eos_id,
        trained(name).pad_id,
        trained(name).prefix,
    )
    for text in (TEXT, "something <unk> else  \n日本 </s>", ""):
        assert again.encode(text) == trained(name).encode(text)
        assert again.encode(text, special=True) == trained(name).encode(text, special=True)


@pytest.mark.parametrize("name", ["byte", "bpe", "sentencepiece", "sentencepiece-bpe"])
@given(text=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="▁"), max_size=60))
def test_lossless_kinds_give_back_any_text(trained: Trained, name: str, text: str) -> None:
    tokenizer = trained(name)
    assert tokenizer.decode(tokenizer.encode(text)) == text


@pytest.mark.parametrize("name", NAMES)
@given(text=st.text(max_size=40).filter(lambda text: not any("\ud800" <= c <= "\udfff" for c in text)))
def test_a_user_s_text_gives_no_special_token(trained: Trained, name: str, text: str) -> None:
    tokenizer = trained(name)
    names = ("<pad>", "<s>", "</s>", "[CLS]", "<|endoftext|>", "<eos>")
    found = set(tokenizer.encode(text + "".join(names) + " ".join(names)))
    special = {tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id} - {None}
    assert not found & special


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "byte"])
def test_texts_and_files_count_alike(corpus: Path, kind: str) -> None:
    learning = replace(SMALL, algorithm="bpe")
    from_texts = train(
        kind, texts=LINES if KINDS[kind].lines is None else [x.rstrip("\n") for x in LINES], learning=learning
    )
    from_file = train(kind, [corpus], learning=learning)
    assert from_texts.vocab_size == from_file.vocab_size
    assert from_texts.encode(TEXT) == from_file.encode(TEXT)


def test_the_steps_are_the_whole(corpus: Path) -> None:
    parts = KINDS["bpe"].parts
    shards = [count_texts(LINES[start::2], parts.normaliser, parts.splitter) for start in (0, 1)]
    model = learn("bpe", merge_counts(shards), learning=SMALL)
    whole = train("bpe", [corpus], learning=SMALL)
    assert isinstance(whole, Pipeline) and model == whole.model
    assert assemble(model, parts).encode(TEXT) == whole.encode(TEXT)


@pytest.mark.serial
def test_several_processes_count_the_same(tmp_path: Path, corpus: Path) -> None:
    other = tmp_path / "other.txt"
    other.write_text("the cat and the hat\n" * 50)
    alone, together = (train("bpe", [corpus, other], learning=SMALL, workers=n) for n in (1, 2))
    assert isinstance(alone, Pipeline) and isinstance(together, Pipeline)
    assert alone.model == together.model


def test_parts_can_be_exchanged(corpus: Path) -> None:
    parts = replace(
        KINDS["bpe"].parts,
        normaliser=normalise.Lowercase(),
        splitter=split.Cl100k(),
        special=("<|end|>", "<|x|>"),
    )
    tokenizer = train("bpe", [corpus], parts=parts, learning=SMALL)
    assert isinstance(tokenizer, Pipeline)
    assert tokenizer.decode(tokenizer.encode("THE CAT")) == "the cat"
    assert tokenizer.encode("<|x|>", special=True) == [1]
    assert tokenizer.splitter == split.Cl100k()


def test_less_than_was_asked_is_said_by_the_size(corpus: Path) -> None:
    for kind in ("word", "bpe", "char-bpe", "wordpiece"):
        tokenizer = train(kind, [corpus], learning=Learning(vocab_size=100_000))
        assert 20 < tokenizer.vocab_size < 2000


def test_min_frequency_and_longest(corpus: Path) -> None:
    rare = train("word", [corpus], learning=Learning(min_frequency=9))
    assert isinstance(rare, Pipeline)
    assert rare.id("the") is not None and rare.id("hugs") is None
    short = train("bpe", [corpus], learning=Learning(vocab_size=100_000, longest=3))
    assert isinstance(short, Pipeline) and max(map(len, short.model.tokens[1:])) <= 3


def test_likelihood_is_another_vocabulary(corpus: Path) -> None:
    found = [
        train("wordpiece", [corpus], learning=Learning(vocab_size=90, score=score))
        for score in ("frequency", "likelihood")
    ]
    assert isinstance(found[0], Pipeline) and isinstance(found[1], Pipeline)
    assert found[0].model.tokens != found[1].model.tokens


@pytest.mark.parametrize("kind", ["char", "char-bpe", "wordpiece", "sentencepiece"])
def test_rare_characters_can_be_left_out(corpus: Path, kind: str) -> None:
    learning = Learning(vocab_size=600, coverage=0.95, algorithm="bpe")
    tokenizer = train(kind, [corpus], learning=learning)
    vocabulary = getattr(tokenizer, "tokens", None) or vars(tokenizer)["_tokens"]
    texts = {token if isinstance(token, str) else token.decode() for token in vocabulary}
    assert "t" in texts and not {"Q", "ï"} & texts
    if kind == "sentencepiece":
        assert tokenizer.decode(tokenizer.encode("ïQ!")) == "ïQ!"


def test_the_alphabet_is_as_large_as_it_must_be() -> None:
    counts = count_texts(["aaaaaa bbb c"], None, split.WhitespaceSplit())
    assert alphabet_of(counts, 1.0) == ["a", "b", "c"]
    assert alphabet_of(counts, 0.9) == ["a", "b"]
    assert alphabet_of(counts, 0.6) == ["a"]


def test_tokens_may_span_words(corpus: Path) -> None:
    parts = replace(KINDS["sentencepiece"].parts, splitter=split.Whole())
    tokenizer = train(
        "sentencepiece", [corpus], parts=parts, learning=Learning(vocab_size=600, algorithm="bpe")
    )
    assert isinstance(tokenizer, Pipeline)
    assert any("▁" in token.decode()[1:] for token in tokenizer.model.tokens)


def test_a_bert_has_its_template(trained: Trained) -> None:
    tokenizer = trained("wordpiece")
    assert isinstance(tokenizer, Pipeline)
    ids, types = tokenizer.encode_pair("the cat", "the mat")
    cls, sep = tokenizer.id("[CLS]"), tokenizer.id("[SEP]")
    assert sep is not None and ids[0] == cls and ids.count(sep) == 2 and ids[-1] == sep
    assert types == [0] * (ids.index(sep) + 1) + [1] * (len(ids) - ids.index(sep) - 1)


def test_byte_fallback_has_its_tokens(trained: Trained) -> None:
    tokenizer = trained("sentencepiece-bpe")
    assert isinstance(tokenizer, Pipeline) and isinstance(tokenizer.model, BPE)
    assert tokenizer.model.byte_fallback == tuple(range(3, 259))
    assert [tokenizer.tokens[i] for i in tokenizer.encode("日")][1:] == [b"<0xE6>", b"<0x97>", b"<0xA5>"]


def test_progress_is_told(corpus: Path) -> None:
    told: list[tuple[str, int, int]] = []
    train("bpe", [corpus], learning=SMALL, progress=lambda *step: told.append(step))
    assert {what for what, _, _ in told} == {"counting", "learning"}
    assert all(0 <= done <= total for _, done, total in told)
    size = corpus.stat().st_size
    assert [step for step in told if step[0] == "counting"][-1] == ("counting", size, size)


@pytest.mark.parametrize(
    ("learning", "message"),
    [
        (Learning(vocab_size=0), "vocab_size 0"),
        (Learning(coverage=1.5), "coverage 1.5"),
        (Learning(min_frequency=-1), "min_frequency -1"),
        (Learning(longest=0), "longest 0"),
        (Learning(algorithm="magic"), "algorithm magic"),
        (Learning(score="luck"), "score luck"),
    ],
)
def test_settings_that_cannot_work(learning: Learning, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        check(learning)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in ("char", "byte")])
def test_a_vocabulary_smaller_than_the_alphabet(corpus: Path, kind: str) -> None:
    with pytest.raises(UsageError, match=r"vocab_size.*(at least|ask for more)"):
        train(kind, [corpus], learning=Learning(vocab_size=4, algorithm="bpe"))


@pytest.mark.parametrize("kind", ["char", "byte"])
def test_what_has_no_vocabulary_to_learn(kind: str) -> None:
    with pytest.raises(UsageError, match=f"nothing is learned of the kind {kind}"):
        learn(kind, count_texts(["a"], None, split.Whole()))


def test_an_unknown_kind_is_named() -> None:
    with pytest.raises(UsageError, match=r"'morse'.*wordpiece"):
        train("morse", texts=["a"])


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "byte"])
@pytest.mark.parametrize("texts", [[], ["", ""]])
def test_nothing_to_learn_from(kind: str, texts: list[str], tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no text"):
        train(kind, texts=texts)
    empty = tmp_path / "empty.txt"
    empty.write_text("")
    with pytest.raises(DataError, match=r"no text in .*empty.txt"):
        train(kind, [empty])


def test_what_is_no_text_has_its_place(tmp_path: Path, corpus: Path) -> None:
    bad = tmp_path / "bad.txt"
    bad.write_bytes(b"fine\nnot \xff fine\n")
    for kind in ("bpe", "wordpiece", "char"):
        with pytest.raises(DataError, match=r"bad\.txt:2.*0xff"):
            train(kind, [corpus, bad])
    with pytest.raises(DataError, match="surrogate"):
        train("bpe", texts=["fine", "a\ud800"])


def test_nul_is_a_character_like_others() -> None:
    tokenizer = train("bpe", texts=["a\0b a\0b"] * 3, learning=Learning(vocab_size=300))
    assert tokenizer.decode(tokenizer.encode("a\0b\0")) == "a\0b\0"


def test_the_names_of_parts_are_parts() -> None:
    assert all(normaliser("a") == "a" for normaliser in NORMALISERS.values())
    assert all(list(splitter.spans(b"a")) == [0, 1] for splitter in SPLITTERS.values())
    assert all(kind.summary and kind.loses for kind in KINDS.values())
