"""`lineal vectors`: near, analogy, evaluate, plot, convert."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from lineal.cli import HELP, Command
from lineal.cli_options import help_lines, parse
from lineal.cli_runs import positionals, print_table
from lineal.errors import UsageError

if TYPE_CHECKING:
    from lineal.representations.vectors import Vectors

ACTIONS = {
    "near": Command(
        "near VECTORS WORD ...", "the words nearest to one, or to a sum of several", "lineal.cli_vectors:near"
    ),
    "analogy": Command("analogy VECTORS A B C", "A is to B as C is to ...", "lineal.cli_vectors:analogy"),
    "evaluate": Command(
        "evaluate VECTORS --analogies FILE --pairs FILE",
        "analogies by section, word similarity",
        "lineal.cli_vectors_look:evaluate",
    ),
    "plot": Command(
        "plot VECTORS WORD ... --out map.svg",
        "a map of words: picture or page",
        "lineal.cli_vectors_look:plot",
    ),
    "convert": Command(
        "convert VECTORS OUT", "between formats; .safetensors opens at once", "lineal.cli_vectors:convert"
    ),
}
"""What can be done with vectors."""
OPENED = (
    "VECTORS is a file: word2vec's text or binary form, GloVe's text, fastText's .vec (each also .gz), or .safetensors of "
    "lineal vectors convert."
)


@dataclass(frozen=True)
class Reading:
    """How the file is read."""

    format: str | None = None
    """word2vec, word2vec-binary, glove or lineal (default: the file tells)."""
    limit: int | None = None
    """Read so many words only, which are the most frequent in most files."""
    duplicates: Literal["refuse", "first"] = "refuse"
    """Of a word that is there twice, keep the first vector, or refuse the file."""
    spaces: bool = False
    """Let words have spaces, as in some of GloVe's files."""


def vectors(words: list[str]) -> int:
    """`lineal vectors ACTION ...`."""
    import difflib

    if not words or words[0] in (*HELP, "help"):
        lines = ["lineal vectors ACTION ... (lineal vectors ACTION --help explains one)", ""]
        lines += [f"  {action.usage:<48} {action.summary}" for action in ACTIONS.values()]
        print("\n".join([*lines, "", OPENED]))
        return 0 if words else 2
    if words[0] not in ACTIONS:
        close = difflib.get_close_matches(words[0], ACTIONS, n=1, cutoff=0.5)
        hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(ACTIONS)}."
        raise UsageError(f"lineal vectors has no action {words[0]!r}; {hint}")
    return ACTIONS[words[0]].load()(words[1:]) or 0


def asked(words: list[str], config: Any, action: str) -> tuple[list[str], Any] | None:
    """The names before the options, and the options; None after help was printed."""
    names, rest = positionals(words)
    usage = f"lineal vectors {ACTIONS[action].usage}"
    if any(word in HELP for word in rest):
        print("\n".join([f"{usage}: {ACTIONS[action].summary}", *help_lines(config)]))
        return None
    if not names:
        raise UsageError(f"no file of vectors was named: {usage}")
    return names, parse(config, rest)


def opened(name: str, reading: Reading) -> Vectors:
    """The vectors of a file."""
    from lineal.representations.files import load_vectors

    return load_vectors(
        name, reading.format, limit=reading.limit, duplicates=reading.duplicates, spaces=reading.spaces
    )


def free(path: str | Path, overwrite: bool) -> Path:
    """The path of a file to be written; UsageError where one is there that is not to be replaced."""
    if Path(path).exists() and not overwrite:
        raise UsageError(f"{path} is there already: choose another name, or say --overwrite.")
    return Path(path)


@dataclass(frozen=True)
class Near:
    """What is looked for."""

    minus: tuple[str, ...] = ()
    """Words whose vectors are taken off."""
    count: int = 10
    """How many neighbours."""
    json: bool = False
    """Print JSON instead of a table."""


@dataclass(frozen=True)
class NearOptions:
    """Everything `lineal vectors near` can be told."""

    near: Near = field(default_factory=Near)
    reading: Reading = field(default_factory=Reading)


def near(words: list[str]) -> int:
    """`lineal vectors near VECTORS WORD ... --minus WORD ...`: neighbours by cosine."""
    found = asked(words, NearOptions(), "near")
    if found is None:
        return 0
    from lineal.representations.neighbours import near as nearest

    (name, *plus), options = found
    if not plus:
        raise UsageError(f"no word was named: lineal vectors {ACTIONS['near'].usage}")
    neighbours = nearest(opened(name, options.reading), plus, options.near.count, minus=options.near.minus)
    show(neighbours, "cosine", options.near.json)
    return 0


@dataclass(frozen=True)
class Analogy:
    """What is looked for."""

    method: Literal["add", "mul"] = "add"
    """add (3CosAdd) or mul (3CosMul)."""
    count: int = 5
    """How many answers."""
    json: bool = False
    """Print JSON instead of a table."""


@dataclass(frozen=True)
class AnalogyOptions:
    """Everything `lineal vectors analogy` can be told."""

    analogy: Analogy = field(default_factory=Analogy)
    reading: Reading = field(default_factory=Reading)


def analogy(words: list[str]) -> int:
    """`lineal vectors analogy VECTORS man king woman`."""
    found = asked(words, AnalogyOptions(), "analogy")
    if found is None:
        return 0
    from lineal.representations.analogies import analogy as answers

    (name, *three), options = found
    if len(three) != 3:
        raise UsageError(
            f"{len(three)} words, where an analogy has three: lineal vectors analogy VECTORS man king woman"
        )
    chosen = options.analogy
    made = answers(opened(name, options.reading), *three, count=chosen.count, method=chosen.method)
    show(made, "score", chosen.json)
    return 0


def show(neighbours: Sequence[tuple[str, float]], what: str, as_json: bool) -> None:
    """Words and numbers as a table or as JSON."""
    if as_json:
        print(json.dumps([{"word": word, what: score} for word, score in neighbours], ensure_ascii=False))
    else:
        print_table(("word", what), [[word, f"{score:.4f}"] for word, score in neighbours])


@dataclass(frozen=True)
class Convert:
    """What is written."""

    to: str | None = None
    """word2vec, word2vec-binary, glove or lineal (default: by the name of OUT)."""
    overwrite: bool = False
    """Replace the file that is there."""


@dataclass(frozen=True)
class ConvertOptions:
    """Everything `lineal vectors convert` can be told."""

    convert: Convert = field(default_factory=Convert)
    reading: Reading = field(default_factory=Reading)


def convert(words: list[str]) -> int:
    """`lineal vectors convert VECTORS OUT`: .vec or .txt, .bin, glove*.txt, .safetensors."""
    found = asked(words, ConvertOptions(), "convert")
    if found is None:
        return 0
    from lineal.representations.files import save_vectors

    names, options = found
    if len(names) != 2:
        raise UsageError(
            f"{len(names)} files, where two are needed: lineal vectors {ACTIONS['convert'].usage}"
        )
    out = free(names[1], options.convert.overwrite)
    made = opened(names[0], options.reading)
    save_vectors(out, made, options.convert.to)
    print(f"{out}: {len(made):,} words, {made.dimensions} dimensions", file=sys.stderr)
    return 0
