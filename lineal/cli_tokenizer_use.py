"""`lineal tokenizer encode|decode|convert`: texts to ids, ids to texts, and files for other libraries."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lineal.cli_tokenizer import asked
from lineal.errors import DataError, UsageError

if TYPE_CHECKING:
    from lineal.tokenizers import Tokenizer


@dataclass(frozen=True)
class EncodeOptions:
    """What `lineal tokenizer encode` can be told."""

    text: tuple[str, ...] = ()
    """Texts, each in quotes."""
    input: tuple[str, ...] = ()
    """Files: a text a line, or a row of .jsonl; - is standard input (read when nothing else is given)."""
    field: str = "text"
    """The field of a row of .jsonl."""
    jsonl: bool = False
    """The input is rows of JSON, whatever its name (standard input has none)."""
    tokens: bool = False
    """Print objects that have the tokens too, made readable."""
    offsets: bool = False
    """Print objects that have the stretch of each token too, in characters."""
    special: bool = False
    """Let the written form of a special token in a text become that token; put nothing around it."""
    template: bool = False
    """Put the tokenizer's template around each text ([CLS] ... [SEP])."""


def encode(words: list[str]) -> int:
    """`lineal tokenizer encode TOKENIZER --text TEXT`: a JSON list of ids a text, or an object, one a line."""
    found = asked(words, EncodeOptions(), "encode")
    if found is None:
        return 0
    names, options = found
    tokenizer = _open(names, "encode")
    if options.template and (options.tokens or options.offsets):
        raise UsageError(
            "--template does not go with --tokens or --offsets: what it puts in stands nowhere in the text."
        )
    for text in _texts(options):
        print(json.dumps(_encoded(tokenizer, text, options), ensure_ascii=False))
    return 0


def _encoded(tokenizer: Tokenizer, text: str, options: EncodeOptions) -> Any:
    from lineal.tokenizers.inspecting import located, token_bytes, visible

    if options.tokens or options.offsets:
        places = list(located(tokenizer, text, options.special))
        ids = [token for _, _, token in places]
        row: dict[str, Any] = {"ids": ids}
        if options.tokens:
            row["tokens"] = [visible(token_bytes(tokenizer, index), " ") for index in ids]
        if options.offsets:
            row["offsets"] = [[start, end] for start, end, _ in places]
        return row
    ids = tokenizer.encode(text, special=options.special)
    framed = getattr(tokenizer, "frame", None)
    return framed(ids)[0] if options.template and framed else ids


def _texts(options: EncodeOptions) -> Iterator[str]:
    from lineal.tokenizers.corpus.documents import STANDARD, read_texts

    yield from options.text
    sources = options.input or (() if options.text else (STANDARD,))
    if STANDARD in sources and not options.input and sys.stdin.isatty():
        raise UsageError("nothing to encode: give --text TEXT, --input FILE, or texts on standard input.")
    for source in sources:
        yield from read_texts(source, field=options.field, rows=options.jsonl or None)


def _open(names: list[str], action: str) -> Tokenizer:
    from lineal.cli_tokenizer import ACTIONS
    from lineal.tokenizers.opening import open_tokenizer

    if len(names) != 1:
        raise UsageError(
            f"{len(names)} tokenizers were given, not one: lineal tokenizer {ACTIONS[action].usage}"
        )
    return open_tokenizer(names[0])


@dataclass(frozen=True)
class DecodeOptions:
    """What `lineal tokenizer decode` can be told."""

    ids: tuple[int, ...] = ()
    """Ids of one text."""
    input: tuple[str, ...] = ()
    """Files as `encode` prints them, a JSON list (or an object with `ids`) a line; - is standard input."""
    keep_special: bool = False
    """Write special tokens out; without it they are left out."""
    json: bool = False
    """Print each text as a JSON string, so that a text with line breaks stays on its line."""


