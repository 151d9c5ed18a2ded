"""A map of words as one HTML file that one can move, zoom, search and point at; nothing is loaded, nothing is sent."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Sequence
from pathlib import Path

from lineal.web.page import CONTROLS, escape
from lineal.web.word_map import Spot

Near = Sequence[Sequence[tuple[int, float]]]


def map_page(title: str, spots: Sequence[Spot], near: Near, arrows: Sequence[tuple[str, str]] = ()) -> str:
    """The page: `near[i]` are the neighbours of spot i on the map, as numbers of spots and cosines; arrows as in `map_svg`.

    Words come from files that anybody may have written: they travel as JSON in which < is escaped, are shown as text only, and the
    policy allows the page's own script and style, by their hashes, and nothing else.
    """
    template = (Path(__file__).parent / "word_map.html").read_text(encoding="utf-8")
    places = {spot.word: at for at, spot in enumerate(spots)}
    data = {
        "words": [CONTROLS.sub("\ufffd", spot.word) for spot in spots],
        "x": [round(spot.x, 5) for spot in spots],
        "y": [round(spot.y, 5) for spot in spots],
        "near": [[[j, round(score, 4)] for j, score in part] for part in near],
        "arrows": [[places[one], places[other]] for one, other in arrows],
    }
    # In a script no character reference is read, so nothing may end it.
    written = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    written = written.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
    policy = (
        f"default-src 'none'; style-src 'sha256-{_hash(template, '<style>', '</style>')}'; "
        f"script-src 'sha256-{_hash(template, '<script>', '</script>')}'; base-uri 'none'; form-action 'none'"
    )
    parts = {"POLICY": policy, "TITLE": escape(title), "DATA": written}
    return re.sub("|".join(parts), lambda match: parts[match[0]], template)


def _hash(template: str, start: str, end: str) -> str:
    inner = template.split(start, 1)[1].split(end, 1)[0]
    return base64.b64encode(hashlib.sha256(inner.encode()).digest()).decode()
