"""An HTML page that is one file: no script, no network, everything that comes from outside escaped."""

from __future__ import annotations

import base64
import hashlib
import html
import re
from pathlib import Path

CONTROLS = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]"
)
"""Characters that HTML forbids, hides or uses to reorder what stands beside them."""


def escape(value: object) -> str:
    """Text that is safe between tags and inside quoted attributes; controls become the replacement sign."""
    return html.escape(CONTROLS.sub("\ufffd", str(value)), quote=True)


def page(title: str, body: str, rules: str = "", *, pictures: bool = False) -> str:
    """A whole document around `body`, which must be escaped already. rules: more of the style sheet, by the program.
    pictures: allow those that are part of the page itself.

    The content-security policy allows this one style sheet, by its hash, and nothing else: should a completion
    ever slip through unescaped, it still cannot run, load or send anything.
    """
    style = (Path(__file__).parent / "page.css").read_text(encoding="utf-8") + rules
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    if pictures:
        policy += "; img-src data:"
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n<meta name="referrer" content="no-referrer">\n'
        f"<title>{escape(title)}</title>\n<style>{style}</style>\n</head>\n<body>\n{body}\n</body>\n</html>\n"
    )


def table(head: list[str], rows: list[list[str]], classes: str = "") -> str:
    """A table of text: the first column names the row, the others are numbers or words."""
    top = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in head)
    lines = [
        f'<tr><th scope="row">{escape(row[0])}</th>'
        + "".join(f"<td>{escape(cell)}</td>" for cell in row[1:])
        + "</tr>"
        for row in rows
    ]
    top = f"<thead><tr>{top}</tr></thead>" if head else ""
    return f'<div class="wide"><table class="{classes}">{top}<tbody>{"".join(lines)}</tbody></table></div>'


def show(value: object) -> str:
    """A value as a person reads it: four digits, thousands grouped, None as a dash."""
    if value is None or value == () or value == []:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1e5 and value.is_integer() else f"{value:.4g}"
    if isinstance(value, list | tuple):
        return " ".join(map(show, value))
    return str(value)
