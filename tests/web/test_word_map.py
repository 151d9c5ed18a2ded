"""Maps of words: well formed, each label its own place, one scale, hostile words harmless, a policy that names what runs."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
import xml.etree.ElementTree as ET

import pytest

from lineal.web.word_map import Spot, bars_svg, map_svg
from lineal.web.word_page import map_page

HOSTILE = ["</script><script>alert(1)</script>", "<!--", "a&b\"'", "\u202ereversed", "\u2028line", "nul\x00"]
SVG = "{http://www.w3.org/2000/svg}"


def spots(words: list[str]) -> list[Spot]:
    return [Spot(word, math.cos(i) * 3, math.sin(i), i % 3) for i, word in enumerate(words)]


def test_a_map_has_every_word_and_arrow_and_is_well_formed() -> None:
    words = [f"word{i}" for i in range(30)]
    root = ET.fromstring(map_svg(spots(words), [("word1", "word2"), ("word3", "word3")], "a title"))
    assert [t.text for t in root.iter(f"{SVG}text")] == [*words, "a title"]
    assert len(list(root.iter(f"{SVG}circle"))) == 30
    assert len(list(root.iter(f"{SVG}line"))) == 2


def test_both_axes_have_one_scale() -> None:
    square = [Spot("a", 0, 0), Spot("b", 2, 0), Spot("c", 0, 1), Spot("d", 2, 1)]
    at = [
        (float(c.get("cx", 0)), float(c.get("cy", 0)))
        for c in ET.fromstring(map_svg(square)).iter(f"{SVG}circle")
    ]
    assert at[1][0] - at[0][0] == pytest.approx(2 * (at[0][1] - at[2][1]), abs=0.2)
    assert all(0 <= x <= 960 and 0 <= y <= 640 for x, y in at)


def test_labels_of_close_words_move_apart() -> None:
    close = [Spot("left", 0, 0), Spot("right", 0.001, 0), Spot("far", 100, 50)]
    labels = [
        (float(t.get("x", 0)), float(t.get("y", 0))) for t in ET.fromstring(map_svg(close)).iter(f"{SVG}text")
    ]
    assert math.dist(labels[0], labels[1]) > 15


def test_one_place_for_all_is_no_error() -> None:
    ET.fromstring(map_svg([Spot("a", 1, 1), Spot("b", 1, 1)]))


def test_hostile_words_stay_text() -> None:
    root = ET.fromstring(map_svg(spots(HOSTILE), [], HOSTILE[0]))
    assert next(t.text for t in root.iter(f"{SVG}text")) == HOSTILE[0]
    ET.fromstring(bars_svg(HOSTILE[0], [(word, 0.5) for word in HOSTILE]))


def test_bars_are_as_long_as_cosines() -> None:
    root = ET.fromstring(bars_svg("king", [("queen", 0.8), ("man", 0.4), ("not", -0.2)]))
    wide = [float(r.get("width", 0)) for r in root.iter(f"{SVG}rect")][1:]
    assert wide[0] == pytest.approx(2 * wide[1], rel=0.01) and wide[0] == pytest.approx(4 * wide[2], rel=0.01)
    assert len({r.get("fill") for r in list(root.iter(f"{SVG}rect"))[1:]}) == 2


def test_a_page_carries_its_data_and_allows_its_own_script_only() -> None:
    words = ["DATA", "TITLE", *HOSTILE]
    near = [[(0, 0.5)] for _ in words]
    page = map_page("POLICY <b>", spots(words), near, [("DATA", "TITLE")])
    assert page.count("<script") == 2 and page.count("</script>") == 2
    assert "<b>" not in page.split("<style>")[0] and "<title>POLICY &lt;b&gt;</title>" in page
    blob = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.S)
    assert blob
    data = json.loads(blob[1])
    assert data["words"][:3] == ["DATA", "TITLE", HOSTILE[0]] and data["arrows"] == [[0, 1]]
    assert "\u202e" not in page and "\u2028" not in page and "\x00" not in page
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)
    assert policy and "default-src 'none'" in policy[1] and "unsafe" not in policy[1]
    for tag in ("style", "script"):
        inner = re.search(rf"<{tag}>(.*?)</{tag}>", page, re.S)
        assert inner
        digest = base64.b64encode(hashlib.sha256(inner[1].encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy[1]


def test_the_page_works_in_a_browser(tmp_path) -> None:
    sync = pytest.importorskip("playwright.sync_api")
    words = ["king", "queen", "apple", "</script>"]
    near = [[((i + 1) % 4, 0.5)] for i in range(4)]
    (tmp_path / "map.html").write_text(map_page("map", spots(words), near, [("king", "queen")]))
    with sync.sync_playwright() as playwright:
        try:
            browser = playwright.chromium.launch()
        except sync.Error:
            pytest.skip("no browser is installed")
        page = browser.new_page()
        wrong: list[str] = []
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
        page.goto(f"file://{tmp_path}/map.html")
        page.fill("#search", "que")
        assert page.inner_text("#card").split() == ["queen", "apple", "0.500"]
        page.fill("#search", "")
        page.focus("#map")
        for key in ("ArrowLeft", "+", "-", "0", "Escape"):
            page.keyboard.press(key)
        page.fill("#search", "</script>")
        assert page.inner_text("#card b") == "</script>"
        assert wrong == []
        browser.close()