def decode(words: list[str]) -> int:
    """`lineal tokenizer decode TOKENIZER --ids 5 7`: a text a line; on a terminal without what it would obey."""
    found = asked(words, DecodeOptions(), "decode")
    if found is None:
        return 0
    names, options = found
    tokenizer = _open(names, "decode")
    for ids in _rows(options):
        wrong = next((index for index in ids if not 0 <= index < tokenizer.vocab_size), None)
        if wrong is not None:
            raise DataError(
                f"there is no id {wrong}: those of {names[0]} are 0 to {tokenizer.vocab_size - 1}."
            )
        text = tokenizer.decode(ids, skip_special=not options.keep_special)
        if options.json:
            print(json.dumps(text, ensure_ascii=False))
        elif sys.stdout.isatty():
            from lineal.cli_models import visible

            print(visible(text))
        else:
            # As it is, whatever the locale; a printer would turn line ends into those of the system.
            sys.stdout.flush()
            _write((text + "\n").encode("utf-8", "replace"))
    return 0


def _write(data: bytes) -> None:
    binary = getattr(sys.stdout, "buffer", None)
    if binary is None:
        sys.stdout.write(data.decode())
    else:
        binary.write(data)


def _rows(options: DecodeOptions) -> Iterator[list[int]]:
    from lineal.tokenizers.corpus.documents import STANDARD, name_of, read_lines

    if options.ids:
        yield list(options.ids)
    sources = options.input or (() if options.ids else (STANDARD,))
    if STANDARD in sources and not options.input and sys.stdin.isatty():
        raise UsageError(
            "nothing to decode: give --ids 5 7, --input FILE, or lists of ids on standard input."
        )
    for source in sources:
        yield from _parsed(read_lines(source), name_of(source))


def _parsed(lines: Iterable[tuple[int, str]], name: str) -> Iterator[list[int]]:
    for number, line in lines:
        if not line.strip():
            continue
        place = f"{name}:{number}"
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(
                f"{place}: this is no JSON list of ids ({error}): give lines as encode prints them."
            ) from None
        ids = row.get("ids") if isinstance(row, dict) else row
        if not isinstance(ids, list) or not all(type(index) is int for index in ids):
            raise DataError(
                f"{place}: {line[:40]!r} is no list of ids (whole numbers): give lines as encode prints them."
            )
        yield ids


@dataclass(frozen=True)
class ConvertOptions:
    """What `lineal tokenizer convert` can be told."""

    to: str | None = None
    """huggingface (tokenizer.json), sentencepiece (tokenizer.model), tiktoken (ranks.tiktoken), vocab (vocab.txt, or vocab.json and merges.txt)."""
    overwrite: bool = False
    """Replace files of these names in OUT."""


def convert(words: list[str]) -> int:
    """`lineal tokenizer convert TOKENIZER OUT --to FORMAT`; what the format cannot say is named, or refused."""
    from lineal.cli_tokenizer_work import staged
    from lineal.tokenizers.opening import FORMATS, open_tokenizer, write_tokenizer

    found = asked(words, ConvertOptions(), "convert")
    if found is None:
        return 0
    names, options = found
    if len(names) != 2:
        raise UsageError(
            f"{len(names)} names were given, not TOKENIZER and OUT: lineal tokenizer convert TOKENIZER OUT --to FORMAT"
        )
    if options.to not in FORMATS:
        raise UsageError(f"--to {options.to}: must be one of {', '.join(FORMATS)}.")
    tokenizer, out = open_tokenizer(names[0]), Path(names[1])
    if out.exists() and not out.is_dir():
        raise UsageError(f"{out} is a file: name a folder.")
    with staged(out) as folder:
        written = write_tokenizer(tokenizer, folder, options.to)
        there = [path.name for path in written.files if (out / path.name).exists()]
        if there and not options.overwrite:
            raise UsageError(f"{out} has a {there[0]} already: choose another folder, or say --overwrite.")
    print(f"{out}: {', '.join(path.name for path in written.files)}")
    for part in written.lost:
        print(f"not said in this format: {part}")
    return 0
