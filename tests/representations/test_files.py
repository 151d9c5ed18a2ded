"""Files of vectors: every format comes back as it was, agrees with gensim, and says where it is broken."""

from __future__ import annotations

import json
import random
import struct
from pathlib import Path

import numpy as np
import pytest

from lineal.errors import DataError, LinealError, UsageError
from lineal.representations.files import FORMATS, load_vectors, save_vectors
from lineal.representations.vectors import Vectors

NAMES = {"word2vec": "a.vec", "word2vec-binary": "a.bin", "glove": "glove.a.txt", "lineal": "a.safetensors"}


def some(count: int = 50, dimensions: int = 7, seed: int = 0) -> Vectors:
    """Vectors of hard numbers."""
    draws = np.random.default_rng(seed)
    matrix = draws.standard_normal((count, dimensions)).astype(np.float32)
    matrix[0] *= 1e-30
    matrix[1] = 0
    matrix[2] = np.float32(1) / 3
    return Vectors([f"w{i}ö" if i % 2 else f"{i}" for i in range(count)], matrix)


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("format", FORMATS)
def test_what_is_written_comes_back_bit_for_bit(tmp_path: Path, format: str, zipped: bool) -> None:
    if zipped and format == "lineal":
        pytest.skip("a zipped file can't be mapped")
    path = tmp_path / (NAMES[format] + (".gz" if zipped else ""))
    vectors = some()
    save_vectors(path, vectors)
    again = load_vectors(path)
    assert again.words == vectors.words
    assert again.matrix.dtype == np.float32
    np.testing.assert_array_equal(again.matrix, vectors.matrix)
    assert load_vectors(path, format, limit=3).words == vectors.words[:3]


@pytest.mark.parametrize("format", FORMATS)
def test_a_name_decides_what_is_written_and_a_format_overrides_it(tmp_path: Path, format: str) -> None:
    named, told = tmp_path / NAMES[format], tmp_path / "other"
    save_vectors(named, some())
    save_vectors(told, some(), format)
    assert named.read_bytes() == told.read_bytes()


@pytest.mark.parametrize("binary", [False, True])
def test_gensim_reads_what_is_written_and_the_other_way(tmp_path: Path, binary: bool) -> None:
    keyed = pytest.importorskip("gensim.models").KeyedVectors
    vectors = some()
    path = save_vectors(tmp_path / ("a.bin" if binary else "a.vec"), vectors)
    theirs = keyed.load_word2vec_format(str(path), binary=binary)
    assert theirs.index_to_key == vectors.words
    np.testing.assert_array_equal(theirs.vectors, vectors.matrix)
    theirs.save_word2vec_format(str(tmp_path / "theirs"), binary=binary)
    again = load_vectors(tmp_path / "theirs")
    assert again.words == vectors.words
    np.testing.assert_array_equal(again.matrix, vectors.matrix)


def test_gensim_reads_our_glove(tmp_path: Path) -> None:
    keyed = pytest.importorskip("gensim.models").KeyedVectors
    path = save_vectors(tmp_path / "glove.txt", some())
    theirs = keyed.load_word2vec_format(str(path), binary=False, no_header=True)
    np.testing.assert_array_equal(theirs.vectors, some().matrix)


@pytest.mark.parametrize(
    ("name", "binary", "header"),
    [
        ("euclidean_vectors.bin", True, True),
        ("word2vec_pre_kv_c", False, True),
        ("toy-model.vec", False, True),
        ("test_glove.txt", False, False),
    ],
)
def test_files_of_other_programs_are_read_as_gensim_reads_them(
    data, name: str, binary: bool, header: bool
) -> None:
    keyed = pytest.importorskip("gensim.models").KeyedVectors
    path = data / "fixtures_gensim" / name
    if not path.exists():
        pytest.skip(f"{name} is not there")
    theirs = keyed.load_word2vec_format(str(path), binary=binary, no_header=not header)
    ours = load_vectors(path)
    assert ours.words == theirs.index_to_key
    np.testing.assert_array_equal(ours.matrix, theirs.vectors)


def test_the_line_feed_that_word2vec_c_writes_is_no_part_of_a_word(tmp_path: Path) -> None:
    path = tmp_path / "c.bin"
    path.write_bytes(b"2 1\na " + struct.pack("<f", 1.5) + b"\nb " + struct.pack("<f", -2) + b"\n")
    vectors = load_vectors(path)
    assert vectors.words == ["a", "b"] and vectors.matrix.tolist() == [[1.5], [-2]]


