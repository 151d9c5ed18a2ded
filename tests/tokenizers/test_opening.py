"""Any tokenizer's files open by one function, and what is written for another library opens again the same."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from lineal.errors import ModelError, UsageError
from lineal.tokenizers import ByteTokenizer, CharTokenizer, Pipeline
from lineal.tokenizers.base import Tokenizer
from lineal.tokenizers.opening import FORMATS, open_tokenizer, write_tokenizer
from lineal.tokenizers.training import KINDS, Learning, train

LINES = ["the cat sat on the mat", "hugs and mugs, 12 or 345 coins", "the naïve cat"] * 5
TEXTS = ["the cat", "naïve mugs 日", "  two  spaces\n", ""]


def made(kind: str) -> Tokenizer:
    return train(kind, texts=LINES, learning=Learning(vocab_size=320, algorithm="bpe"))


def same(one: Tokenizer, other: Tokenizer) -> None:
    assert one.vocab_size == other.vocab_size
    for text in TEXTS:
        assert one.encode(text) == other.encode(text)


@pytest.mark.parametrize(
    ("kind", "to", "names"),
    [
        *[
            (kind, "huggingface", ("tokenizer.json", "tokenizer_config.json"))
            for kind in KINDS
            if kind != "unigram"
        ],
        ("sentencepiece", "sentencepiece", ("tokenizer.model",)),
        ("bpe", "tiktoken", ("ranks.tiktoken", "ranks.json")),
        ("bpe", "vocab", ("vocab.json", "merges.txt")),
        ("wordpiece", "vocab", ("vocab.txt",)),
    ],
)
def test_what_is_written_opens_again(kind: str, to: str, names: tuple[str, ...], tmp_path: Path) -> None:
    tokenizer = made(kind)
    written = write_tokenizer(tokenizer, tmp_path / "out", to)
    assert tuple(path.name for path in written.files) == names
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(names)
    same(tokenizer, open_tokenizer(tmp_path / "out"))
    same(tokenizer, open_tokenizer(written.files[0]))


@pytest.mark.parametrize(
    ("kind", "to", "message"),
    [
        ("word", "sentencepiece", "split by Whitespace"),
        ("bpe", "sentencepiece", "split by Gpt2"),
        ("wordpiece", "tiktoken", "byte-level BPE"),
        ("word", "vocab", "not a WordLevel"),
        ("char", "vocab", "CharTokenizer cannot be written"),
        ("byte", "tiktoken", "ByteTokenizer cannot be written"),
    ],
)
def test_what_a_format_cannot_say_is_refused(kind: str, to: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=message):
        write_tokenizer(made(kind), tmp_path, to)
    assert not list(tmp_path.iterdir())


def test_what_is_left_out_is_named(tmp_path: Path) -> None:
    assert write_tokenizer(made("bpe"), tmp_path / "a", "huggingface").lost == ()
    (special,) = write_tokenizer(made("bpe"), tmp_path / "b", "vocab").lost
    assert "<|endoftext|>" in special
    other = write_tokenizer(made("sentencepiece"), tmp_path / "c", "vocab").lost
    assert any("SymbolSplit" in part for part in other)


def test_an_unknown_format(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"'gguf'.*" + ".*".join(FORMATS)):
        write_tokenizer(ByteTokenizer(), tmp_path, "gguf")


def test_older_names_of_a_pair_of_files(tmp_path: Path) -> None:
    written = write_tokenizer(made("bpe"), tmp_path, "vocab").files
    for path, name in zip(written, ("encoder.json", "vocab.bpe")):
        path.rename(tmp_path / name)
    for path in (tmp_path, tmp_path / "encoder.json", tmp_path / "vocab.bpe"):
        same(made("bpe"), open_tokenizer(path))
    (tmp_path / "vocab.bpe").unlink()
    with pytest.raises(ModelError, match=r"encoder\.json needs vocab\.bpe"):
        open_tokenizer(tmp_path / "encoder.json")


def test_a_folder_is_looked_through_in_order(tmp_path: Path) -> None:
    write_tokenizer(made("wordpiece"), tmp_path, "vocab")
    assert open_tokenizer(tmp_path).encode("the cat") == made("wordpiece").encode("the cat")
    write_tokenizer(made("bpe"), tmp_path, "tiktoken")
    same(made("bpe"), open_tokenizer(tmp_path))
    CharTokenizer.train("abc").save(tmp_path)
    assert isinstance(open_tokenizer(tmp_path), CharTokenizer)
    assert isinstance(open_tokenizer(tmp_path / "tokenizer.json"), CharTokenizer)


def test_a_tokenizer_json_of_another_name(tmp_path: Path) -> None:
    made("bpe").save(tmp_path)
    shutil.move(tmp_path / "tokenizer.json", tmp_path / "mine.json")
    same(made("bpe"), open_tokenizer(tmp_path / "mine.json"))


def test_what_was_looked_for_is_said(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"does not exist.*tokenizer\.json.*vocab\.txt"):
        open_tokenizer(tmp_path / "none")
    (tmp_path / "notes.md").write_text("x")
    with pytest.raises(ModelError, match=r"looked for tokenizer\.json.*it holds notes\.md"):
        open_tokenizer(tmp_path)
    for name in ("notes.md", "corpus.txt"):
        (tmp_path / name).write_text("x")
        with pytest.raises(ModelError, match="none of the files of a tokenizer"):
            open_tokenizer(tmp_path / name)
    for name in ("a.model", "b.model"):
        (tmp_path / name).write_bytes(b"x")
    with pytest.raises(ModelError, match="2 files"):
        open_tokenizer(tmp_path)
    with pytest.raises(ModelError, match=r"a\.model"):
        open_tokenizer(tmp_path / "a.model")


def test_published_files_open(data: Path) -> None:
    sizes = {"tok_gpt2": 50257, "tok_bert": 30522, "tok_llama2": 32000, "tok_tiktoken": 100277}
    for name, size in sizes.items():
        tokenizer = open_tokenizer(data / name)
        assert tokenizer.vocab_size == size, name
        assert tokenizer.decode(tokenizer.encode("hello world")) == "hello world"
    assert isinstance(open_tokenizer(data / "tok_gpt2"), Pipeline)
