"""`lineal tokenizer inspect|compare`: how a tokenizer cuts, what it holds, and several side by side."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lineal.cli_runs import print_table
from lineal.cli_tokenizer import asked
from lineal.errors import UsageError

if TYPE_CHECKING:
    from lineal.tokenizers import Tokenizer
    from lineal.tokenizers.inspecting import Cell, Measure

COLOURS = (24, 58, 29, 90, 130)
"""Backgrounds of the terminal's 256 colours, on which white can be read."""


@dataclass(frozen=True)
class InspectOptions:
    """What `lineal tokenizer inspect` can be told."""

    text: tuple[str, ...] = ()
    """Texts to be shown token by token."""
    input: tuple[str, ...] = ()
    """Files to be measured, each by itself: one a language tells what it costs."""
    word: tuple[str, ...] = ()
    """Words whose tree of merges is drawn (BPE)."""
    longest: int = 10
    """How many of the longest tokens are listed."""
    special: bool = False
    """Let the written form of a special token in a text become that token."""
    limit: float = 1.0
    """Megabytes read of each file; 0 reads all."""
    field: str = "text"
    """The field of a row of .jsonl."""
    html: str | None = None
    """Write a page to this file."""
    overwrite: bool = False
    """Replace the page that is there."""
    json: bool = False
    """Print one JSON object instead."""


def inspect(words: list[str]) -> int:
    """`lineal tokenizer inspect TOKENIZER --text TEXT`: tokens in colour, ids, and what the vocabulary is made of."""
    from lineal.tokenizers import inspecting
    from lineal.tokenizers.opening import open_tokenizer

    found = asked(words, InspectOptions(), "inspect")
    if found is None:
        return 0
    names, options = found
    if len(names) != 1:
        raise UsageError(
            f"{len(names)} tokenizers were given: lineal tokenizer compare A B --input FILE does several."
        )
    if options.longest < 0 or options.limit < 0:
        raise UsageError("--longest and --limit must be at least 0.")
    page = None if options.html is None else Path(options.html)
    if page is not None and page.exists() and not options.overwrite:
        raise UsageError(f"--html {page} is there already: choose another name, or say --overwrite.")
    tokenizer = open_tokenizer(names[0])
    shown = [(text, inspecting.cells(tokenizer, text, special=options.special)) for text in options.text]
    files = [(name, _measured(tokenizer, [name], options.limit, options.field)) for name in options.input]
    trees = [(word, _tree(tokenizer, word)) for word in options.word]
    if options.json:
        print(json.dumps(_facts(tokenizer, shown, files, trees, options.longest), ensure_ascii=False))
    else:
        _print(tokenizer, names[0], shown, files, trees, options)
    if page is not None:
        _write_page(page, names[0], tokenizer, shown, files, options.longest)
        print(f"wrote {page}", file=sys.stderr)
    return 0


def _measured(tokenizer: Tokenizer, files: Sequence[str], limit: float, field: str) -> Measure:
    from lineal.tokenizers.corpus.documents import read_documents
    from lineal.tokenizers.inspecting import measure

    return measure(tokenizer, read_documents(files, field=field, limit=int(limit * 1e6)))


def _tree(tokenizer: Tokenizer, word: str) -> list[str]:
    from lineal.tokenizers.bpe import BPE
    from lineal.tokenizers.inspecting import merge_tree, pieces_of, tree_lines

    found = pieces_of(tokenizer, word)
    model = None if found is None else found[0]
    if found is None or not isinstance(model, BPE):
        raise UsageError(f"--word {word}: only BPE has merges, and this is {_kind(tokenizer)}.")
    return [line for piece in found[1] for line in tree_lines(merge_tree(model, piece))]


def _kind(tokenizer: Tokenizer) -> str:
    return type(getattr(tokenizer, "model", tokenizer)).__name__


Shown = list[tuple[str, list["Cell"]]]
Files = list[tuple[str, "Measure"]]


