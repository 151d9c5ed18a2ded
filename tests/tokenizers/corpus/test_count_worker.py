"""Counting in other processes: what is sent to them, what comes back, and what when one dies."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from lineal.errors import DataError, LinealError, UsageError
from lineal.tokenizers.corpus import count_worker
from lineal.tokenizers.corpus.count_worker import Worker, counted, describe, rebuild, serve
from lineal.tokenizers.corpus.counting import PieceCounts, count_part
from lineal.tokenizers.corpus.reading import Part
from lineal.tokenizers.parts import Splitter
from lineal.tokenizers.text.normalise import Chain, Lowercase, Replace
from lineal.tokenizers.text.split import Cl100k, Digits, Gpt2, Regex, Splits


@dataclass(frozen=True)
class Holder:
    """Values of every kind that can be sent."""

    raw: bytes
    several: tuple[int | None, ...]
    made: str = field(default="", init=False)


@pytest.fixture
def part(tmp_path) -> Part:
    path = tmp_path / "text.txt"
    path.write_text("It's one line\nand 2 more\n" * 50)
    return Part(path, path.stat().st_size)


@pytest.mark.parametrize(
    "value",
    [
        None,
        3,
        "text",
        Gpt2(prefix_space=True),
        Cl100k(1, True),
        Splits((Digits(), Regex("a|b", "removed"))),
        Chain((Lowercase(), Replace("a", "b"))),
        (Lowercase(), Gpt2(), None),
        Holder(b"\xff\x00", (1, None)),
    ],
    ids=str,
)
def test_what_is_sent_arrives(value) -> None:
    assert rebuild(json.loads(json.dumps(describe(value)))) == value


def test_what_cannot_be_sent() -> None:
    class Own(Splitter):
        def spans(self, data):
            raise NotImplementedError

    @dataclass(frozen=True)
    class Local:
        pass

    for value in (Own(), Local(), [1], {"a": 1}):
        with pytest.raises(UsageError, match="can't be sent to another process"):
            describe((value,))


def test_a_worker_answers_line_by_line(part: Part, tmp_path) -> None:
    (tmp_path / "bad.txt").write_bytes(b"\xff")
    lines = [describe((None, Gpt2(), None)), [str(part.path), part.size], [str(tmp_path / "bad.txt"), 1]]
    answers = io.BytesIO()
    serve(io.BytesIO(b"".join(json.dumps(line).encode() + b"\n" for line in lines)), answers)
    answers.seek(0)
    first = answers.read(int(answers.readline()))
    assert PieceCounts.from_bytes(first) == count_part(part, None, Gpt2())
    kind, message = json.loads(answers.read(int(answers.readline())))
    assert kind == "DataError" and "bad.txt:1" in message
    assert answers.read() == b""


@pytest.mark.serial
def test_parts_come_back_in_order(part: Part, tmp_path) -> None:
    other = tmp_path / "other.txt"
    other.write_text("another text\n")
    parts = [part, Part(other, 13), part, Part(other, 13)]
    found = list(counted(parts, Lowercase(), Gpt2(), 2, 100))
    expected = [count_part(each, Lowercase(), Gpt2(), 100) for each in parts]
    assert [list(each.items()) for each in found] == [list(each.items()) for each in expected]
    assert all(each.cap == 100 for each in found)


@pytest.mark.serial
def test_an_error_there_is_an_error_here(part: Part) -> None:
    with pytest.raises(DataError, match=r"absent.txt can't be read"):
        list(counted([part, Part(Path("absent.txt"), 1), part], None, Gpt2(), 2, None))


@pytest.mark.serial
def test_a_process_that_dies(part: Part, monkeypatch) -> None:
    monkeypatch.setattr(count_worker, "START", "import sys; sys.stdin.readline(); sys.exit(7)")
    worker = Worker(b"{}")
    with pytest.raises(LinealError, match=r"text.txt ended \(exit code 7\).*fewer workers"):
        worker.count(part)
    worker.close()
