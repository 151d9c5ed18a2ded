"""`lineal tokenizer`: train, encode, decode, inspect, compare, convert."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lineal.cli import HELP, Command
from lineal.cli_options import help_lines, parse
from lineal.cli_runs import positionals
from lineal.errors import DataError, UsageError

if TYPE_CHECKING:
    from lineal.tokenizers import Tokenizer
    from lineal.tokenizers.training import Learning, Parts

ACTIONS = {
    "train": Command(
        "train FILE ... --kind bpe --out FOLDER", "learn a vocabulary", "lineal.cli_tokenizer:train"
    ),
    "encode": Command("encode TOKENIZER --text TEXT", "texts to ids", "lineal.cli_tokenizer_use:encode"),
    "decode": Command("decode TOKENIZER --ids 5 7 ...", "ids to texts", "lineal.cli_tokenizer_use:decode"),
    "inspect": Command(
        "inspect TOKENIZER --text TEXT",
        "see how it cuts, and what it holds",
        "lineal.cli_tokenizer_look:inspect",
    ),
    "compare": Command(
        "compare A B ... --input FILE",
        "size, speed and loss, side by side",
        "lineal.cli_tokenizer_look:compare",
    ),
    "convert": Command(
        "convert TOKENIZER OUT --to FORMAT", "files for another library", "lineal.cli_tokenizer_use:convert"
    ),
}
"""What can be done with tokenizers."""
OPENED = "A TOKENIZER is a folder or file: tokenizer.json, *.model, *.tiktoken, vocab.json and merges.txt, vocab.txt."


def tokenizer(words: list[str]) -> int:
    """`lineal tokenizer ACTION ...`."""
    import difflib

    if not words or words[0] in (*HELP, "help"):
        lines = ["lineal tokenizer ACTION ... (lineal tokenizer ACTION --help explains one)", ""]
        lines += [f"  {action.usage:<40} {action.summary}" for action in ACTIONS.values()]
        print("\n".join([*lines, "", OPENED]))
        return 0 if words else 2
    if words[0] not in ACTIONS:
        close = difflib.get_close_matches(words[0], ACTIONS, n=1, cutoff=0.5)
        hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(ACTIONS)}."
        raise UsageError(f"lineal tokenizer has no action {words[0]!r}; {hint}")
    return ACTIONS[words[0]].load()(words[1:]) or 0


def asked(
    words: list[str], config: Any, action: str, notes: Sequence[str] = ()
) -> tuple[list[str], Any] | None:
    """The names before the options, and the options; None after help was printed."""
    names, rest = positionals(words)
    usage = f"lineal tokenizer {ACTIONS[action].usage}"
    if _wants_help(rest):
        print("\n".join([f"{usage}: {ACTIONS[action].summary}", *help_lines(config), *notes]))
        return None
    if not names:
        raise UsageError(f"nothing was named: {usage}")
    try:
        return names, parse(config, rest)
    except UsageError as error:
        # Files and tokenizers stand by themselves; other commands of lineal have options for them.
        raise error if "did you mean" in str(error) else UsageError(f"{error} ({usage})") from None


@dataclass(frozen=True)
class Vocabulary:
    """What is learned."""

    kind: str = "bpe"
    """word, char, byte, bpe, char-bpe, wordpiece, unigram or sentencepiece: see below."""
    vocab_size: int = 32000
    """Ids in all, special tokens and bytes among them."""
    min_frequency: int = 0
    """Pass over what is rarer (words, or pairs of BPE)."""
    special: tuple[str, ...] = ()
    """Further special tokens, behind those that the kind has."""
    split: tuple[str, ...] = ()
    """How text is cut first: gpt2, cl100k, o200k, words, whitespace, bert, punctuation, digits, digit, none, or regex:PATTERN; several one after the other (default: the kind's)."""
    normalise: tuple[str, ...] = ()
    """What is done to a text before: nfc, nfd, nfkc, nfkd, lowercase, strip-accents, strip, spaces, bert, bert-cased, none; several one after the other (default: the kind's)."""
    algorithm: str = "unigram"
    """unigram or bpe: what is under the kind sentencepiece."""
    score: str = "frequency"
    """frequency or likelihood: how WordPiece chooses pairs."""
    coverage: float = 1.0
    """The share of the corpus's characters that must be in the alphabet (char, char-bpe, wordpiece, unigram, sentencepiece)."""
    longest: int | None = None
    """Longest token, in characters (default: the algorithm's own)."""
    byte_fallback: bool = True
    """Spell by bytes what the alphabet lacks (sentencepiece)."""


@dataclass(frozen=True)
class Work:
    """How and where."""

    out: str | None = None
    """The folder to write (default: tokenizers/KIND-SIZE)."""
    workers: int = 1
    """Processes that count."""
    cap: int | None = None
    """Keep at most so many different pieces while counting, dropping the rarest: bounds the memory."""
    overwrite: bool = False
    """Replace the tokenizer that is in the folder."""


@dataclass(frozen=True)
class TrainOptions:
    """Everything `lineal tokenizer train` can be told."""

    vocabulary: Vocabulary = field(default_factory=Vocabulary)
    work: Work = field(default_factory=Work)


SAMPLE = 2_000_000
"""Characters of the corpus on which the result is measured."""


def train(words: list[str]) -> int:
    """`lineal tokenizer train FILE ... --kind bpe --vocab-size 32000 --out FOLDER`."""
    dry = "--dry-run" in words or "--dry_run" in words
    words = [word for word in words if word not in ("--dry-run", "--dry_run")]
    found = asked(words, TrainOptions(), "train", _kinds() if _wants_help(words) else ())
    if found is None:
        return 0
    files, options = found
    parts, learning = plan(options.vocabulary)
    out = Path(options.work.out or f"tokenizers/{options.vocabulary.kind}-{options.vocabulary.vocab_size}")
    _check_files(files)
    _check_out(out, options.work.overwrite)
    if dry:
        print("\n".join(_plan_lines(files, options, parts, out)))
        return 0
    from lineal.cli_tokenizer_work import Bar, staged, terminable

    with terminable(), staged(out) as folder:
        with Bar() as bar:
            made = _train(options, files, parts, learning, bar)
            took = bar.times()
        _write(made, folder, options.vocabulary.kind)
        names = sorted(path.name for path in folder.iterdir())
        lines = [*_result(made, files, options, took), f"{out}: {', '.join(names)}"]
    print(
        "\n".join([*lines, f"next: lineal tokenizer inspect {shlex.quote(str(out))} --text 'Hello, world!'"])
    )
    return 0


def _train(options: TrainOptions, files: list[str], parts: Parts, learning: Learning, bar: Any) -> Tokenizer:
    from lineal.tokenizers.training import train as train_kind

    work = options.work
    return train_kind(
        options.vocabulary.kind,
        files,
        parts=parts,
        learning=learning,
        workers=work.workers,
        cap=work.cap,
        progress=bar.update,
    )


def _wants_help(words: list[str]) -> bool:
    return any(word in HELP for word in words)


def _kinds() -> list[str]:
    from lineal.tokenizers.training import KINDS

    lines = ["", "  --dry-run    say what would be done, and stop", "", "kinds"]
    return [*lines, *(f"  {name:<14} {kind.summary}" for name, kind in KINDS.items())]


def plan(vocabulary: Vocabulary) -> tuple[Parts, Learning]:
    """The parts and the learning that the options ask for; UsageError for what does not go together."""
    from lineal.tokenizers.training import KINDS, Learning, check

    if vocabulary.kind not in KINDS:
        raise UsageError(f"--kind {vocabulary.kind}: must be one of {', '.join(KINDS)}.")
    own = KINDS[vocabulary.kind].parts
    fixed = vocabulary.kind in ("char", "byte")
    if fixed and (vocabulary.special or vocabulary.split or vocabulary.normalise):
        raise UsageError(
            f"--kind {vocabulary.kind} takes no --special, --split or --normalise: it has its own."
        )
    learning = Learning(
        vocab_size=vocabulary.vocab_size,
        min_frequency=vocabulary.min_frequency,
        algorithm=vocabulary.algorithm,
        score=vocabulary.score,
        coverage=vocabulary.coverage,
        longest=vocabulary.longest,
        byte_fallback=vocabulary.byte_fallback,
    )
    check(learning)
    parts: Parts = replace(own, special=tuple(dict.fromkeys((*own.special, *vocabulary.special))))
    if vocabulary.normalise:
        parts = replace(parts, normaliser=_normaliser(vocabulary))
    if vocabulary.split:
        parts = replace(parts, splitter=_splitter(vocabulary))
    return parts, learning


def _normaliser(vocabulary: Vocabulary) -> Any:
    from lineal.tokenizers.text.normalise import Chain
    from lineal.tokenizers.training import KINDS, NORMALISERS

    steps = (
        []
        if vocabulary.normalise == ("none",)
        else [_named(name, NORMALISERS, "normalise") for name in vocabulary.normalise]
    )
    if vocabulary.kind == "sentencepiece":
        own: Any = KINDS["sentencepiece"].parts.normaliser
        steps += own.parts
    return Chain(tuple(steps)) if len(steps) > 1 else steps[0] if steps else None


def _splitter(vocabulary: Vocabulary) -> Any:
    from lineal.tokenizers.text import split
    from lineal.tokenizers.training import SPLITTERS

    if vocabulary.kind in ("unigram", "sentencepiece"):
        if vocabulary.split != ("none",) or vocabulary.kind == "unigram" or vocabulary.algorithm == "unigram":
            raise UsageError(
                f"--split {' '.join(vocabulary.split)}: the kind {vocabulary.kind} cuts before its spaces, and Unigram learns "
                "nothing else; --kind sentencepiece --algorithm bpe --split none lets tokens span several words."
            )
        return split.Whole()
    parts = [
        split.Regex(name.removeprefix("regex:"), "removed", invert=True)
        if name.startswith("regex:")
        else _named(name, SPLITTERS, "split")
        for name in vocabulary.split
    ]
    for part in parts:
        part.spans(b"a")
    return parts[0] if len(parts) == 1 else split.Splits(tuple(parts))


def _named(name: str, table: dict[str, Any], option: str) -> Any:
    if name not in table:
        raise UsageError(f"--{option} {name}: must be one of {', '.join(table)}.")
    return table[name]


def _check_files(files: list[str]) -> None:
    """Every file, before the first is read: one that can't be read should not be found after an hour."""
    for name in files:
        path = Path(name)
        if not path.is_file():
            what = "is a folder, not a file" if path.is_dir() else "does not exist"
            raise DataError(f"{path} {what}: give text files, plain or .gz.")
        try:
            path.open("rb").close()
        except OSError as error:
            raise DataError(f"{path} cannot be read ({error.strerror}): check its permissions.") from error


def _check_out(out: Path, overwrite: bool) -> None:
    if out.exists() and not out.is_dir():
        raise UsageError(f"--out {out} is a file: name a folder.")
    there = [
        name
        for name in ("tokenizer.json", "tokenizer_config.json", "tokenizer.model")
        if (out / name).exists()
    ]
    if there and not overwrite:
        raise UsageError(f"{out} has a {there[0]} already: choose another --out, or say --overwrite.")


def _plan_lines(files: list[str], options: TrainOptions, parts: Parts, out: Path) -> list[str]:
    from lineal.tokenizers.training import KINDS

    size = sum(Path(name).stat().st_size for name in files)
    kind = KINDS[options.vocabulary.kind]
    return [
        f"kind        {options.vocabulary.kind}: {kind.summary}",
        f"vocabulary  {options.vocabulary.vocab_size:,} ids",
        f"normaliser  {parts.normaliser}",
        f"splitter    {parts.splitter}",
        f"decoder     {parts.decoder}",
        f"special     {' '.join(parts.special) or 'its own'}",
        f"loses       {kind.loses}",
        f"corpus      {len(files)} file{'s' * (len(files) > 1)}, {_size(size)} on the disk, counted by {options.work.workers}",
        f"writes      {', '.join(str(out / name) for name in _names(options.vocabulary.kind))}",
    ]


def _size(count: int) -> str:
    return f"{count / 1e6:,.1f} MB" if count >= 1e5 else f"{count / 1e3:,.1f} kB"


def _names(kind: str) -> tuple[str, ...]:
    return (
        "tokenizer.json",
        "tokenizer_config.json",
        *(("tokenizer.model",) if kind == "sentencepiece" else ()),
    )


def _write(made: Tokenizer, folder: Path, kind: str) -> None:
    from lineal.errors import ModelError
    from lineal.tokenizers.opening import write_tokenizer
    from lineal.train.console import note

    made.save(folder)
    if kind == "sentencepiece":
        try:
            write_tokenizer(made, folder, "sentencepiece")
        except ModelError as error:
            note(f"no tokenizer.model is written: {error}")


def _result(made: Tokenizer, files: list[str], options: TrainOptions, took: str) -> list[str]:
    """What a person wants to know after training."""
    from lineal.tokenizers.corpus.documents import read_documents
    from lineal.tokenizers.inspecting import measure
    from lineal.tokenizers.training import KINDS

    kind, wanted = options.vocabulary.kind, options.vocabulary.vocab_size
    figures = measure(made, read_documents(files, limit=max(1, SAMPLE // len(files))))
    lines = [f"{kind}: {made.vocab_size:,} tokens{took}"]
    if made.vocab_size < wanted and kind not in ("char", "byte"):
        lines.append(f"the corpus gives no more than {made.vocab_size:,} of the {wanted:,} tokens asked for")
    lines.append(
        f"{figures.bytes_per_token:.2f} bytes and {figures.characters_per_token:.2f} characters per token on the corpus's "
        f"first {_size(figures.bytes)}; {figures.lossless / max(1, figures.texts):.1%} of its texts come back as they were"
    )
    if kind != "byte" and figures.lossless < figures.texts:
        lines.append(f"what does not come back: {KINDS[kind].loses}")
    if figures.unknown:
        lines.append(f"{figures.unknown / max(1, figures.tokens):.2%} of the tokens are unknown")
    return lines
