"""The page of attention maps: every weight where it belongs, nothing that runs, nothing unescaped."""

from __future__ import annotations

import re

from lineal.web.attention import FAINT, Maps, attention_page

HOSTILE = "<script>alert(1)</script>"


def page(weights: list[list[float]] | None = None) -> str:
    """Two layers of two heads, two queries and three keys."""
    head = weights or [[0.5, 0.5, 0.0], [0.1, 0.2, 0.7]]
    parts = [Maps("Across", ["a", HOSTILE], ["x", "y", "\u202ez"], [[head, head], [head, head]])]
    return attention_page(HOSTILE, "b & c", parts)


def test_a_picture_for_each_layer_and_head() -> None:
    text = page()
    assert text.count("<svg") == 4 and text.count("<h3>Layer") == 2
    for layer in (1, 2):
        for head in (1, 2):
            assert f'aria-label="Across, layer {layer}, head {head}"' in text


def test_squares_stand_where_their_tokens_are_and_are_as_dark_as_their_weights() -> None:
    first = page().split("</svg>")[0]
    squares = re.findall(
        r'<rect x="(\d+)" y="(\d+)" [^>]*fill-opacity="([\d.]+)"><title>(.*?)</title>', first
    )
    # One weight is 0 and is not drawn.
    assert [float(s[2]) for s in squares] == [0.5, 0.5, 0.1, 0.2, 0.7]
    xs, ys = sorted({int(s[0]) for s in squares}), sorted({int(s[1]) for s in squares})
    assert [(xs.index(int(x)), ys.index(int(y))) for x, y, *_ in squares] == [
        (0, 0),
        (1, 0),
        (0, 1),
        (1, 1),
        (2, 1),
    ]
    assert squares[0][3] == "a → x: 0.500"


def test_faint_weights_are_left_out() -> None:
    weights = [[1 - FAINT / 2, FAINT / 2, 0.0], [0.0, 0.0, 1.0]]
    assert page(weights).count("<title>") == 4 * 2 + 1


def test_hostile_tokens_stay_text_and_nothing_runs() -> None:
    text = page()
    assert HOSTILE not in text and "&lt;script&gt;" in text and "\u202e" not in text
    assert "style=" not in text and "<script" not in text and "default-src 'none'" in text
