"""Charts: ticks are round and cover the data, lines end where the data ends, nan leaves a gap."""

from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lineal.web.chart import DRAWN, Line, line_chart, running_mean, thin, ticks

FINITE = st.floats(-1e12, 1e12, allow_nan=False)


@given(FINITE, FINITE)
def test_ticks_cover_the_range_with_few_round_steps(a: float, b: float) -> None:
    low, high = min(a, b), max(a, b)
    scale = ticks(low, high)
    slack = 1e-6 * max(abs(scale.low), abs(scale.high), 1e-300)
    assert scale.low <= low + slack and scale.high >= high - slack
    assert 2 <= len(scale.ticks) <= 12
    steps = [y - x for x, y in zip(scale.ticks, scale.ticks[1:])]
    assert min(steps) > 0
    assert max(steps) - min(steps) <= 1e-6 * max(steps) + slack


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 1, (0, 0.5, 1)),
        (0, 0.004, (0, 0.001, 0.002, 0.003, 0.004)),
        (0, 0, (0, 0.5, 1)),
        (7, 97, (0, 50, 100)),
    ],
)
def test_known_ticks(low: float, high: float, expected: tuple[float, ...]) -> None:
    assert ticks(low, high).ticks == pytest.approx(expected)


def test_a_constant_is_drawn_in_the_middle() -> None:
    scale = ticks(5.0, 5.0)
    assert scale.low < 5.0 < scale.high


def parsed(html: str) -> ElementTree.Element:
    return ElementTree.fromstring(html)


def paths(html: str, kind: str = "trend") -> list[str]:
    return [
        p.attrib["d"]
        for p in parsed(html).iter("path")
        if kind in p.attrib["class"].split() and "M1 5" not in p.attrib["d"]
    ]


def test_a_line_goes_from_its_first_to_its_last_point() -> None:
    html = line_chart("t", [Line("a", ((0.0, 0.0), (5.0, 0.5), (10.0, 1.0)))], floor=0.0, ceiling=1.0)
    numbers = [float(x) for x in re.findall(r"-?[\d.]+", paths(html)[0])]
    assert numbers[0] == 46 and numbers[-2] == 330 - 12
    assert numbers[1] == 180 - 22 and numbers[-1] == 8


def test_nan_leaves_a_gap() -> None:
    points = ((0.0, 1.0), (1.0, 2.0), (2.0, math.nan), (3.0, 1.0), (4.0, 2.0))
    assert paths(line_chart("t", [Line("a", points)]))[0].count("M") == 2
    assert "nan" not in line_chart("t", [Line("a", points)])


def test_nothing_finite_says_so() -> None:
    assert "no finite value" in line_chart("t", [Line("a", ((0.0, math.nan),))])
    assert "no finite value" in line_chart("t", [])


def test_several_lines_have_a_key_and_one_has_none() -> None:
    one = line_chart("t", [Line("alone", ((0.0, 1.0), (1.0, 2.0)))])
    two = line_chart("t", [Line("first", ((0.0, 1.0),)), Line("<b>", ((0.0, 2.0),))])
    assert 'class="key"' not in one
    assert "first</li>" in two and "&lt;b&gt;</li>" in two


def test_a_wide_figure_is_drawn_for_narrow_screens_too() -> None:
    html = line_chart("t", [Line("a", ((0.0, 1.0), (1.0, 2.0)))], hero=True)
    assert [s.attrib["class"] for s in parsed(html).findall("svg")] == ["only-wide", "only-narrow"]


def test_points_say_their_value() -> None:
    html = line_chart("t", [Line("reward", ((3.0, 0.25), (4.0, 0.5)))])
    assert "reward, step 3: 0.25" in [t.text for t in parsed(html).iter("title")]


@given(st.lists(st.tuples(FINITE, FINITE | st.just(math.nan)), min_size=1, max_size=40))
def test_every_chart_is_well_formed(points: list[tuple[float, float]]) -> None:
    line = Line("x", tuple(sorted(points)), smooth=True, dots=True)
    html = line_chart("t & <u>", [line, line], note="n", hero=True)
    assert parsed(html).tag == "figure"
    assert "inf" not in html.replace("info", "")


def test_running_mean_keeps_the_ends_and_the_mean_of_a_line() -> None:
    points = [(float(i), float(2 * i)) for i in range(50)]
    assert [y for _, y in running_mean(points)] == pytest.approx([y for _, y in points])
    assert running_mean([(0.0, 1.0), (1.0, math.nan), (2.0, 3.0)])[2] == (2.0, 3.0)


@given(st.integers(1, 3000))
def test_thinning_bounds_the_points_and_keeps_the_last(count: int) -> None:
    points = [(float(i), 1.0) for i in range(count)]
    kept = thin(points, DRAWN)
    assert len(kept) == min(count, DRAWN)
    assert kept[-1] == points[-1]
    assert all(y == pytest.approx(1.0) for _, y in kept)
