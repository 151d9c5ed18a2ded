"""What was filled in and the probe of the pronoun: every word and number is there, and names are harmless."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from lineal.web.fill import fill_section
from lineal.web.read import RunView

FILLED = {"step": 3, "kind": "fill", "text": "the [MASK] <b>", "words": [[["cat", 0.5], ["<i>", 0.25]]]}
PROBE = {
    "step": 3,
    "kind": "coreference",
    "sentence": "The animal was there because {} was too {}.",
    "nouns": ["animal", "street"],
    "rows": [
        {"cause": "tired", "chosen": [0.9, 0.1], "attention": [[0.2, 0.4], [0.1, 0.1]]},
        {"cause": "wide", "chosen": [0.6, 0.4], "attention": [[0.3, 0.3], [0.1, 0.2]]},
    ],
}


def view(*samples: dict[str, Any]) -> RunView:
    """A run that logged these samples."""
    return RunView(Path("r"), "bert", {}, {}, samples=list(samples))


def test_words_and_the_probe_are_shown() -> None:
    page = fill_section(view(FILLED, PROBE))
    assert "cat 0.50, &lt;i&gt; 0.25" in page and "the [MASK] &lt;b&gt;" in page
    assert "<td>0.90</td><td>0.10</td>" in page and "1 of 2 rows have the noun that makes sense" in page
    start = page.index("<svg")
    picture = ElementTree.fromstring(page[start : page.index("</svg>") + 6])
    squares = [element for element in picture.iter() if element.tag == "rect"]
    assert len(squares) == 2 * 2 * 2
    said = {element.text for element in picture.iter() if element.tag == "text"}
    assert {"40%", "animal, too tired", "street, too wide"} <= said


def test_a_run_that_filled_nothing_in_has_no_section() -> None:
    assert fill_section(view({"step": 1, "kind": "eval"})) == ""
    assert "too tired" not in fill_section(view(FILLED))