BAD_TEXT = {
    "three of two": ("2 2\na 1 2\nb 1 2\nc 1 2\n", r"bad:4: a vector too many: line 1 says 2"),
    "two of three": ("3 2\na 1 2\nb 1 2\n", r"bad:3: the file ends after 2 vectors, and line 1 says 3"),
    "wrong length": ("2 3\na 1 2\nb 1 2\n", r"bad:2: the vector has 2 numbers, and line 1 says 3"),
    "cut": ("2 2\na 1 2\nb 1\n", r"bad:3: the vector has 1 numbers"),
    "lengths differ": ("a 1 2\nb 1 2 3\n", r"bad:2: the vector has 3 numbers, and the first vector has 2"),
    "twice": ("a 1 2\nb 3 4\na 5 6\n", r"bad:3: the word 'a' was on line 1 already"),
    "space": ("a 1 2\nNew York 3 4\n", r"bad:2: the word 'New York' has a space"),
    "space first": ("2 2\nNew York 3 4\na 1 2\n", r"bad:2: the word 'New York' has a space"),
    "space first, no header": ("at the end 3 4\na 1 2\n", r"bad:1: the word 'at the end' has a space"),
    "no number": ("a 1 2\nb 1 x\n", r"bad:2: 'x' is no number"),
    "nan": ("a 1 2\nb 1 nan\n", r"bad:2: the vector of 'b' is not finite"),
    "empty word": ("a 1 2\n 1 2\n", r"bad:2: the line starts with a space"),
    "empty line": ("a 1 2\n\nb 1 2\n", r"bad:2: the line is empty"),
    "no vector": ("0 5\n", r"bad:1: the first line must say"),
    "word alone": ("hello\n", r"bad:1: the vector has 0 numbers"),
    "huge claim": ("999999999999999 2\na 1 2\n", r"bad:2: the file ends after 1 vectors"),
}


@pytest.mark.parametrize("case", BAD_TEXT)
def test_broken_text_is_named_with_its_line(tmp_path: Path, case: str) -> None:
    content, message = BAD_TEXT[case]
    (tmp_path / "bad").write_text(content)
    with pytest.raises(DataError, match=message):
        load_vectors(tmp_path / "bad", None if case != "nan" else "glove")


def test_bytes_that_are_no_text_are_named(tmp_path: Path) -> None:
    (tmp_path / "bad").write_bytes(b"a 1 2\n\xff\xfe 1 2\n")
    with pytest.raises(DataError, match=r"bad:2: .*no UTF-8"):
        load_vectors(tmp_path / "bad")
    (tmp_path / "bad").write_bytes(b"a 1 2\nb\x00 1 2\n")
    with pytest.raises(DataError, match=r"bad:2: .*NUL"):
        load_vectors(tmp_path / "bad")


def binary(count: int, dimensions: int, words: list[str]) -> bytes:
    return f"{count} {dimensions}\n".encode() + b"".join(
        word.encode() + b" " + struct.pack("<2f", 1, 2) for word in words
    )


BAD_BINARY = {
    "too few": (binary(3, 2, ["a", "b"]), r"record 3: the file ends after 2 of the 3"),
    "too many": (
        binary(1, 2, ["a", "b"]),
        r"bad.bin:1: line 1 says 1 vectors of 2 numbers, and there is more",
    ),
    "cut": (binary(2, 2, ["a", "b"])[:-3], r"record 2: the file ends after 1 of the 2"),
    "twice": (binary(2, 2, ["a", "a"]), r"record 2: the word 'a' was on record 1 already"),
    "huge": (b"5 99999999999\na \x01\x02", r"bad.bin:1: vectors of 99999999999 numbers"),
    "infinite": (b"1 1\na " + struct.pack("<f", np.inf), r"record 1: the vector of 'a' is not finite"),
    "no header": (b"\x01\x02\x03", r"bad.bin:1: the first line must say"),
}


@pytest.mark.parametrize("case", BAD_BINARY)
def test_broken_binary_files_are_named_with_their_record(tmp_path: Path, case: str) -> None:
    content, message = BAD_BINARY[case]
    (tmp_path / "bad.bin").write_bytes(content)
    with pytest.raises(DataError, match=message):
        load_vectors(tmp_path / "bad.bin", "word2vec-binary")


