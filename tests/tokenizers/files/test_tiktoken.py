"""tiktoken's ranks: published ones beside outside vectors, ours opened there, and damaged ones."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from lineal.errors import ModelError
from lineal.tokenizers import decode
from lineal.tokenizers.bpe import BPE
from lineal.tokenizers.files.known import ALL, pattern_of, splitter_of
from lineal.tokenizers.files.ranks import merges_of
from lineal.tokenizers.files.tiktoken import read_tiktoken, write_tiktoken
from lineal.tokenizers.files.vocabularies import read_vocabulary_and_merges
from lineal.tokenizers.pipeline import Pipeline
from lineal.tokenizers.text.normalise import Lowercase
from lineal.tokenizers.text.split import Cl100k, Digits, Gpt2, O200k, Regex, Whole

many = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


def plans(data: Path, name: str) -> list[tuple[str, list[int]]]:
    """gpt-tokenizer's texts and their ids."""
    content = (data / "tok_tiktoken" / "TestPlans.txt").read_text(encoding="utf-8")
    rows = re.findall(r"EncodingName: (\S+)\nSample: (.*?)\nEncoded: \[(.*?)\]\n", content, re.DOTALL)
    return [(text, [int(i) for i in ids.split(",") if i.strip()]) for kind, text, ids in rows if kind == name]


def cl100k(data: Path) -> Pipeline:
    """The published ranks of GPT-4."""
    return read_tiktoken(data / "tok_tiktoken" / "cl100k_base.tiktoken")


def test_gpt_4_is_as_published(data: Path) -> None:
    tokenizer = cl100k(data)
    found = plans(data, "cl100k_base")
    assert len(found) == 64
    for text, ids in found:
        assert tokenizer.encode(text) == ids
        assert tokenizer.decode(ids) == text
        assert tokenizer.encode_with_offsets(text).ids == ids
    assert tokenizer.encode("a<|endoftext|>", special=True) == [64, 100257]
    assert 100257 not in tokenizer.encode("a<|endoftext|>")


def test_gpt_2_is_as_published(data: Path) -> None:
    tokenizer = read_vocabulary_and_merges(
        data / "tok_gpt2" / "encoder.json", data / "tok_gpt2" / "vocab.bpe"
    )
    found = plans(data, "r50k_base")
    assert len(found) == 64
    assert [tokenizer.encode(text) for text, _ in found] == [ids for _, ids in found]


def theirs(path: Path) -> Any:
    """The library's reading of ours: ranks, pattern and special tokens."""
    tiktoken = pytest.importorskip("tiktoken", reason="the oracle is in the [bench] extra")
    beside = json.loads(path.with_suffix(".json").read_text())
    rows = [line.split() for line in path.read_bytes().splitlines()]
    ranks = {base64.b64decode(token): int(rank) for token, rank in rows}
    return tiktoken.Encoding(
        path.stem, pat_str=beside["pattern"], mergeable_ranks=ranks, special_tokens=beside["special_tokens"]
    )


@pytest.mark.parametrize("name", ["gpt2", "cl100k"])
def test_what_is_written_opens_in_tiktoken(data: Path, tmp_path: Path, name: str) -> None:
    folder = data / "tok_gpt2"
    files = folder / "encoder.json", folder / "vocab.bpe"
    one = cl100k(data) if name == "cl100k" else read_vocabulary_and_merges(*files)
    write_tiktoken(one, tmp_path / "ours.tiktoken")
    other, again = theirs(tmp_path / "ours.tiktoken"), read_tiktoken(tmp_path / "ours.tiktoken")
    letters = "aé猫 \t\n\r'S12,.<>|\u3000\u0301ﬁ👩\u200d"

    @given(st.text(letters) | st.text(st.characters(exclude_categories=["Cs", "Cn"])))
    @example("The  quick\n\n brown fox's   \n ")
    @example("  \n \n")
    @many
    def check(text: str) -> None:
        ids = other.encode_ordinary(text)
        assert one.encode(text) == again.encode(text) == ids

    check()
    line = (data / "tok_tiktoken" / "TestPlans.txt").read_text(encoding="utf-8")[:20000]
    assert one.encode(line) == again.encode(line) == other.encode_ordinary(line)


def test_ranks_become_merges_for_other_files(data: Path, tmp_path: Path) -> None:
    tokenizers = pytest.importorskip("tokenizers", reason="the oracle is in the [hf] extra")
    one = cl100k(data)
    one.save(tmp_path)
    other = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    for text, ids in plans(data, "cl100k_base"):
        assert other.encode(text, add_special_tokens=False).ids == ids


