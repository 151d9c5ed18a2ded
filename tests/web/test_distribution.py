"""The picture of a distribution's way through the filters: its numbers and bars, escaped, well-formed XML."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lineal.web.distribution import COLUMN, HEAD, LONGEST, ROW, Column, Distribution, distribution_page, svg

FIRST = Column("model", "softmax(z)", (0.5, 0.3, 0.2), 50257, 1.25)
TOP = Column("top-k", "the k greatest", (0.625, 0.375, None), 2, 0.6616)
LAST = Column("cold", "z / T", (0.8, 0.2, None), 2, 0.5004)
FOUND = Distribution((" the", " a", " an"), (FIRST, TOP, LAST), drawn=1)
ROOM = COLUMN - 58
HOSTILE = "<script>\"&'</text>"

Text = st.text(max_size=30)
Share = st.none() | st.floats(0, 1)


def parsed(picture: str) -> ElementTree.Element:
    """The picture as a tree; it must be well-formed."""
    return ElementTree.fromstring(picture)


def words(root: ElementTree.Element, kind: str | None = None) -> list[str]:
    """What is written, by class; titles, which only a pointer shows, left out."""
    found = []
    for node in root.iter():
        if node.tag.endswith("text") and (kind is None or node.get("class") == kind):
            title = node.find("{*}title")
            found.append((node.text or "") + ("" if title is None else title.tail or ""))
    return found


def bars(root: ElementTree.Element, kind: str) -> list[tuple[float, float]]:
    """Top and width of each bar of a class."""
    return [
        (float(node.get("y", "nan")), float(node.get("width", "nan")))
        for node in root.iter()
        if node.tag.endswith("rect") and node.get("class") == kind
    ]


def test_every_filter_shows_its_name_its_numbers_and_what_is_left() -> None:
    said = words(parsed(svg(FOUND)))
    assert [word for word in said if re.fullmatch(r"0\.\d{3}", word)] == [
        "0.500", "0.300", "0.200", "0.625", "0.375", "0.800", "0.200",
    ]  # fmt: skip
    assert [word for word in said if "nats" in word] == [
        "50,257 kept, 1.25 nats",
        "2 kept, 0.66 nats",
        "2 kept, 0.50 nats",
    ]
    assert [word for word in said if word in ("model", "top-k", "cold")] == ["model", "top-k", "cold"]


def test_bars_are_as_wide_as_their_share_of_the_greatest() -> None:
    root = parsed(svg(FOUND))
    expected = [0.5, 0.3, 0.2, 0.625, 0.375, 0.8, 0.2]
    assert [width for _, width in bars(root, "now")] == pytest.approx(
        [ROOM * p / 0.8 for p in expected], abs=0.05
    )
    rows = [HEAD + ROW * row + 4 for row in (0, 1, 2, 0, 1, 0, 1)]
    assert [y for y, _ in bars(root, "now")] == rows


def test_dashed_bars_are_what_the_filter_before_left() -> None:
    root = parsed(svg(FOUND))
    # Nothing stands before the first column, and nothing of the cut token before the last.
    expected = [0.5, 0.3, 0.2, 0.625, 0.375]
    assert [width for _, width in bars(root, "before")] == pytest.approx(
        [ROOM * p / 0.8 for p in expected], abs=0.05
    )


def test_a_token_is_crossed_out_only_by_the_filter_that_cuts_it() -> None:
    assert words(parsed(svg(FOUND)), "cut") == ["×"]
    both = Distribution(("a", "b"), (Column("f", "w", (1.0, None), 1, 0.0),), 0)
    assert words(parsed(svg(both)), "cut") == []


def test_the_number_stands_beside_the_longer_of_the_two_bars() -> None:
    """After the filter .2 of .8: the dashed .375 is longer, and the number must not lie in it."""
    root = parsed(svg(FOUND))
    number = [node for node in root.iter() if node.text == "0.200"][-1]
    left = next(float(n.get("x", "nan")) for n in root.iter() if n.text == "cold")
    assert float(number.get("x", "nan")) == pytest.approx(left + ROOM * 0.375 / 0.8 + 6, abs=0.6)


@pytest.mark.parametrize("drawn", [0, 1, 2])
def test_the_drawn_token_is_bold(drawn: int) -> None:
    found = Distribution(FOUND.tokens, FOUND.columns, drawn)
    bold = words(parsed(svg(found)), "drawn")
    assert bold == [FOUND.tokens[drawn], "model", "top-k", "cold"]


def test_long_tokens_and_formulas_are_cut_and_the_whole_formula_stays_in_the_title() -> None:
    what = "x" * 29 + "yz" * 10
    found = Distribution(("t" * 40,), (Column("f", what, (1.0,), 1, 0.0),), 0)
    root = parsed(svg(found))
    said = words(root)
    assert "t" * LONGEST in said and "t" * (LONGEST + 1) not in "".join(said)
    assert "x" * 29 + "y" in said
    assert [node.text for node in root.iter() if node.tag.endswith("title")] == [what]


def test_alone_it_brings_its_name_space_its_size_and_its_style() -> None:
    inside, alone = parsed(svg(FOUND)), parsed(svg(FOUND, alone=True))
    assert (inside.tag, alone.tag) == ("svg", "{http://www.w3.org/2000/svg}svg")
    _, _, width, height = alone.get("viewBox", "").split()
    assert (alone.get("width"), alone.get("height")) == (width, height)
    assert height == str(HEAD + 3 * ROW + 24)
    assert inside.get("width") is None and inside.get("viewBox") == alone.get("viewBox")
    assert "<style>" in svg(FOUND, alone=True) and "<style>" not in svg(FOUND)


def test_nothing_from_outside_becomes_markup() -> None:
    found = Distribution((HOSTILE,), (Column(HOSTILE, HOSTILE, (1.0,), 1, 0.0),), 0)
    for alone in (False, True):
        root = parsed(svg(found, alone=alone))
        assert not any(node.tag.endswith("script") for node in root.iter())
        assert words(root).count(HOSTILE) == 3
    whole = distribution_page(HOSTILE, HOSTILE, found)
    assert "<script" not in whole and "&lt;script&gt;" in whole


@given(st.lists(st.tuples(Text, Share, Share), min_size=1, max_size=5), Text, Text, st.booleans())
def test_any_text_and_any_shares_are_well_formed(
    rows: list[tuple[str, float | None, float | None]], name: str, what: str, alone: bool
) -> None:
    tokens, first, second = zip(*rows, strict=True)
    columns = [Column(name, what, shares, 1, 0.5) for shares in (first, second)]
    root = parsed(svg(Distribution(tokens, columns, 0), alone=alone))
    assert len(bars(root, "now")) == sum(p is not None for p in (*first, *second))
    assert len(bars(root, "before")) == sum(p is not None for p in first)
    cut = sum(a is not None and b is None for a, b in zip(first, second, strict=True))
    assert words(root, "cut") == ["×"] * cut
    for _, width in (*bars(root, "now"), *bars(root, "before")):
        assert 0 <= width <= ROOM + 0.05


def test_where_all_is_cut_or_zero_nothing_is_divided_by_it() -> None:
    found = Distribution(("a", "b"), (Column("f", "w", (0.0, None), 0, 0.0),), 0)
    assert bars(parsed(svg(found)), "now") == [(HEAD + 4, 0.0)]


def test_the_page_has_the_picture_and_the_same_numbers_as_a_table() -> None:
    whole = distribution_page("Filters & co", "Once upon", FOUND)
    assert svg(FOUND) in whole
    assert "<h1>Filters &amp; co</h1><p>Once upon</p>" in whole
    rows = [
        re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row) for row in re.findall(r"<tr>(.*?)</tr>", whole, re.S)
    ]
    assert rows == [
        ["token", "model", "top-k", "cold"],
        [" the", "0.5000", "0.6250", "0.8000"],
        [" a", "0.3000", "0.3750", "0.2000"],
        [" an", "0.2000", "×", "×"],
        ["tokens kept", "50,257", "2", "2"],
        ["entropy, nats", "1.250", "0.662", "0.500"],
        ["model", "softmax(z)"],
        ["top-k", "the k greatest"],
        ["cold", "z / T"],
    ]


def test_the_page_loads_nothing() -> None:
    whole = distribution_page("t", "p", FOUND)
    assert "default-src 'none'" in whole
    assert not re.search(r"<(script|link|img|iframe)\b|\bsrc=|url\(", whole)
