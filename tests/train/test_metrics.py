"""Numbers reach JSON and the screen as they are, nan included."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lineal.errors import RunError
from lineal.train.metrics import BARS, Means, encode_line, read_lines, sparkline, to_host

FINITE = st.floats(allow_nan=False, allow_infinity=False)


def test_means_are_sums_over_counts():
    means = Means()
    means.add("reward", torch.tensor(3.0), 2)
    means.add("reward", 5.0, torch.tensor(2))
    means.add("length", torch.tensor(7), torch.tensor(1))
    means.add("never", 0.0, 0)
    result = means.means()
    assert list(result) == ["reward", "length", "never"]
    assert result["reward"] == 2.0 and result["length"] == 7.0 and math.isnan(result["never"])


def test_sums_are_taken_in_float64():
    means = Means()
    for _ in range(1000):
        means.add("x", torch.tensor(0.1, dtype=torch.float32))
    means.add("x", torch.tensor(1e8, dtype=torch.float32), 0)
    expected = 1000 * float(torch.tensor(0.1, dtype=torch.float32)) + 1e8
    assert means.means()["x"] == pytest.approx(expected / 1000, rel=1e-14)


def test_sums_carry_no_graph():
    weight = torch.ones(2, requires_grad=True)
    means = Means()
    means.add("x", weight.sum())
    assert means.means() == {"x": 2.0}


def test_one_transfer_serves_all_numbers(monkeypatch):
    calls = []
    real = torch.Tensor.tolist
    monkeypatch.setattr(torch.Tensor, "tolist", lambda self: calls.append(1) or real(self))
    values = {
        "a": torch.tensor(1.5),
        "b": 2,
        "c": torch.tensor([[3]], dtype=torch.int64),
        "d": torch.tensor(True),
    }
    assert to_host(values) == {"a": 1.5, "b": 2.0, "c": 3.0, "d": 1.0}
    assert len(calls) == 1
    assert list(to_host(values)) == list(values) and to_host({}) == {}


@given(
    st.dictionaries(
        st.text(), FINITE | st.integers() | st.booleans() | st.text() | st.none() | st.lists(FINITE)
    )
)
def test_a_line_is_json_and_comes_back(record):
    line = encode_line(record)
    assert line.endswith(b"\n") and line.count(b"\n") == 1
    line.decode("utf-8")
    assert json.loads(line) == record


def test_floats_come_back_bit_for_bit(tmp_path):
    numbers = [0.1, 1 / 3, 5e-324, 1.7976931348623157e308, -0.0]
    (tmp_path / "a.jsonl").write_bytes(b"".join(encode_line({"x": x}) for x in numbers))
    assert [r["x"].hex() for r in read_lines(tmp_path / "a.jsonl")] == [x.hex() for x in numbers]


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_null_and_flagged(tmp_path, bad):
    line = encode_line({"step": 3, "loss": bad, "parts": [1.0, bad]})
    assert json.loads(line, parse_constant=pytest.fail) == {
        "step": 3,
        "loss": None,
        "parts": [1.0, None],
        "non_finite": True,
    }
    (tmp_path / "a.jsonl").write_bytes(line + encode_line({"note": None}))
    first, second = read_lines(tmp_path / "a.jsonl")
    assert math.isnan(first["loss"]) and first["step"] == 3 and "non_finite" not in first
    assert second == {"note": None}, "null is null where nothing was wrong"


def test_tensors_and_arrays_become_numbers():
    record = {"a": torch.tensor(2), "b": np.float32(0.5), "c": torch.tensor([1.0, math.nan]), "d": (1, 2)}
    assert json.loads(encode_line(record)) == {
        "a": 2,
        "b": 0.5,
        "c": [1.0, None],
        "d": [1, 2],
        "non_finite": True,
    }


def test_text_stays_readable_and_half_characters_do_no_harm():
    assert "né 猫" in encode_line({"text": "né 猫"}).decode()
    assert json.loads(encode_line({"text": "a\ud800"})) == {"text": "a\ud800"}


def test_a_line_still_being_written_is_left_out(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(b'{"x": 1}\n{"x": 2')
    assert list(read_lines(tmp_path / "a.jsonl")) == [{"x": 1}]
    assert list(read_lines(tmp_path / "absent.jsonl")) == []


def test_a_broken_line_is_named(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(b'{"x": 1}\nbroken\n')
    with pytest.raises(RunError, match=r"a\.jsonl:2: not a line"):
        list(read_lines(tmp_path / "a.jsonl"))


@given(st.lists(st.floats(), max_size=100), st.integers(1, 40))
def test_a_sparkline_fits_and_shows_only_bars(values, width):
    line = sparkline(values, width)
    assert len(line) == min(len(values), width)
    assert set(line) <= set(BARS + "×")
    if len(values) <= width:
        assert [bar == "×" for bar in line] == [not math.isfinite(v) for v in values]


def test_a_sparkline_rises_with_its_values():
    assert sparkline(list(range(8))) == BARS
    assert sparkline([1.0, 1.0]) == BARS[0] * 2
    assert sparkline([0, 1, math.nan]) == BARS[0] + BARS[-1] + "×"
    assert sparkline([0, 0, 1, 1], 2) == BARS[0] + BARS[-1], "a crowd is averaged"
    assert sparkline([-1.7e308, 0.0, 1.7e308])[0::2] == BARS[0] + BARS[-1]