def tiny(merges: list[tuple[bytes, bytes]], size: int = 0) -> Pipeline:
    """A byte-level BPE with these merges."""
    tokens = [bytes([byte]) for byte in range(256)]
    pairs = []
    for left, right in merges:
        pairs.append((tokens.index(left), tokens.index(right)))
        tokens.append(left + right)
    return Pipeline(BPE(tokens, pairs, initial="bytes"), decoder=decode.ByteLevel())


def test_ranks_and_merges_are_two_forms_of_one_thing() -> None:
    made: Any = tiny([(b"a", b"b"), (b"c", b"d"), (b"ab", b"cd"), (b"ab", b"ab")])
    assert merges_of(made.model.tokens) == [tuple(pair) for pair in made.model.merges]
    # No lower rank brings it down to two.
    assert merges_of([b"a", b"b", b"abab"]) == []


def test_what_ranks_cannot_say_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.tiktoken"
    made: Any = tiny([(b"a", b"b")])
    write_tiktoken(made, path)
    assert read_tiktoken(path).encode("ab b") == [256, 32, 98]
    assert json.loads((tmp_path / "x.json").read_text()) == {"pattern": ALL, "special_tokens": {}}
    unmade = Pipeline(BPE([*made.model.tokens, b"zz"], made.model.merges, initial="bytes"))
    late = Pipeline(BPE([*made.model.tokens[:256], b"cd", b"ab"], [(97, 98), (99, 100)], initial="bytes"))
    for wrong, words in [
        (unmade, "no merge makes b'zz'"),
        (late, "comes late for its id"),
        (Pipeline(made.model, normaliser=Lowercase()), "without a normaliser"),
        (Pipeline(made.model, splitter=Digits()), "cannot be written as tiktoken's pattern"),
    ]:
        with pytest.raises(ModelError, match=words):
            write_tiktoken(wrong, tmp_path / "y.tiktoken")
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["x.json", "x.tiktoken"]


BYTES = b"".join(b"%s %d\n" % (base64.b64encode(bytes([byte])), byte) for byte in range(256))


@pytest.mark.parametrize(
    "content,words",
    [
        (BYTES + b"YWI= 256\nYWI= 257\n", "has a token twice"),
        (BYTES + b"YWI= 256\nYWM= 256\n", r"x\.tiktoken:258: the rank 256 stands there twice"),
        (BYTES + b"YWI=\n", r"x\.tiktoken:257: b'YWI=' is not base64 and a rank"),
        (BYTES + b"??? 256\n", "x.tiktoken:257"),
        (BYTES + b"YWI= -1\n", "x.tiktoken:257: the rank b'-1'"),
        (BYTES + b"YWI= 99999999\n", "x.tiktoken:257: the rank"),
        (BYTES + b"YWI= " + b"9" * 10000 + b"\n", "x.tiktoken:257: the rank"),
        (BYTES[:-9], "lacks 1 of the 256 single bytes"),
        (b"", "lacks 256 of the 256"),
    ],
)
def test_damaged_ranks_are_named(tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "x.tiktoken").write_bytes(content)
    with pytest.raises(ModelError, match=words):
        read_tiktoken(tmp_path / "x.tiktoken", pattern=ALL)


def test_a_pattern_must_come_from_somewhere(tmp_path: Path) -> None:
    path = tmp_path / "x.tiktoken"
    path.write_bytes(BYTES)
    with pytest.raises(ModelError, match=r"has no x\.json beside it"):
        read_tiktoken(path)
    with pytest.raises(ModelError, match="pattern"):
        read_tiktoken(path, pattern="(")
    with pytest.raises(ModelError, match="which is a rank too"):
        read_tiktoken(path, pattern=ALL, special={"<x>": 7})
    (tmp_path / "x.json").write_text('{"pattern": "[ab]+|.", "special_tokens": {"<|endoftext|>": 256}}')
    tokenizer = read_tiktoken(path)
    assert (tokenizer.eos_id, tokenizer.vocab_size) == (256, 257)
    assert tokenizer.splitter == Regex("[ab]+|.", "removed", invert=True)


@pytest.mark.parametrize(
    "splitter", [Gpt2(), Cl100k(), Cl100k(whole_end=True), Cl100k(1), Cl100k(2, True), O200k(), Whole()]
)
def test_a_splitters_pattern_is_read_back(splitter: Any) -> None:
    assert splitter_of(pattern_of(splitter) or "") == splitter