def test_what_is_forgiven_on_request(tmp_path: Path) -> None:
    path = tmp_path / "glove.txt"
    path.write_text(". . . 3 4\na 1 2\na 5 6\nNew York 7 8\n")
    vectors = load_vectors(path, duplicates="first", spaces=True)
    assert vectors.words == [". . .", "a", "New York"]
    assert vectors.matrix.tolist() == [[3, 4], [1, 2], [7, 8]]
    for name in ("b.vec", "glove.b.txt", "b.bin"):
        with pytest.raises(DataError, match=r"The word '\. \. \.' can't stand"):
            save_vectors(tmp_path / name, vectors)
        assert not (tmp_path / name).exists()
    assert load_vectors(save_vectors(tmp_path / "b.safetensors", vectors)).words == vectors.words


def test_files_that_are_none_are_refused(tmp_path: Path) -> None:
    cases = {
        b"": "empty",
        b"\x80\x04\x95": "pickled",
        b"PK\x03\x04": "pickled",
        (793712314).to_bytes(4, "little") + bytes(8): "fastText",
    }
    for content, message in cases.items():
        (tmp_path / "x").write_bytes(content)
        with pytest.raises(DataError, match=message):
            load_vectors(tmp_path / "x")
    with pytest.raises(DataError, match="folder"):
        load_vectors(tmp_path)
    with pytest.raises(DataError, match="can't be read"):
        load_vectors(tmp_path / "nowhere")
    with pytest.raises(UsageError, match="There is no format 'kv'"):
        load_vectors(tmp_path / "x", "kv")
    with pytest.raises(UsageError, match="duplicates="):
        load_vectors(tmp_path / "x", duplicates="last")
    with pytest.raises(UsageError, match="limit of 0"):
        load_vectors(tmp_path / "x", limit=0)


def test_a_mapped_file_is_what_it_says_or_is_refused(tmp_path: Path) -> None:
    path = save_vectors(tmp_path / "a.safetensors", some())
    whole = path.read_bytes()
    length = int.from_bytes(whole[:8], "little")
    header = json.loads(whole[8 : 8 + length])
    changes = [
        ("matrix", "shape", [51, 7]),
        ("matrix", "dtype", "F64"),
        ("matrix", "data_offsets", [0, 10**9]),
        ("words", "shape", [-1]),
        ("matrix", "data_offsets", "x"),
    ]
    for name, field, value in changes:
        head = json.dumps({**header, name: {**header[name], field: value}}).encode()
        path.write_bytes(len(head).to_bytes(8, "little") + head + whole[8 + length :])
        with pytest.raises(DataError, match="damaged"):
            load_vectors(path)
    path.write_bytes(whole[:-1])
    with pytest.raises(DataError, match="damaged"):
        load_vectors(path)
    head = json.dumps({"weight": header["matrix"]}).encode()
    path.write_bytes(len(head).to_bytes(8, "little") + head + whole[8 + length :])
    with pytest.raises(DataError, match="no tensor 'words'"):
        load_vectors(path)


def test_any_truncation_or_noise_is_an_error_of_ours_or_harmless(tmp_path: Path) -> None:
    draws = random.Random(0)
    for name in NAMES.values():
        whole = save_vectors(tmp_path / name, some(6, 3)).read_bytes()
        for _ in range(40):
            cut = bytearray(whole[: draws.randrange(len(whole))] if draws.random() < 0.5 else whole)
            if cut:
                cut[draws.randrange(len(cut))] = draws.randrange(256)
            (tmp_path / name).write_bytes(cut)
            try:
                vectors = load_vectors(tmp_path / name)
            except LinealError:
                continue
            assert len(vectors) == len(vectors.matrix)


def test_safetensors_reads_the_mapped_form(tmp_path: Path) -> None:
    from safetensors.numpy import load_file

    tensors = load_file(save_vectors(tmp_path / "a.safetensors", some()))
    np.testing.assert_array_equal(tensors["matrix"], some().matrix)
    assert tensors["words"].tobytes().decode().split("\n") == some().words


def test_a_mapped_matrix_is_not_read(tmp_path: Path) -> None:
    path = save_vectors(tmp_path / "a.safetensors", some())
    vectors = load_vectors(path)
    assert isinstance(vectors.matrix, np.memmap)
    assert not vectors.matrix.flags.writeable
    assert vectors["w3ö"].tolist() == some().matrix[3].tolist()
