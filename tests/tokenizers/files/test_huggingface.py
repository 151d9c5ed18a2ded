"""tokenizer.json: theirs opens here, ours there, and both give the same ids and texts."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

from lineal.tokenizers.files.huggingface import content_of, pipeline_of, read_huggingface
from lineal.tokenizers.files.reading import Field
from lineal.tokenizers.pipeline import Pipeline
from lineal.tokenizers.settings import Settings

Make = Callable[[str], str]
TEXT = (
    "The quick brown fox doesn't  jump. Él café naïve 123 45678\n\n Привет, мир!  吾輩は猫である。\t👩‍👩‍👧 hello "
    "world cat catfish a new  day<b>b</b>\r\n THE PEOPLE'S ｶﾞ ﬁ ½ qux a qux \u3000x\u200b\u00ad e\u0301"
)
LETTERS = [*sorted(set(TEXT)), "▁", "ß", "İ", "ﬀ", "\x00", "\x1c", "\x85", "\ufffd", "𝒳", "\u0e33", "ά"]
SPECIAL = [
    "<s>",
    "</s>",
    "<unk>",
    "<pad>",
    "[MASK]",
    "[CLS]",
    "<mask>",
    "<|endoftext|>",
    "<|begin|>",
    "<|end|>",
    "hello",
]
WORDS = [" the", "hello", "cat", "new", "qux", "<b>", "▁▁", "  ", "\n\n", "don't", *SPECIAL]
texts = st.lists(
    st.sampled_from(LETTERS) | st.sampled_from(WORDS) | st.characters(exclude_categories=["Cs", "Cn", "Co"])
)
many = settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], max_examples=150
)


def ours(content: str | dict[str, Any]) -> Pipeline:
    """Our reading of a tokenizer.json's content."""
    found = json.loads(content) if isinstance(content, str) else content
    return pipeline_of(Field("tokenizer.json", "", found), Settings())


def theirs(content: str | dict[str, Any]) -> Any:
    """The library's reading."""
    from tokenizers import Tokenizer

    inner = Tokenizer.from_str(content if isinstance(content, str) else json.dumps(content))
    inner.no_truncation()
    inner.no_padding()
    return inner


def assert_equal(one: Pipeline, other: Any, text: str) -> None:
    """The same ids and the same texts, special tokens or not."""
    ids = other.encode(text, add_special_tokens=False).ids
    assert one.encode(text, special=True) == ids
    assert one.encode_with_offsets(text, special=True).ids == ids
    for skip in (True, False):
        assert one.decode(ids, skip) == other.decode(ids, skip_special_tokens=skip)
    whole = other.encode(text)
    assert one.frame(ids) == (whole.ids, whole.type_ids)
    both = other.encode(text, "the cat")
    assert one.encode_pair(text, "the cat", special=True) == (both.ids, both.type_ids)


def alone(text: str) -> bool:
    """Whether each character is a grapheme: of the others the library's charsmap drops a part, sentencepiece does not."""
    regex = pytest.importorskip("regex", reason="finds graphemes")
    return len(regex.findall(r"\X", text)) == len(text)


def test_a_kind_is_read(make: Make, kind: str) -> None:
    content = make(kind)
    one, other = ours(content), theirs(content)
    assert one.vocab_size == max(other.get_vocab().values()) + 1

    @given(texts.map("".join))
    @example(TEXT)
    @example("")
    @example(" ")
    @example("<s> hello</s>")
    @example("a [MASK] b  <mask> catcat cat new new")
    @many
    def check(text: str) -> None:
        assume(not kind.startswith("t5") or alone(text))
        assert_equal(one, other, text)

    check()


def test_what_is_written_is_read_alike(make: Make, kind: str, tmp_path: Path) -> None:
    one = ours(make(kind))
    one.save(tmp_path)
    again = read_huggingface(tmp_path)
    assert content_of(again) == content_of(one)
    for name in ("normaliser", "splitter", "decoder", "template", "added", "lengths", "tokens"):
        assert getattr(again, name) == getattr(one, name), name
    assert_equal(again, theirs((tmp_path / "tokenizer.json").read_text()), TEXT)
    assert again.encode(TEXT) == one.encode(TEXT)


