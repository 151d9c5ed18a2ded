"""Vector files under stress: any words and numbers come back, gensim agrees, torn and odd files are named, old ones stay."""

from __future__ import annotations

import gzip
import json
import struct
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lineal.errors import DataError, UsageError
from lineal.representations import vector_binary, vector_mapped, vector_text, writing
from lineal.representations.files import FORMATS, format_of, load_vectors, save_vectors
from lineal.representations.vectors import Vectors

floats = st.floats(width=32, allow_nan=False, allow_infinity=False)
characters = st.characters(
    codec="utf-8", exclude_characters="\x00\n\r\t ", exclude_categories=("Zs", "Zl", "Zp", "Cc")
)
tokens = st.text(characters, min_size=1, max_size=6)


@st.composite
def tables(draw: Callable) -> tuple[list[str], list[list[float]]]:
    """Words that every format can hold, with any finite float32."""
    words = draw(st.lists(tokens, min_size=1, max_size=6, unique=True))
    size = draw(st.integers(1, 4))
    return words, [draw(st.lists(floats, min_size=size, max_size=size)) for _ in words]


def made(table: tuple[list[str], list[list[float]]]) -> Vectors:
    return Vectors(table[0], np.array(table[1], np.float32))


@pytest.fixture(autouse=True)
def no_wait_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """What stands on the disk after a power cut is not what is tested here."""
    monkeypatch.setattr(writing.os, "fsync", lambda _: None)


def kept(vectors: Vectors, name: str, format: str | None = None) -> Vectors:
    """Written and read again."""
    with tempfile.TemporaryDirectory() as folder:
        again = load_vectors(save_vectors(Path(folder) / name, vectors, format), format)
        return Vectors(again.words, np.array(again.matrix))


@pytest.mark.parametrize("format", FORMATS)
@given(tables())
@settings(max_examples=25)
def test_any_words_and_numbers_come_back_bit_for_bit(format: str, table: tuple) -> None:
    vectors = made(table)
    if format == "glove" and vectors.words[0].startswith("\ufeff"):
        return
    again = kept(vectors, "file", format)
    assert again.words == vectors.words
    assert again.matrix.tobytes() == vectors.matrix.tobytes()


@given(tables(), st.sampled_from(["a.vec", "a.vec.gz", "a.bin", "a.bin.gz", "a.safetensors"]))
@settings(max_examples=40)
def test_the_bytes_tell_the_format(table: tuple, name: str) -> None:
    vectors = made(table)
    assert kept(vectors, name).words == vectors.words


@given(tables(), st.booleans())
@settings(max_examples=25)
def test_gensim_reads_the_same(table: tuple, binary: bool) -> None:
    vectors = made(table)
    keyed = pytest.importorskip("gensim.models").KeyedVectors
    with tempfile.TemporaryDirectory() as folder:
        path = save_vectors(Path(folder) / ("a.bin" if binary else "a.vec"), vectors)
        theirs = keyed.load_word2vec_format(str(path), binary=binary)
    assert theirs.index_to_key == vectors.words
    np.testing.assert_array_equal(theirs.vectors, vectors.matrix)


@given(tables(), st.integers(1, 8), st.sampled_from(FORMATS))
@settings(max_examples=25)
def test_a_limit_is_a_beginning(table: tuple, limit: int, format: str) -> None:
    vectors = made(table)
    if vectors.words[0].startswith("\ufeff"):
        return
    with tempfile.TemporaryDirectory() as folder:
        path = save_vectors(Path(folder) / "file", vectors, format)
        some = load_vectors(path, format, limit=limit)
        assert some.words == vectors.words[:limit]
        assert np.array_equal(some.matrix, vectors.matrix[:limit])


@pytest.mark.parametrize("format", FORMATS)
def test_blocks_of_any_size_are_put_together(format: str, tmp_path: Path, monkeypatch) -> None:
    matrix = np.arange(33, dtype=np.float32).reshape(11, 3)
    vectors = Vectors([f"w{i}" for i in range(11)], matrix)
    for module, name in ((vector_text, "BLOCK"), (vector_binary, "ROWS"), (vector_mapped, "ROWS")):
        monkeypatch.setattr(module, name, 2)
    again = load_vectors(save_vectors(tmp_path / "a", vectors, format))
    assert again.words == vectors.words and np.array_equal(again.matrix, matrix)


@pytest.mark.parametrize("ends", ["\n", "\r\n", " \n", "\t\n"])
@pytest.mark.parametrize("between", [" ", "\t", "  "])
@pytest.mark.parametrize("start", ["", "\ufeff"])
def test_line_ends_tabs_and_a_byte_order_mark_are_no_matter(
    ends: str, between: str, start: str, tmp_path: Path
) -> None:
    lines = ["2 2", between.join(["a", "1", "2"]), between.join(["b", "3", "4"])]
    for name, text in (("with", lines), ("without", lines[1:])):
        (tmp_path / name).write_bytes((start + ends.join(text)).encode())
        found = load_vectors(tmp_path / name)
        assert found.words == ["a", "b"] and found.matrix.tolist() == [[1, 2], [3, 4]], name


