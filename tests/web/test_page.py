"""Pages are one file, run nothing, load nothing, and show hostile text as text."""

from __future__ import annotations

import base64
import hashlib
import re
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lineal.web.page import escape, page, show, table

VOID = {"meta", "br", "path", "circle", "line", "text"}


class Balanced(HTMLParser):
    """Collects tags, attributes and text, and fails on a tag that closes another."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.said: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.said.append(data)


def read(text: str) -> Balanced:
    parser = Balanced()
    parser.feed(text)
    parser.close()
    assert not parser.open
    return parser


@given(st.text())
def test_escaped_text_is_only_text(text: str) -> None:
    parser = read(f'<p title="{escape(text)}">{escape(text)}</p>')
    assert parser.tags == ["p"]
    assert [name for name, _ in parser.attributes] == ["title"]


@given(st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cf", "Cs"])))
def test_harmless_text_comes_back_whole(text: str) -> None:
    assert "".join(read(f"<p>{escape(text)}</p>").said) == text


@pytest.mark.parametrize("bad", ["\x1b[31m", "\x00", "\u202egnp.exe", "\x9b1m", "\ud800", "\u2066x"])
def test_controls_are_shown_as_replaced(bad: str) -> None:
    shown = escape(f"a{bad}b")
    assert "\ufffd" in shown
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]", shown)


def test_a_page_allows_its_own_style_and_nothing_else() -> None:
    text = page("a <title>", "<p>hello</p>")
    style = re.search(r"<style>(.*)</style>", text, re.S)
    assert style is not None
    digest = base64.b64encode(hashlib.sha256(style[1].encode()).digest()).decode()
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', text)
    assert policy is not None
    assert (
        policy[1] == f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    )
    parser = read(text)
    assert not {"script", "link", "img", "iframe", "object", "embed", "form"} & set(parser.tags)
    assert not [name for name, _ in parser.attributes if name.startswith("on") or name in ("style", "src")]
    assert "a &lt;title&gt;" in text


def test_the_style_needs_no_network() -> None:
    text = page("x", "")
    assert "@import" not in text and "url(" not in text
    assert "prefers-color-scheme: dark" in text and "@media print" in text


def test_a_table_escapes_every_cell() -> None:
    parser = read(table(["<a>", "b"], [["<i>", "<script>1</script>"]], "numbers"))
    assert "script" not in parser.tags
    assert "<script>1</script>" in parser.said


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"),
        ((), "–"),
        (True, "yes"),
        (False, "no"),
        (1234567, "1,234,567"),
        (0.123456, "0.1235"),
        (3e-4, "0.0003"),
        (250000.0, "250,000"),
        (float("nan"), "nan"),
        (("a", 1), "a 1"),
        ("word", "word"),
    ],
)
def test_values_are_shown_as_people_read_them(value: object, text: str) -> None:
    assert show(value) == text
