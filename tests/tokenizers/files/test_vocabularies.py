"""vocab.json with merges.txt, and vocab.txt: published ones beside their outside vectors, and damaged ones."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lineal.errors import ModelError
from lineal.tokenizers.files.huggingface import content_of
from lineal.tokenizers.files.vocabularies import (
    read_merges,
    read_vocab_txt,
    read_vocabulary_and_merges,
    write_vocab_txt,
    write_vocabulary_and_merges,
)
from lineal.tokenizers.pipeline import Pipeline


def vectors(data: Path, name: str) -> list[tuple[str, list[int]]]:
    """llama.cpp's texts and their ids."""
    place = data / "tok_llamacpp" / f"ggml-vocab-{name}.gguf"
    texts = place.with_suffix(".gguf.inp").read_text(encoding="utf-8").split("\n__ggml_vocab_test__\n")
    rows = place.with_suffix(".gguf.out").read_text().split("\n")
    return list(zip(texts, [[int(i) for i in row.split()] for row in rows], strict=True))


def gpt2(data: Path) -> Pipeline:
    """The published GPT-2."""
    folder = data / "tok_gpt2"
    return read_vocabulary_and_merges(folder / "encoder.json", folder / "vocab.bpe")


def test_gpt2_is_llama_cpps(data: Path, tmp_path: Path) -> None:
    tokenizer = gpt2(data)
    found = vectors(data, "gpt-2")
    assert len(found) == 47
    for text, ids in found:
        assert tokenizer.encode(text) == ids
        assert tokenizer.decode(ids) == text
        assert tokenizer.encode_with_offsets(text).ids == ids
    write_vocabulary_and_merges(tokenizer, tmp_path)
    again = read_vocabulary_and_merges(tmp_path / "vocab.json", tmp_path / "merges.txt")
    assert content_of(again) == content_of(tokenizer)
    published = (data / "tok_gpt2" / "vocab.bpe").read_text(encoding="utf-8")
    assert (tmp_path / "merges.txt").read_text(encoding="utf-8") == published


def test_gpt2_knows_the_end_of_a_text_only_when_asked(data: Path) -> None:
    tokenizer = gpt2(data)
    assert tokenizer.eos_id == 50256
    assert tokenizer.encode("a<|endoftext|>", special=True) == [64, 50256]
    assert 50256 not in tokenizer.encode("a<|endoftext|>")
    assert tokenizer.decode(tokenizer.encode("a<|endoftext|>")) == "a<|endoftext|>"


def test_bert_is_llama_cpps(data: Path, tmp_path: Path) -> None:
    tokenizer = read_vocab_txt(data / "tok_bert" / "vocab.txt")
    found = vectors(data, "bert-bge")
    assert len(found) == 47
    for text, ids in found:
        assert tokenizer.encode(text) == ids
        assert tokenizer.encode_with_offsets(text).ids == ids
    write_vocab_txt(tokenizer, tmp_path / "vocab.txt")
    assert (tmp_path / "vocab.txt").read_bytes() == (data / "tok_bert" / "vocab.txt").read_bytes()


def test_berts_pairs(data: Path) -> None:
    tokenizer = read_vocab_txt(data / "tok_bert" / "vocab.txt")
    ids, types = tokenizer.encode_pair("Hello world", "Unaffable [SEP]")
    assert (ids[0], ids[3], ids[-1], types[:4], set(types[4:])) == (101, 102, 102, [0] * 4, {1})
    assert ids.count(102) == 2
    assert tokenizer.decode(ids) == "hello world unaffable [ sep ]"


def small(folder: Path, merges: str = "#version: 0.2\na b\nab c</w>\n") -> tuple[Path, Path]:
    """A vocabulary of words with an ending mark, as subword-nmt writes its codes."""
    words = ["a", "b", "c", "c</w>", "ab", "abc</w>", "?"]
    (folder / "vocab.json").write_text(json.dumps({word: i for i, word in enumerate(words)}))
    (folder / "merges.txt").write_text(merges)
    return folder / "vocab.json", folder / "merges.txt"


def test_words_with_an_ending_mark(tmp_path: Path) -> None:
    tokenizer = read_vocabulary_and_merges(*small(tmp_path), byte_level=False, suffix="</w>", unknown="?")
    assert tokenizer.encode("abc abd") == [5, 4, 6]
    assert tokenizer.decode([5, 4]) == "abc ab"
    assert tokenizer.unk_id == 6


@pytest.mark.parametrize("line", ["a", "a b c", "a  b", "x y"])
def test_a_merge_that_is_none_is_named(tmp_path: Path, line: str) -> None:
    files = small(tmp_path, f"#version: 0.2\na b\n{line}\n")
    with pytest.raises(ModelError, match=r"merges\.txt:3|merges\[1\] names 'x'"):
        read_vocabulary_and_merges(*files, byte_level=False, suffix="</w>")


def test_merges_without_a_version_and_with_other_line_ends(tmp_path: Path) -> None:
    (tmp_path / "merges.txt").write_bytes(b"# b\r\na b\r\n")
    assert read_merges(tmp_path / "merges.txt") == [["#", "b"], ["a", "b"]]


@pytest.mark.parametrize(
    "content,words",
    [
        (b"[UNK]\na\nb\na\n", r"vocab\.txt:4: 'a' stands in line 2 already"),
        (b"a\nb\n", r"has no '\[UNK\]'"),
        (b"[UNK]\n\xff\n", "not UTF-8 at byte 6"),
    ],
)
def test_a_damaged_list_is_named(tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "vocab.txt").write_bytes(content)
    with pytest.raises(ModelError, match=words):
        read_vocab_txt(tmp_path / "vocab.txt")


def test_what_a_file_cannot_hold_is_said(data: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="not a BPE"):
        write_vocab_txt(gpt2(data), tmp_path / "vocab.txt")
    with pytest.raises(ModelError, match="not a WordPiece"):
        write_vocabulary_and_merges(read_vocab_txt(data / "tok_bert" / "vocab.txt"), tmp_path)
    files = small(tmp_path)
    (tmp_path / "vocab.json").write_text('{"a": 0, "b c": 1, "ab c": 2}')
    with pytest.raises(ModelError, match=r"merges\[0\]"):
        read_vocabulary_and_merges(*files, byte_level=False)
