"""Damaged and hostile files: one error that names file and field, and neither much memory nor much time."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lineal.errors import ModelError
from lineal.tokenizers.base import write_whole
from lineal.tokenizers.files.huggingface import read_huggingface
from lineal.tokenizers.files.reading import MissingPart, read_json

SMALL: dict[str, Any] = {
    "version": "1.0",
    "truncation": None,
    "padding": None,
    "added_tokens": [{"id": 5, "content": "<s>", "special": True}],
    "normalizer": {"type": "Sequence", "normalizers": [{"type": "NFC"}]},
    "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True},
    "post_processor": None,
    "decoder": {"type": "ByteLevel"},
    "model": {
        "type": "BPE",
        "vocab": {"a": 0, "b": 1, "c": 2, "ab": 3, "abc": 4},
        "merges": [["a", "b"], "ab c"],
    },
}


def write(folder: Path, content: Any) -> Path:
    """A tokenizer.json of this content."""
    path = folder / "tokenizer.json"
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    return path


def changed(place: str, value: Any) -> dict[str, Any]:
    """SMALL with another value at a dotted place."""
    content = json.loads(json.dumps(SMALL))
    *way, last = place.split(".")
    inner = content
    for name in way:
        inner = inner[name]
    inner[last] = value
    return content


def test_the_small_file_is_sound(tmp_path: Path) -> None:
    tokenizer = read_huggingface(write(tmp_path, SMALL))
    assert tokenizer.encode("abc<s>", special=True) == [4, 5]


FLAT = {"single": [], "pair": [], "special_tokens": {}}
DAMAGED: list[tuple[str, Any, str]] = [
    ("model", None, "model must be an object"),
    ("model.vocab", None, "model.vocab must be an object, not None"),
    ("model.vocab", [], "model.vocab must be an object"),
    ("model.vocab", {"a": "0"}, "model.vocab\\['a'\\] must be a whole number"),
    ("model.vocab", {"a": 0.0}, "whole number"),
    ("model.vocab", {"a": True}, "whole number"),
    ("model.vocab", {"a": -1}, "the id -1"),
    ("model.vocab", {"a": 1 << 40}, "the id 1099511627776 for 1 tokens"),
    ("model.vocab", {"a": 0, "b": 0}, "the id 0 twice, for 'a' and 'b'"),
    ("model.vocab", {**SMALL["model"]["vocab"], "\ud800": 9}, "half a surrogate"),
    ("model.merges", "a b", "model.merges must be a list"),
    ("model.merges", ["a b c"], "model.merges\\[0\\] must be two tokens"),
    ("model.merges", [["a", "b"], ["a"]], "model.merges\\[1\\] must be two tokens"),
    ("model.merges", [7], "model.merges\\[0\\] must be two tokens"),
    ("model.merges", [["a", ["b"]]], "model.merges\\[0\\] must be two tokens"),
    ("model.merges", [["a", "z"]], "model.merges\\[0\\] names 'z'"),
    ("model.merges", [["c", "a"]], "model: merge 1 of 1.*b'ca' is no token"),
    ("model.merges", [["a", ""]], "model.merges\\[0\\] names ''"),
    ("model.dropout", 1.5, "model.dropout must be a number from 0 to 1"),
    ("model.fuse_unk", "yes", "model.fuse_unk must be true or false"),
    ("added_tokens", {}, "added_tokens must be a list"),
    ("added_tokens", [{"id": 9}], "added_tokens\\[0\\].content must be a text"),
    ("added_tokens", [{"id": -1, "content": "x"}], "added_tokens\\[0\\].id must be a whole number"),
    ("added_tokens", [{"id": 1 << 30, "content": "x"}], "ids up to 1073741824"),
    ("added_tokens", [{"id": 9, "content": "x"}, {"id": 9, "content": "y"}], "the id 9 twice"),
    ("added_tokens", [{"id": 3, "content": "x"}], "which is b'ab' in model.vocab"),
    ("added_tokens", [{"id": 9, "content": "ab"}], "but model.vocab 3"),
    ("added_tokens", [{"id": 9, "content": "\udc00"}], "half a surrogate"),
    ("normalizer", {"type": 3}, "normalizer.type must be a text"),
    ("normalizer", [], "normalizer must be an object"),
    ("normalizer.normalizers", None, "normalizer.normalizers must be a list"),
    ("normalizer", {"type": "Precompiled", "precompiled_charsmap": "???"}, "precompiled_charsmap is damaged"),
    (
        "normalizer",
        {"type": "Precompiled", "precompiled_charsmap": "AAAA"},
        "precompiled_charsmap is damaged",
    ),
    ("normalizer", {"type": "Replace", "pattern": {"String": ""}, "content": "x"}, "not empty"),
    ("pre_tokenizer", {"type": "Metaspace", "replacement": "ab"}, "replacement must be one character"),
    (
        "pre_tokenizer",
        {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "x"},
        "always or first or never",
    ),
    (
        "pre_tokenizer",
        {"type": "Split", "pattern": {"String": "x"}, "behavior": "y"},
        "behavior must be Removed or",
    ),
    ("decoder", {"type": "Strip", "content": "", "start": 1, "stop": 0}, "content must be one character"),
    (
        "post_processor",
        {"type": "TemplateProcessing", **FLAT, "single": [{}]},
        "single\\[0\\] must be a Sequence",
    ),
    (
        "post_processor",
        {"type": "TemplateProcessing", **FLAT, "single": [{"SpecialToken": {"id": "x", "type_id": 0}}]},
        "special_tokens.x must be an object",
    ),
    (
        "post_processor",
        {"type": "BertProcessing", "sep": ["x"], "cls": ["y", 1]},
        "sep must be a token and its id",
    ),
    ("truncation", {"max_length": -1}, "truncation.max_length"),
    ("padding", {"strategy": "Never"}, "padding.strategy must be BatchLongest"),
]


@pytest.mark.parametrize("place,value,words", DAMAGED)
def test_what_is_damaged_is_named(tmp_path: Path, place: str, value: Any, words: str) -> None:
    path = write(tmp_path, changed(place, value))
    with pytest.raises(ModelError, match=words) as found:
        read_huggingface(path)
    assert str(path) in str(found.value)
    assert not isinstance(found.value, MissingPart)
    assert "\n" not in str(found.value)


LACKING: list[tuple[str, Any, str]] = [
    ("version", "2.0", "version 2.0"),
    ("model.type", "Magic", "model.type asks for a Magic model"),
    ("model.type", "Unigram", "a Unigram model over bytes"),
    ("model.unk_token", "<unk>", "the unknown token '<unk>' outside the vocabulary"),
    ("normalizer", {"type": "Nmt"}, "normalizer.type asks for a Nmt normalizer"),
    (
        "normalizer",
        {"type": "Sequence", "normalizers": [{"type": "Nmt"}]},
        "normalizer.normalizers\\[0\\].type",
    ),
    ("normalizer", {"type": "Replace", "pattern": {"Regex": "a\\h"}, "content": ""}, "Oniguruma"),
    ("pre_tokenizer", {"type": "UnicodeScripts"}, "UnicodeScripts"),
    # Oniguruma takes the plus for a repetition.
    (
        "pre_tokenizer",
        {"type": "Split", "pattern": {"Regex": "a{1,3}+"}, "behavior": "Isolated"},
        "Oniguruma",
    ),
    ("pre_tokenizer", {"type": "Split", "pattern": {"Regex": "("}, "behavior": "Isolated"}, "a pattern"),
    (
        "pre_tokenizer",
        {"type": "Sequence", "pretokenizers": [{"type": "ByteLevel"}, {"type": "Whitespace"}]},
        "Whitespace behind ByteLevel",
    ),
    (
        "pre_tokenizer",
        {"type": "Sequence", "pretokenizers": [{"type": "Whitespace"}, {"type": "ByteLevel"}]},
        "a space before each piece",
    ),
    ("decoder", {"type": "CTC"}, "decoder.type asks for a CTC decoder"),
    (
        "decoder",
        {"type": "Sequence", "decoders": [{"type": "Fuse"}, {"type": "ByteLevel"}]},
        "behind another",
    ),
    ("post_processor", {"type": "Magic"}, "post_processor.type"),
]


@pytest.mark.parametrize("place,value,words", LACKING)
def test_a_part_that_we_lack_is_named(tmp_path: Path, place: str, value: Any, words: str) -> None:
    with pytest.raises(MissingPart, match=words):
        read_huggingface(write(tmp_path, changed(place, value)))


UNIGRAM = {"type": "Unigram", "unk_id": 0, "vocab": [["<unk>", 0.0], ["a", -1.0]]}
OTHER_MODELS: list[tuple[dict[str, Any], str]] = [
    ({**UNIGRAM, "vocab": {"a": 1}}, "model.vocab must be a list"),
    ({**UNIGRAM, "vocab": [["a"]]}, "model.vocab\\[0\\] must be a token and its score"),
    ({**UNIGRAM, "vocab": [["<unk>", 0], ["a", "0"]]}, "model.vocab\\[1\\]"),
    ({**UNIGRAM, "unk_id": 2}, "model.unk_id must be a whole number from 0 to 1"),
    ({**UNIGRAM, "byte_fallback": 1}, "model.byte_fallback must be true or false"),
    ({"type": "WordPiece", "vocab": {"a": 0}}, "unknown token '\\[UNK\\]' outside"),
    (
        {"type": "WordPiece", "vocab": {"[UNK]": 0}, "max_input_chars_per_word": -1},
        "max_input_chars_per_word",
    ),
    ({"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "b"}, "unknown token 'b' outside"),
    ({"type": "WordLevel", "vocab": {"a": 0, "b": 2}, "unk_token": ""}, "unknown token '' outside"),
]


@pytest.mark.parametrize("model,words", OTHER_MODELS)
def test_other_models_that_are_damaged(tmp_path: Path, model: dict[str, Any], words: str) -> None:
    content = {"added_tokens": [], "model": model}
    with pytest.raises(ModelError, match=words):
        read_huggingface(write(tmp_path, content))


HOSTILE = {
    "empty": b"",
    "no object": b"[1]",
    "deep lists": b"[" * 2_000_000,
    "deep objects": b'{"a":' * 200_000,
    "not UTF-8": json.dumps(SMALL).encode().replace(b'"abc"', b'"\xff\xfe"'),
    "a number of a million digits": b'{"model": ' + b"9" * 1_000_000 + b"}",
    "no number": b'{"model": NaN}',
    "cut short": json.dumps(SMALL).encode()[:-40],
    "many values": b"[" + b"0," * 9_000_000 + b"0]",
    "nothing, at length": b" " * 100_000_000,
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_refused(tmp_path: Path, name: str) -> None:
    path = write(tmp_path, HOSTILE[name])
    with pytest.raises(ModelError, match=r"tokenizer\.json") as found:
        read_huggingface(path)
    assert len(str(found.value)) < 600 + len(str(path))


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    with open(path, "wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(ModelError, match="1,099,511,627,776 bytes"):
        read_json(path)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"cannot be read"):
        read_huggingface(tmp_path / "tokenizer.json")


def test_memory_stays_bounded(tmp_path: Path) -> None:
    path = write(
        tmp_path, b'{"model": {"vocab": {"a": 99999999999}, "merges": [' + b"[]," * 2_000_000 + b"[]]}}"
    )
    code = (
        "import sys; from lineal.errors import ModelError\n"
        "from lineal.tokenizers.files.huggingface import read_huggingface\n"
        "try: read_huggingface(sys.argv[1])\n"
        "except ModelError as error: print(error)\n"
    )
    gigabyte = 1 << 30
    limit: Callable[[], None] = lambda: resource.setrlimit(resource.RLIMIT_AS, (gigabyte, gigabyte))  # noqa: E731
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, preexec_fn=limit
    )
    assert "tokenizer.json" in done.stdout, done.stderr[-500:]


def test_nothing_half_written_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "tokenizer.json"
    write_whole(path, "before")
    monkeypatch.setattr("os.fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(ModelError, match="cannot be written"):
        write_whole(path, "after")
    assert path.read_text() == "before"
    assert [entry.name for entry in tmp_path.iterdir()] == ["tokenizer.json"]


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ModelError, match="cannot be written"):
        write_whole(tmp_path / "file" / "tokenizer.json", "x")
