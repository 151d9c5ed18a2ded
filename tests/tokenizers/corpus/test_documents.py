"""Texts come out of files as they stand there, with the place of what is wrong, and long lines are cut."""

from __future__ import annotations

import gzip
import io
import json
from pathlib import Path

import pytest

from lineal.errors import DataError
from lineal.tokenizers.corpus import documents, reading
from lineal.tokenizers.corpus.documents import DOCUMENT, read_documents, read_lines, read_texts


def test_lines_lose_their_ends_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes("one \r\n\n\u2028two\u0085\nlast".encode())
    assert list(read_lines(path)) == [(1, "one "), (2, ""), (3, "\u2028two\u0085"), (4, "last")]
    assert list(read_texts("-", stream=io.BytesIO(path.read_bytes()))) == list(read_texts(path))


def test_rows_and_zipped_files(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl.gz"
    rows = [{"text": "a\nb", "body": "x"}, {"text": "", "body": "y"}]
    path.write_bytes(gzip.compress("\n\n".join(map(json.dumps, rows)).encode()))
    assert list(read_texts(path)) == ["a\nb", ""]
    assert list(read_texts(path, field="body")) == ["x", "y"]
    assert next(read_texts(path, rows=False)).startswith("{")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", b"fine\nb\xc3\xa9d \xff\n", r"a\.txt:2:5: byte 0xff"),
        ("a.jsonl", b'{"text": "a"}\n{"text": 3}\n', r"a\.jsonl:2: .*no text 'text'.*--field"),
        ("a.jsonl", b"\n[1]\n", r"a\.jsonl:2: .*a list"),
        ("a.jsonl", b"{oops\n", r"a\.jsonl:1: .*no JSON"),
        ("a.jsonl", b"[" * 100_000 + b"\n", r"a\.jsonl:1: .*no JSON"),
        ("a.txt.gz", b"plain", r"a\.txt\.gz can't be read"),
    ],
)
def test_what_is_wrong_has_its_place(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(DataError, match=message):
        list(read_texts(path))


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.txt can't be read"):
        list(read_texts(tmp_path / "none.txt"))


def test_documents_are_several_lines(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("word\n" * 1000)
    found = list(read_documents([path]))
    assert "".join(found) == "word\n" * 1000
    assert all(DOCUMENT <= len(text) < DOCUMENT + 5 for text in found[:-1])
    assert len(list(read_documents([path, path], limit=2500))) == 4


def test_a_long_line_is_read_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (documents, reading):
        monkeypatch.setattr(module, "LONGEST_LINE", 1000)
    monkeypatch.setattr(reading, "BLOCK", 300)
    path = tmp_path / "long.txt"
    text = "ein wort und " * 400
    path.write_text(text + "\nend\n")
    for found in (list(read_lines(path)), list(read_lines("-", stream=io.BytesIO(path.read_bytes())))):
        assert "".join(part for _, part in found[:-1]) == text and found[-1] == (2, "end")
        assert {number for number, _ in found[:-1]} == {1}
        assert max(len(part) for _, part in found) <= 1400