def test_what_is_written_is_what_was_read_where_the_format_is_todays(make: Make, kind: str) -> None:
    before, after = json.loads(make(kind)), content_of(ours(make(kind)))
    for part in ("truncation", "padding", "normalizer", "added_tokens"):
        assert after[part] == before[part], part
    assert after["model"]["vocab"] == before["model"]["vocab"]
    assert after["model"].get("merges") == before["model"].get("merges")


def test_ids_decode_alike_whatever_they_are(make: Make, kind: str) -> None:
    one, other = ours(make(kind)), theirs(make(kind))

    @given(st.lists(st.integers(0, one.vocab_size + 3), max_size=30))
    @many
    def check(ids: list[int]) -> None:
        for skip in (True, False):
            assert one.decode(ids, skip) == other.decode(ids, skip_special_tokens=skip)

    check()


@pytest.mark.parametrize("name", ["gpt2", "llama3", "bert", "llama2", "llama2 with metaspace", "word level"])
def test_special_tokens_stay_text_unless_asked_for(make: Make, name: str) -> None:
    one, other = ours(make(name)), theirs(make(name))
    other.encode_special_tokens = True
    for token in one.added:
        if token.special and token.id != one.unk_id:
            text = f"a{token.content} b {token.content}"
            assert token.id not in one.encode(text)
            # The library's word level models know the written form of a special token all the same.
            if name != "word level":
                assert one.encode(text) == other.encode(text, add_special_tokens=False).ids
            assert token.id in one.encode(f"a {token.content}", special=True)


@pytest.mark.parametrize(
    "name", ["gpt2", "qwen2", "llama2 with metaspace", "t5 of today", "word level", "bert"]
)
def test_offsets_are_the_librarys(make: Make, name: str) -> None:
    one, other = ours(make(name)), theirs(make(name))
    text = "The quick brown fox doesn't jump 12 hello world 猫 naïve cat"
    found, expected = one.encode_with_offsets(text), other.encode(text, add_special_tokens=False)
    # What Metaspace puts in has an empty stretch here, and there that of the character behind.
    kept = [
        (at, there)
        for at, there, token in zip(found.offsets, expected.offsets, found.tokens)
        if token != "▁".encode()
    ]
    assert [at for at, _ in kept] == [there for _, there in kept]
    assert len(found.offsets) == len(expected.offsets)
    assert found.tokens == [one.token(i) for i in found.ids]


def test_old_files_have_merges_in_one_text(make: Make) -> None:
    content = json.loads(make("gpt2"))
    content["model"]["merges"] = [" ".join(pair) for pair in content["model"]["merges"]]
    assert content_of(ours(content)) == content_of(ours(make("gpt2")))


def test_old_files_do_not_name_the_model(make: Make) -> None:
    for name in ("gpt2", "bert", "t5", "word level"):
        content = json.loads(make(name))
        del content["model"]["type"]
        assert ours(content).encode(TEXT) == ours(make(name)).encode(TEXT)


def test_many_texts_on_many_threads(make: Make) -> None:
    one = ours(make("llama3"))
    pieces = [TEXT[i : i + 30] for i in range(len(TEXT))]
    assert one.encode_batch(pieces, threads=3) == [one.encode(piece) for piece in pieces]


@pytest.mark.parametrize("name", ["gpt2", "llama3", "t5", "bert"])
def test_real_texts(make: Make, name: str, data: Path) -> None:
    one, other = ours(make(name)), theirs(make(name))
    for language in ("zho-CN", "src.eng"):
        file = next((data / "ntrex").glob(f"newstest2019-*{language}*"))
        for line in file.read_text(encoding="utf-8").split("\n")[:300]:
            assert one.encode(line) == other.encode(line, add_special_tokens=False).ids


def test_transformers_opens_what_is_written(make: Make, kind: str, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers", reason="needs the [hf] extra")
    one = ours(make(kind))
    one.save(tmp_path)
    other = transformers.PreTrainedTokenizerFast.from_pretrained(tmp_path)
    assert other(TEXT, add_special_tokens=False)["input_ids"] == one.encode(TEXT, special=True)
