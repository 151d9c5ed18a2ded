"""The verbs `embed` (texts as vectors) and `fill` (hidden words filled in)."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from lineal.cli_options import help_lines, parse
from lineal.cli_predict import input_lines, one_source
from lineal.cli_runs import positionals
from lineal.errors import DataError, ModelError, UsageError
from lineal.train.options import at_least

if TYPE_CHECKING:
    from lineal.generate.fill import Filler
    from lineal.train.embedding import Near

EMBED = "embed RUN [TEXT ...] [--option value ...] < FILE > vectors.npy"
FILL = 'fill RUN "the [MASK] sat" ... [--option value ...]'
BLOCK = 1024
"""Texts that are read and embedded before the next."""


@dataclass(frozen=True)
class EmbedOptions:
    """Where texts come from, and what their vectors are."""

    data: str | None = None
    """Rows with a column of text: JSONL, CSV, TSV, TXT (a text a line), Parquet. Without it: lines of standard input."""
    text_field: str = "text"
    """Name of the text's column."""
    out: str | None = None
    """A .npy file to write; without it: standard output."""
    pooling: str = "mean"
    """mean (over the text's tokens), cls (the first token) or last (the last one)."""
    layers: tuple[int, ...] = (-1,)
    """Layers whose states are put side by side: 0 is the embeddings, -1 the last layer."""
    nearest: str | None = None
    """Print the texts nearest to this one, with their cosine, instead of vectors."""
    count: int = 10
    """How many of the nearest are printed."""
    device: str = "auto"
    """auto, cpu, cuda or mps."""
    threads: int = 0
    """CPU threads; 0 leaves torch's own choice."""

    def __post_init__(self) -> None:
        at_least(self, count=1, threads=0)


def embed(words: list[str]) -> int:
    """`lineal embed RUN < file > vectors.npy`: a row of float32 for each line."""
    names, rest = positionals(words)
    if any(word in rest for word in ("--help", "-h", "--help-all")):
        print("\n".join([f"lineal {EMBED}", *help_lines(EmbedOptions())]))
        return 0
    if not names:
        raise UsageError(f"which model? lineal {EMBED}")
    options = parse(EmbedOptions(), rest)
    if len(names) == 1 and options.data is None and sys.stdin.isatty():
        raise UsageError(f"nothing to embed: give texts in quotes, --data FILE, or a file: lineal {EMBED}")
    if options.nearest is None and options.out is None and sys.stdout.isatty():
        raise UsageError(
            f"vectors are no text: give --out vectors.npy, or send them to a file: lineal {EMBED}"
        )
    one_source(names[1:], options.data)
    embedder = _embedder(names[0], options)
    if options.nearest is not None:
        _print_nearest(embedder, list(_texts(names[1:], options)), options)
        return 0
    _write(embedder, _texts(names[1:], options), options.out)
    return 0


def _embedder(name: str, options: EmbedOptions) -> Near:
    import torch

    from lineal.train.embedding import load_embedder

    if options.threads:
        torch.set_num_threads(options.threads)
    return load_embedder(name, options.device, pooling=options.pooling, layers=options.layers)


def _texts(given: list[str], options: EmbedOptions) -> Iterator[str]:
    if given:
        numbered: Iterator[tuple[str, str]] = ((f"text {i}", text) for i, text in enumerate(given, 1))
    elif options.data is not None:
        from lineal.train.data import map_fields, read_rows

        rows = read_rows(options.data, text_field=options.text_field)
        rows = map_fields(rows, {"text": options.text_field})
        numbered = zip(rows.places, (row["text"] for row in rows.rows), strict=True)
    else:
        numbered = input_lines()
    for place, text in numbered:
        if not text.strip():
            raise DataError(
                f"{place}: the text is empty: it has no vector. Take the line out, in both files."
            )
        yield text


def _write(embedder: Near, texts: Iterator[str], out: str | None) -> None:
    import io

    import numpy as np

    from lineal.train.files import replace_file

    blocks = []
    while block := list(islice(texts, BLOCK)):
        blocks.append(embedder(block).numpy())
    if not blocks:
        raise DataError("there is no text to embed: the input is empty.")
    held = io.BytesIO()
    # No object array can come of this: nothing is pickled.
    np.save(held, np.concatenate(blocks), allow_pickle=False)
    if out is None:
        sys.stdout.buffer.write(held.getbuffer())
        sys.stdout.buffer.flush()
        return
    try:
        replace_file(Path(out), held.getvalue())
    except OSError as error:
        raise UsageError(
            f"--out {out} cannot be written ({error.strerror}): choose another place."
        ) from error


def _print_nearest(embedder: Near, texts: list[str], options: EmbedOptions) -> None:
    from lineal.train.console import clean

    if not texts:
        raise DataError("there is no text to compare with: the input is empty.")
    for text, cosine in embedder.nearest(options.nearest or "", texts, options.count):
        print(f"{cosine:.4f}  {clean(text)}")


@dataclass(frozen=True)
class FillOptions:
    """How many words."""

    top: int = 5
    """Words shown for each [MASK], the likeliest first."""
    device: str = "auto"
    """auto, cpu, cuda or mps."""
    threads: int = 0
    """CPU threads; 0 leaves torch's own choice."""

    def __post_init__(self) -> None:
        at_least(self, top=1, threads=0)


def fill(words: list[str]) -> int:
    """`lineal fill RUN "the [MASK] sat"`: the likeliest words of each gap, with their probabilities."""
    names, rest = positionals(words)
    if any(word in rest for word in ("--help", "-h", "--help-all")):
        print("\n".join([f"lineal {FILL}", *help_lines(FillOptions())]))
        return 0
    if not names:
        raise UsageError(f"which model? lineal {FILL}")
    options = parse(FillOptions(), rest)
    if len(names) == 1 and sys.stdin.isatty():
        raise UsageError(f"nothing to fill in: give a text with [MASK] in it: lineal {FILL}")
    filler = _filler(names[0], options)
    from lineal.train.console import clean

    for text in names[1:] or (line for _, line in input_lines()):
        for gap in filler.fill(text, options.top):
            print("  ".join(f"{clean(word)} {p:.3f}" for word, p in gap), flush=True)
    return 0


def _filler(name: str, options: FillOptions) -> Filler:
    import torch

    from lineal.generate.fill import Filler
    from lineal.models.hf.bert import load_bert
    from lineal.tokenizers.opening import open_tokenizer
    from lineal.tokenizers.pipeline import Pipeline
    from lineal.train.build import model_folder
    from lineal.train.device import pick_device

    if options.threads:
        torch.set_num_threads(options.threads)
    folder = model_folder(name)
    tokenizer = open_tokenizer(folder)
    if not isinstance(tokenizer, Pipeline):
        raise ModelError(f"{name}: a {type(tokenizer).__name__} has no [MASK]: only a BERT fills words in.")
    return Filler(load_bert(folder, pick_device(options.device)), tokenizer)
