"""The picture of filters: bars as long as their probabilities, what is cut, and nothing hostile."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from lineal.web.distribution import Column, Distribution, distribution_page, svg

FOUND = Distribution(
    ["a", "<b>", "c" * 40],
    [
        Column("model", "softmax(logit)", [0.5, 0.3, 0.2], 3, 1.03),
        Column("top_k", "the 2 most probable", [0.625, 0.375, None], 2, 0.66),
    ],
    1,
)
SPACE = "{http://www.w3.org/2000/svg}"


def widths(kind: str) -> list[float]:
    tree = ElementTree.fromstring(svg(FOUND, alone=True))
    return [float(r.get("width", "")) for r in tree.iter(f"{SPACE}rect") if r.get("class") == kind]


def test_bars_are_as_long_as_probabilities() -> None:
    now = widths("now")
    assert len(now) == 5
    assert [w / now[0] for w in now] == [
        pytest.approx(p / 0.5, abs=2e-3) for p in (0.5, 0.3, 0.2, 0.625, 0.375)
    ]


def test_what_there_was_before_is_dashed_beside_it() -> None:
    assert [w / widths("now")[0] for w in widths("before")] == [
        pytest.approx(p / 0.5, abs=2e-3) for p in (0.5, 0.3, 0.2)
    ]


def test_what_is_cut_is_marked_once() -> None:
    assert svg(FOUND).count("×") == 1
    assert "2 kept, 0.66 nats" in svg(FOUND)


def test_the_token_that_is_drawn_is_bold() -> None:
    tree = ElementTree.fromstring(svg(FOUND, alone=True))
    bold = [t.text for t in tree.iter(f"{SPACE}text") if t.get("class") == "drawn"]
    assert bold == ["<b>", "model", "top_k"]


def test_long_tokens_are_shortened_and_all_is_escaped() -> None:
    page = distribution_page("Filters", "say <i>", FOUND)
    assert "<b>" not in page and "<i>" not in page
    assert "say &lt;i&gt;" in page and "c" * 19 not in svg(FOUND)


def test_the_page_has_the_numbers_and_the_formulas() -> None:
    page = distribution_page("Filters", "p", FOUND)
    for part in ("0.6250", "0.3750", "tokens kept", "entropy, nats", "the 2 most probable"):
        assert part in page
