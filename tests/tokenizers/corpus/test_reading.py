"""Files in blocks: every byte once, blocks that end with lines, and parts that share a file."""

from __future__ import annotations

import gzip
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lineal.errors import DataError
from lineal.tokenizers.corpus import reading
from lineal.tokenizers.corpus.reading import Part, blocks, parts_of, place_of, safe_cut


@pytest.fixture
def small(monkeypatch) -> None:
    """Blocks of a few bytes."""
    monkeypatch.setattr(reading, "BLOCK", 7)
    monkeypatch.setattr(reading, "LONGEST_LINE", 20)
    monkeypatch.setattr(reading, "PART", 16)


def write(folder: Path, content: bytes) -> Path:
    path = folder / "text.txt"
    path.write_bytes(content)
    return path


@pytest.mark.usefixtures("small")
def test_blocks_end_with_lines_and_hold_everything(tmp_path_factory) -> None:
    folder = tmp_path_factory.mktemp("blocks")

    @given(st.lists(st.sampled_from(["a", " ", "\n", "é", "日"]), max_size=80).map("".join))
    def check(text: str) -> None:
        path = write(folder, text.encode())
        found = list(blocks(Part(path, 0)))
        assert b"".join(data for _, data in found) == text.encode()
        at = 0
        for start, data in found:
            assert start == at
            at += len(data)
            data.decode()
        for (_, data), (_, after) in pairwise(found):
            assert data.endswith(b"\n") or after.startswith(b" ") or len(data) > 20 - 4 - 7

    check()


@pytest.mark.usefixtures("small")
def test_parts_share_the_lines_of_a_file(tmp_path_factory) -> None:
    folder = tmp_path_factory.mktemp("parts")

    @given(st.lists(st.sampled_from(["a", " ", "\n", "é", "bcdefghi", "\n\n"]), max_size=60).map("".join))
    def check(text: str) -> None:
        path = write(folder, text.encode())
        parts = parts_of(path, 3)
        assert sum(part.size for part in parts) == len(text.encode())
        texts = [b"".join(data for _, data in blocks(part)) for part in parts]
        assert b"".join(texts) == text.encode()
        before = b""
        for part in texts:
            assert not (part and before) or before.endswith(b"\n")
            before += part

    check()


def test_a_file_for_one_process_or_a_compressed_one_stays_whole(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(reading, "PART", 2)
    path = write(tmp_path, b"a\nb\nc\n")
    packed = tmp_path / "text.txt.gz"
    packed.write_bytes(gzip.compress(b"a\nb\nc\n"))
    assert len(parts_of(path, 1)) == len(parts_of(packed, 2)) == 1
    assert len(parts_of(path, 2)) == 3
    assert list(blocks(parts_of(packed, 2)[0])) == [(0, b"a\nb\nc\n")]


def test_a_long_line_is_cut_where_pieces_end() -> None:
    assert safe_cut(b"one two  three") == 7
    assert safe_cut(b"one two \xe3\x80\x80 three") == 7
    assert safe_cut(b"aaaa\xe6\x97\xa5") == 4
    assert safe_cut(b"aaaa") == 3


def test_a_byte_has_a_line(tmp_path) -> None:
    path = write(tmp_path, b"a\nbb\n\nc")
    assert [place_of(path, at).removeprefix(f"{path}:") for at in range(7)] == list("1122234")


def test_files_that_cannot_be_read(tmp_path) -> None:
    with pytest.raises(DataError, match=r"absent.txt can't be read .*No such file"):
        parts_of(tmp_path / "absent.txt", 1)
    with pytest.raises(DataError, match="not a file"):
        parts_of(tmp_path, 1)
    packed = tmp_path / "cut.gz"
    packed.write_bytes(gzip.compress(b"text " * 1000)[:-20])
    with pytest.raises(DataError, match="whole"):
        list(blocks(Part(packed, 0)))
    packed.write_bytes(b"no gzip at all")
    with pytest.raises(DataError, match="gz can't be read"):
        list(blocks(Part(packed, 0)))