def _facts(tokenizer: Tokenizer, shown: Shown, files: Files, trees: Any, longest: int) -> dict[str, Any]:
    from lineal.tokenizers import inspecting

    return {
        "kind": _kind(tokenizer),
        "vocab_size": tokenizer.vocab_size,
        "make_up": inspecting.make_up(tokenizer),
        "scripts": inspecting.scripts(tokenizer),
        "longest": [
            [at, inspecting.visible(token, " ")] for at, token in inspecting.longest(tokenizer, longest)
        ],
        "texts": [{"text": text, "cells": [[c.text, list(c.ids)] for c in cut]} for text, cut in shown],
        "files": {name: _row(figures) for name, figures in files},
        "trees": dict(trees),
    }


def _row(figures: Measure) -> dict[str, Any]:
    rates = {"bytes_per_token": figures.bytes_per_token, "characters_per_token": figures.characters_per_token}
    return {**asdict(figures), **rates, "megabytes_per_second": figures.speed}


def _print(
    tokenizer: Tokenizer, name: str, shown: Shown, files: Files, trees: Any, options: InspectOptions
) -> None:
    from lineal.tokenizers import inspecting

    print(f"{name}: {_kind(tokenizer)}, {tokenizer.vocab_size:,} ids")
    for text, cut in shown:
        count, size = sum(len(cell.ids) for cell in cut), len(text.encode("utf-8", "replace"))
        print(f"\n{coloured(cut, in_colour())}")
        print(" ".join(str(index) for cell in cut for index in cell.ids))
        print(
            f"{count} tokens, {len(text)} characters, {size} bytes: {size / max(1, count):.2f} bytes per token"
        )
    for word, lines in trees:
        print("\n".join([f"\n{inspecting.visible(word.encode('utf-8', 'surrogatepass'))}", *lines]))
    if files:
        print()
        print_table(FILE_HEAD, [[_end(file), *_cells(figures)] for file, figures in files])
        _print_losses(files)
    if not (shown or files or trees) or options.html is not None:
        print()
        _print_vocabulary(tokenizer, options.longest)


FILE_HEAD = ("file", "texts", "tokens", "bytes/token", "characters/token", "unknown", "lossless")


def _end(name: str, most: int = 60) -> str:
    """A path as a table can show it: of a long one the end, which tells it from others."""
    return name if len(name) <= most else "…" + name[1 - most :]


def _cells(figures: Measure) -> list[str]:
    return [
        f"{figures.texts:,}",
        f"{figures.tokens:,}",
        f"{figures.bytes_per_token:.3f}",
        f"{figures.characters_per_token:.3f}",
        f"{figures.unknown / max(1, figures.tokens):.2%}",
        f"{figures.lossless / max(1, figures.texts):.1%}",
    ]


def _print_losses(measured: Files) -> None:
    from lineal.tokenizers.inspecting import visible

    for name, figures in measured:
        if figures.loss is not None:
            before, after = (
                visible(part.encode("utf-8", "surrogatepass"))
                for part in (figures.loss.before, figures.loss.after)
            )
            print(
                f"{name}: the first loss, at character {figures.loss.place} of a text: {before} became {after}"
            )


def _print_vocabulary(tokenizer: Tokenizer, longest: int) -> None:
    from lineal.tokenizers import inspecting

    size = max(1, tokenizer.vocab_size)
    rows = [
        [name, f"{count:,}", f"{count / size:.1%}"] for name, count in inspecting.make_up(tokenizer).items()
    ]
    print_table(("vocabulary", "ids", ""), rows)
    scripts = list(inspecting.scripts(tokenizer).items())[:8]
    print("\nscripts     " + ", ".join(f"{name} {count:,}" for name, count in scripts))
    if longest:
        tokens = [
            f"{inspecting.visible(token)} ({at})" for at, token in inspecting.longest(tokenizer, longest)
        ]
        print("longest     " + ", ".join(tokens))


