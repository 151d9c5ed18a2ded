"""The verb `translate`: sentences in, translations out, line by line."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from lineal.cli_options import help_lines, parse
from lineal.cli_runs import positionals
from lineal.errors import DataError, UsageError
from lineal.train.translation.options import BeamOptions

if TYPE_CHECKING:
    from lineal.models.transformer import Transformer
    from lineal.tokenizers import Tokenizer

USAGE = "translate MODEL [SENTENCE ...] [--option value ...] < FILE"
BLOCK = 2048
"""Lines that are read, translated together and written, before the next."""


@dataclass(frozen=True)
class Translating:
    """What becomes of the lines."""

    cut: bool = False
    """Translate only the beginning of a line that is too long for the model, instead of refusing it."""
    reference: str | None = None
    """A file of reference translations: BLEU goes to standard error."""
    language: str = "en"
    """Code of the target language, by which tokenised BLEU cuts words."""
    maps: str | None = None
    """Write a page of what each head looks at, for the first sentence."""
    device: str = "auto"
    """auto, cpu, cuda or mps."""
    threads: int = 0
    """CPU threads; 0 leaves torch's own choice."""


@dataclass(frozen=True)
class TranslateConfig:
    """Everything `lineal translate` can be told."""

    translating: Translating = field(default_factory=Translating)
    decoding: BeamOptions = field(default_factory=lambda: BeamOptions(beams=5, length_penalty=1.0))


def translate(words: list[str]) -> int:
    """`lineal translate RUN < file`: the best translation of each line, in its place; an empty line stays empty."""
    names, rest = positionals(words)
    if any(word in rest for word in ("--help", "-h", "--help-all")):
        print("\n".join([f"lineal {USAGE}", *help_lines(TranslateConfig())]))
        return 0
    if not names:
        raise UsageError(f"which model? lineal {USAGE}")
    config = parse(TranslateConfig(), rest)
    if len(names) == 1 and sys.stdin.isatty():
        raise UsageError(f"nothing to translate: give sentences in quotes, or a file: lineal {USAGE}")
    model, tokenizer = load(names[0], config.translating)
    lines = names[1:] or _lines()
    found = []
    for sources, block in _blocks(model, tokenizer, lines, config):
        if config.translating.maps and not found and block:
            write_maps(model, tokenizer, sources[0], Path(config.translating.maps), block[0])
        found += block
        print("\n".join(block), flush=True)
    if config.translating.reference:
        _judge(found, config.translating)
    return 0


def load(name: str, options: Translating) -> tuple[Transformer, Tokenizer]:
    """The model and tokenizer of a run, or of a folder in the Marian layout."""
    import torch

    from lineal.models.hf.marian import load_marian
    from lineal.tokenizers import load_tokenizer
    from lineal.train.build import model_folder
    from lineal.train.device import pick_device

    if options.threads:
        torch.set_num_threads(options.threads)
    folder = model_folder(name)
    return load_marian(folder, pick_device(options.device)), load_tokenizer(folder)


def _lines() -> Iterator[str]:
    for number, raw in enumerate(sys.stdin.buffer, 1):
        try:
            yield raw.removesuffix(b"\n").removesuffix(b"\r").decode("utf-8")
        except UnicodeDecodeError as error:
            raise DataError(
                f"standard input:{number}: byte 0x{raw[error.start]:02x} is not UTF-8: convert it first (iconv)."
            ) from error


def _blocks(
    model: Transformer, tokenizer: Tokenizer, lines: Sequence[str] | Iterator[str], config: TranslateConfig
) -> Iterator[tuple[list[str], list[str]]]:
    from lineal.train.translation.task import beam_search, translations

    search, waiting, first = beam_search(config.decoding), iter(lines), 1
    while sources := list(islice(waiting, BLOCK)):
        cut = config.translating.cut
        yield sources, translations(model, sources, tokenizer, search, cut=cut, first=first)
        first += len(sources)


def _judge(found: list[str], options: Translating) -> None:
    from lineal.train.formats import open_text
    from lineal.train.translation.bleu import HINT, bleu

    path = Path(str(options.reference))
    wanted = open_text(path).removesuffix("\n").split("\n")
    if len(wanted) != len(found):
        raise DataError(
            f"{path} has {len(wanted):,} lines, and {len(found):,} were translated: it is another file's."
        )
    score = bleu(found, wanted, options.language)
    print(score.line() if score else HINT, file=sys.stderr)


def write_maps(model: Transformer, tokenizer: Tokenizer, source: str, path: Path, target: str) -> None:
    """A page with a picture per layer and head, of one sentence and its translation."""
    from lineal.generate.attention import look
    from lineal.train.files import replace_file
    from lineal.train.translation.vocabulary import ids_of
    from lineal.web.attention import Maps, attention_page

    ids = ids_of(tokenizer)
    room = model.config.context - 1
    read, written = (
        [*tokenizer.encode(source.strip())[:room], ids.end],
        [ids.start, *tokenizer.encode(target)[:room]],
    )
    seen = look(model, read, written)
    keys, queries = ([tokenizer.decode([i], skip_special=False) for i in row] for row in (read, written))
    parts = [
        Maps("Encoder: the source looks at itself", keys, keys, seen.encoder_LHSS.tolist()),
        Maps("Decoder: the translation looks at itself", queries, queries, seen.decoder_LHTT.tolist()),
        Maps("Decoder: the translation looks at the source", queries, keys, seen.cross_LHTS.tolist()),
    ]
    try:
        replace_file(path, attention_page(source, target, parts).encode("utf-8", "replace"))
    except OSError as error:
        raise UsageError(
            f"--maps {path} cannot be written ({error.strerror}): choose another file."
        ) from error
    print(f"maps  {path}", file=sys.stderr)