@pytest.mark.parametrize("word", ["a\u00a0b", "c\u0085", "\u2028", "d\u3000e", "\x1c"])
def test_a_word_with_white_space_of_its_own_is_read_and_kept_where_it_can_be(
    word: str, tmp_path: Path
) -> None:
    """Files in use have such words: the only space that parts is the plain one."""
    (tmp_path / "a.vec").write_bytes(f"2 2\n{word} 1 2\nb 3 4\n".encode())
    found = load_vectors(tmp_path / "a.vec", "word2vec")
    assert found.words == [word, "b"]
    for name in ("b.bin", "b.safetensors"):
        assert load_vectors(save_vectors(tmp_path / name, found), None).words == found.words
    with pytest.raises(DataError, match=r"can't stand on line 2 .*write .safetensors"):
        save_vectors(tmp_path / "b.vec", found)


@pytest.mark.parametrize("name", ["a.vec", "glove.txt", "a.bin", "a.safetensors"])
@pytest.mark.parametrize(
    ("words", "shape", "message"),
    [
        ([], (0, 3), "There is no vector to write"),
        (["a"], (1, 0), "There is no vector to write"),
        (["a", "b\ud800"], (2, 2), r"row 1\) is no UTF-8"),
    ],
)
def test_what_no_file_can_hold_is_refused_and_the_old_file_stays(
    name: str, words: list[str], shape: tuple[int, int], message: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_text("old")
    with pytest.raises(DataError, match=message):
        save_vectors(tmp_path / name, Vectors(words, np.ones(shape, np.float32)))
    assert (tmp_path / name).read_text() == "old" and len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("word", ["", " ", "a b", "a\n", "\n", "a\x00"])
def test_each_format_refuses_the_words_that_would_break_it(word: str, tmp_path: Path) -> None:
    vectors = Vectors(["first", word], np.ones((2, 2), np.float32))
    for name in ("a.vec", "glove.txt", "a.bin", "a.safetensors"):
        try:
            again = load_vectors(save_vectors(tmp_path / name, vectors))
        except DataError as error:
            place = {"a.vec": "line 3", "glove.txt": "line 2", "a.bin": "record 2", "a.safetensors": "row 1"}[
                name
            ]
            assert repr(word) in str(error) and place in str(error)
            assert not (tmp_path / name).exists()
        else:
            assert again.words == vectors.words


def test_a_single_empty_word_can_be_mapped(tmp_path: Path) -> None:
    path = save_vectors(tmp_path / "a.safetensors", Vectors([""], np.ones((1, 2), np.float32)))
    assert load_vectors(path).words == [""]


def test_words_longer_than_a_reader_looks_for_are_refused_in_binary(tmp_path: Path) -> None:
    for word in ("x" * (1 << 16), "東" * 22_000):
        vectors = Vectors([word], np.ones((1, 2), np.float32))
        with pytest.raises(DataError, match=r"record 1 .* shorten it"):
            save_vectors(tmp_path / "a.bin", vectors)
        assert load_vectors(save_vectors(tmp_path / "a.vec", vectors)).words == [word]
    longest = Vectors(["x" * ((1 << 16) - 1)], np.ones((1, 2), np.float32))
    assert load_vectors(save_vectors(tmp_path / "b.bin", longest), "word2vec-binary").words == longest.words


def test_what_is_mapped_is_not_zipped(tmp_path: Path) -> None:
    vectors = Vectors(["a", "b"], np.ones((2, 2), np.float32))
    with pytest.raises(UsageError, match=r"can.t be zipped: leave .gz out"):
        save_vectors(tmp_path / "a.safetensors.gz", vectors)
    whole = save_vectors(tmp_path / "a.safetensors", vectors).read_bytes()
    (tmp_path / "b.safetensors.gz").write_bytes(gzip.compress(whole))
    with pytest.raises(DataError, match=r"is zipped, so it can't be mapped .*gunzip"):
        load_vectors(tmp_path / "b.safetensors.gz")


@pytest.mark.parametrize("name", ["a.vec.gz", "a.bin.gz"])
def test_a_zipped_file_that_is_torn_or_damaged_is_named(name: str, tmp_path: Path) -> None:
    draws = np.random.default_rng(0)
    vectors = Vectors([f"w{i}" for i in range(200)], draws.standard_normal((200, 5)).astype(np.float32))
    whole = save_vectors(tmp_path / name, vectors).read_bytes()
    for size in range(3, len(whole), len(whole) // 12):
        (tmp_path / name).write_bytes(whole[:size])
        with pytest.raises(DataError, match=name):
            load_vectors(tmp_path / name)
    for at in range(12, len(whole) - 8, len(whole) // 40):
        changed = bytearray(whole)
        changed[at : at + 3] = bytes(255 - byte for byte in changed[at : at + 3])
        (tmp_path / name).write_bytes(changed)
        with pytest.raises(DataError, match=name):
            load_vectors(tmp_path / name)


@pytest.mark.parametrize(
    "value", [[0.0, 24.0], [True, 24], ["0", "24"], [24, 0], [-4, 20], [0], None, 7, [0, 1 << 70]]
)
@pytest.mark.parametrize("field", ["data_offsets", "shape"])
def test_a_mapped_header_of_other_kinds_of_numbers_is_damage(
    field: str, value: object, tmp_path: Path
) -> None:
    path = save_vectors(tmp_path / "a.safetensors", Vectors(["a", "b", "c"], np.ones((3, 2), np.float32)))
    whole = path.read_bytes()
    length = int.from_bytes(whole[:8], "little")
    header = json.loads(whole[8 : 8 + length])
    header["matrix"][field] = value
    head = json.dumps(header).encode()
    path.write_bytes(len(head).to_bytes(8, "little") + head + whole[8 + length :])
    with pytest.raises(DataError, match="damaged"):
        load_vectors(path)


@pytest.mark.parametrize("head", [b"{", b"[" * 20_000, b"{}", b"null", b"\xff\xfe{}", b'{"words": 3}'])
def test_a_mapped_header_that_is_none_is_refused(head: bytes, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(len(head).to_bytes(8, "little") + head + bytes(64))
    with pytest.raises(DataError, match=r"damaged|no tensor"):
        load_vectors(tmp_path / "a", "lineal")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("b 1_0 2", "'1_0' is no number"),
        ("b 1 2 3_3", "'3_3' is no number"),
        ("b 1e99 2", "vector of 'b' is not finite"),
        ("b 1,5 2", "'1,5' is no number"),
        ("b one two", "'one' is no number"),
    ],
)
def test_what_only_python_takes_for_a_number_is_none(line: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "a.vec").write_text(f"2 2\na 1 2\n{line}\n")
    with pytest.raises(DataError, match=f"a.vec:3: .*{message}"):
        load_vectors(tmp_path / "a.vec")


def test_a_line_without_an_end_is_not_read_into_memory(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(vector_text, "LONGEST", 1 << 20)
    (tmp_path / "a").write_bytes(b"a 1 2\nb " + b"1 " * (1 << 20))
    with pytest.raises(DataError, match="a:2: the line is longer than 1 MiB"):
        load_vectors(tmp_path / "a")


def test_a_text_whose_first_words_are_numbers_is_no_header(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("1 0.5 2\n2 1 3\n")
    assert load_vectors(tmp_path / "a").words == ["1", "2"]
    assert format_of(Path("a"), b"3 2\na 1 2\n") == "word2vec"
    assert format_of(Path("a"), b"-3 2\n") == format_of(Path("a"), b"3 2.0\n") == "glove"
    assert format_of(Path("a"), b"1 1\na " + struct.pack("<f", 0.1)) == "word2vec-binary"


def test_a_character_that_the_look_at_the_start_cuts_is_still_text(tmp_path: Path) -> None:
    for shift in range(4):
        rows = "".join(f"{'x' * shift if i == 0 else ''}𝔘東é{i} 1 2\n" for i in range(500))
        (tmp_path / "a").write_text(f"500 2\n{rows}")
        assert len(load_vectors(tmp_path / "a")) == 500


def test_a_write_that_fails_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("old")
    with (
        pytest.raises(DataError, match=r"a cannot be written .*free some space"),
        writing.replaced(tmp_path / "a") as file,
    ):
        file.write(b"half")
        raise OSError(28, "No space left on device")
    with pytest.raises(KeyError), writing.replaced(tmp_path / "a") as file:
        file.write(b"half")
        raise KeyError
    assert (tmp_path / "a").read_text() == "old" and len(list(tmp_path.iterdir())) == 1
    (tmp_path / "plain").write_text("")
    with pytest.raises(DataError, match="cannot be written"), writing.replaced(tmp_path / "plain" / "b"):
        pass


def test_a_zipped_file_is_the_same_whenever_it_is_written(tmp_path: Path, monkeypatch) -> None:
    vectors = Vectors(["a"], np.ones((1, 2), np.float32))
    one = save_vectors(tmp_path / "a.vec.gz", vectors).read_bytes()
    monkeypatch.setattr("time.time", lambda: 1e9)
    assert save_vectors(tmp_path / "sub" / "b.vec.gz", vectors).read_bytes() == one