def in_colour(stream: Any = None) -> bool:
    """Whether colours may be printed: to a terminal, unless NO_COLOR is set."""
    stream = stream or sys.stdout
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def coloured(cells: Sequence[Cell], colour: bool) -> str:
    """A text by its tokens: on backgrounds that alternate, or between bars; what no token stands for between ~."""
    from lineal.web.tokens import readable

    parts, at = [], 0
    for cell in cells:
        text = readable(cell.text)
        if not cell.ids:
            parts.append(f"\x1b[9m{text}\x1b[0m" if colour else f"|~{text}~")
            continue
        # The background ends with the line, or a terminal would fill what is left of it.
        lines = text.split("\n")
        on = f"\x1b[97;48;5;{COLOURS[at % len(COLOURS)]}m"
        parts.append(
            "\n".join(f"{on}{line}\x1b[0m" if line else "" for line in lines) if colour else "|" + text
        )
        at += 1
    return "".join(parts) if colour else "".join(parts) + "|" * bool(parts)


def _write_page(
    page: Path, name: str, tokenizer: Tokenizer, shown: Shown, files: Files, longest: int
) -> None:
    from lineal.tokenizers import inspecting
    from lineal.tokenizers.base import write_whole
    from lineal.web.tokens import Shown as Text
    from lineal.web.tokens import Table, tokens_page

    makeup = [(sort, f"{count:,}") for sort, count in inspecting.make_up(tokenizer).items()]
    tokens = [(inspecting.visible(token), str(at)) for at, token in inspecting.longest(tokenizer, longest)]
    scripts = [(script, f"{count:,}") for script, count in inspecting.scripts(tokenizer).items()]
    tables = [
        Table("Files", FILE_HEAD, [(file, *_cells(figures)) for file, figures in files]),
        Table(f"Vocabulary: {_kind(tokenizer)}, {tokenizer.vocab_size:,} ids", ("sort", "ids"), makeup),
        Table("Scripts", ("script", "tokens"), scripts[:12]),
        Table("Longest tokens", ("token", "id"), tokens),
    ]
    texts = [Text(f"Text {at}", cells) for at, (_, cells) in enumerate(shown, 1)]
    write_whole(page, tokens_page(name, texts, tables))


@dataclass(frozen=True)
class CompareOptions:
    """What `lineal tokenizer compare` can be told."""

    input: tuple[str, ...] = ()
    """Files to encode with each: text, .gz, or rows of .jsonl."""
    limit: float = 1.0
    """Megabytes read of each file; 0 reads all."""
    field: str = "text"
    """The field of a row of .jsonl."""
    json: bool = False
    """Print one JSON object instead of a table."""


COMPARE_HEAD = (
    "tokenizer",
    "ids",
    "tokens",
    "bytes/token",
    "characters/token",
    "unknown",
    "lossless",
    "MB/s",
)


def compare(words: list[str]) -> int:
    """`lineal tokenizer compare A B ... --input FILE ...`: several tokenizers on the same texts, one thread."""
    from lineal.tokenizers.opening import open_tokenizer

    found = asked(words, CompareOptions(), "compare")
    if found is None:
        return 0
    names, options = found
    if not options.input:
        raise UsageError("nothing to compare them on: give --input FILE ...")
    tokenizers = [(name, open_tokenizer(name)) for name in names]
    measured = [(name, _twice(tokenizer, options)) for name, tokenizer in tokenizers]
    if options.json:
        rows = {name: {"vocab_size": tokenizer.vocab_size} for name, tokenizer in tokenizers}
        print(
            json.dumps({name: rows[name] | _row(figures) for name, figures in measured}, ensure_ascii=False)
        )
        return 0
    rows = []
    for (name, tokenizer), (_, figures) in zip(tokenizers, measured):
        rows.append([_end(name), f"{tokenizer.vocab_size:,}", *_cells(figures)[1:], f"{figures.speed:.1f}"])
    print_table(COMPARE_HEAD, rows)
    size = measured[0][1]
    print(
        f"on {size.texts:,} texts, {size.bytes / 1e6:.2f} MB; MB/s of encoding by one thread, the second time round"
    )
    _print_losses(measured)
    return 0


def _twice(tokenizer: Tokenizer, options: CompareOptions) -> Measure:
    """Measured the second time: the first fills caches, and whoever comes first would pay for what is read."""
    _measured(tokenizer, options.input, options.limit, options.field)
    return _measured(tokenizer, options.input, options.limit, options.field)
