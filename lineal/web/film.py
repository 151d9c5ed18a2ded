"""The film of an episode in a run's report, where `lineal record` has left one in the folder."""

from __future__ import annotations

import base64
from pathlib import Path

from lineal.web.page import escape

KINDS = {"gif": "image/gif", "webp": "image/webp", "png": "image/png"}
MOST_BYTES = 4_000_000
"""A larger one is named and left where it is: the page should open at once."""


def film_section(folder: Path) -> str:
    """The newest film as part of the page, or its name; "" where there is none."""
    films = [path for kind in (*KINDS, "mp4") for path in folder.glob(f"*.{kind}")]
    if not films:
        return ""
    film = max(films, key=lambda path: path.stat().st_mtime)
    kind = KINDS.get(film.suffix[1:])
    if kind is None or film.stat().st_size > MOST_BYTES:
        return f"<h2>A recorded episode</h2><p>{escape(film.name)}, beside this page.</p>"
    content = base64.b64encode(film.read_bytes()).decode()
    return f'<h2>A recorded episode</h2><p><img alt="{escape(film.name)}" src="data:{kind};base64,{content}"></p>'
