"""The text's way to the model in a tokenizer.json: normalisers and pre-tokenizers, to and from JSON."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from lineal.errors import LinealError, ModelError, UsageError
from lineal.tokenizers.files.after import scheme
from lineal.tokenizers.files.known import pattern_of, splitter_of
from lineal.tokenizers.files.reading import Field, one_of
from lineal.tokenizers.parts import Normaliser, Splitter
from lineal.tokenizers.text import normalise, split
from lineal.tokenizers.text.prepared import MarkedWords, Prepared, ReplacePattern

if TYPE_CHECKING:
    # Imported late: most files have no charsmap.
    from lineal.tokenizers.text.charsmap import SentencePieceNormaliser

BEHAVIOURS = {
    "Removed": "removed",
    "Isolated": "isolated",
    "MergedWithPrevious": "merged_with_previous",
    "MergedWithNext": "merged_with_next",
    "Contiguous": "contiguous",
}
# Where Oniguruma, which reads these patterns in the other library, means something else than the regex library does.
_ODD = re.compile(r"\\[hHKRX]|&&|\{[\d,]+\}\+|\[[^\]]*[^\\\]]\[")


def read_normaliser(field: Field) -> Normaliser | None:
    """The normaliser; null gives None. MissingPart for a kind that we lack."""
    if not field.given:
        return None
    kind = field["type"].text()
    if kind == "Sequence":
        parts = [
            part for entry in field["normalizers"].items() if (part := read_normaliser(entry)) is not None
        ]
        if (whole := _sentencepiece(parts)) is not None:
            return whole
        return parts[0] if len(parts) == 1 else normalise.Chain(tuple(parts)) if parts else None
    if kind not in NORMALISERS:
        raise field["type"].lacks(f"a {kind} normalizer")
    return NORMALISERS[kind](field)


_SPACES, _START = ReplacePattern(" {2,}", " "), ReplacePattern(r"\A ", "")
_FRONT, _SEEN = normalise.Prepend("▁"), normalise.Replace(" ", "▁")


def _steps(part: SentencePieceNormaliser) -> list[Normaliser]:
    """What sentencepiece does to a text, one step after the other."""
    from lineal.tokenizers.text.charsmap import Charsmap

    if part.treat_whitespace_as_suffix or part.keep:
        raise ModelError(
            "tokenizer.json cannot say that spaces are marked behind words, or that some texts stay as they are."
        )
    steps: list[Normaliser] = [Charsmap(part.charsmap)] if part.charsmap else []
    steps += [_SPACES, _START] if part.remove_extra_whitespaces else []
    symbol = "▁" if part.escape_whitespaces else " "
    steps += [normalise.Prepend(symbol)] if part.add_dummy_prefix else []
    steps += [_SEEN] if part.escape_whitespaces else []
    # At the end a symbol that the text had itself goes too.
    return [*steps, *([ReplacePattern(rf"{symbol}+\z", "")] if part.remove_extra_whitespaces else [])]


def _sentencepiece(parts: list[Normaliser]) -> Normaliser | None:
    """The normaliser that `_steps` gives these steps for; None for other steps, and for one that is quicker alone."""
    charsmap = getattr(parts[0], "charsmap", b"") if parts else b""
    if not charsmap and _SPACES not in parts:
        return None
    from lineal.tokenizers.text.charsmap import SentencePieceNormaliser

    found = SentencePieceNormaliser(
        charsmap,
        add_dummy_prefix=_FRONT in parts or normalise.Prepend(" ") in parts,
        remove_extra_whitespaces=_SPACES in parts,
        escape_whitespaces=_SEEN in parts,
    )
    return found if len(parts) > 1 and _steps(found) == parts else None


def _replace(field: Field) -> Normaliser:
    pattern = field["pattern"]
    if pattern["Regex"].given:
        return _with_pattern(pattern["Regex"], lambda text: ReplacePattern(text, field["content"].text()))
    if not pattern["String"].text():
        raise pattern.bad("a text that is not empty")
    return normalise.Replace(pattern["String"].text(), field["content"].text())


def _with_pattern(field: Field, make: Callable[[str], Any], *, literal: bool = False) -> Any:
    pattern = field.text()
    if not literal and _ODD.search(pattern):
        raise field.lacks(f"the pattern {pattern!r} as the Oniguruma library reads it")
    try:
        return make(re.escape(pattern) if literal else pattern)
    except UsageError as error:
        raise field.lacks(f"a pattern ({error})") from error


def _charsmap(field: Field) -> Normaliser:
    from lineal.tokenizers.text.charsmap import Charsmap

    blob = field["precompiled_charsmap"]
    try:
        return Charsmap(base64.b64decode(blob.text(), validate=True))
    except (binascii.Error, ValueError) as error:
        reason = str(error) if isinstance(error, LinealError) else "it is no base64"
        raise ModelError(
            f"{field.file}: {blob.place} is damaged ({reason}): copy or download it again."
        ) from error


def _bert(field: Field) -> Normaliser:
    accents = field["strip_accents"]
    return normalise.Bert(
        field["clean_text"].flag(True),
        field["handle_chinese_chars"].flag(True),
        accents.flag() if accents.given else None,
        field["lowercase"].flag(True),
    )


NORMALISERS: dict[str, Callable[[Field], Normaliser]] = {
    "NFC": lambda _: normalise.Unicode("NFC"),
    "NFD": lambda _: normalise.Unicode("NFD"),
    "NFKC": lambda _: normalise.Unicode("NFKC"),
    "NFKD": lambda _: normalise.Unicode("NFKD"),
    "Lowercase": lambda _: normalise.Lowercase(),
    "StripAccents": lambda _: normalise.StripAccents(),
    "Strip": lambda field: normalise.Strip(field["strip_left"].flag(True), field["strip_right"].flag(True)),
    "Prepend": lambda field: normalise.Prepend(field["prepend"].text()),
    "Replace": _replace,
    "BertNormalizer": _bert,
    "Precompiled": _charsmap,
}


def written_normaliser(part: Normaliser | None) -> dict[str, Any] | None:
    """The normaliser as tokenizer.json has it; ModelError for one that it cannot say."""
    match part:
        case None:
            return None
        case normalise.Unicode():
            return {"type": part.form}
        case normalise.Lowercase() | normalise.StripAccents():
            return {"type": type(part).__name__}
        case normalise.Strip():
            return {"type": "Strip", "strip_left": part.left, "strip_right": part.right}
        case normalise.Prepend():
            return {"type": "Prepend", "prepend": part.text}
        case normalise.Replace():
            return {"type": "Replace", "pattern": {"String": part.old}, "content": part.new}
        case ReplacePattern():
            return {"type": "Replace", "pattern": {"Regex": part.pattern}, "content": part.new}
        case normalise.Bert():
            switches = {"clean_text": part.clean_text, "handle_chinese_chars": part.chinese}
            return {
                "type": "BertNormalizer",
                **switches,
                "strip_accents": part.strip_accents,
                "lowercase": part.lowercase,
            }
        case normalise.Chain():
            return {"type": "Sequence", "normalizers": [written_normaliser(inner) for inner in part.parts]}
    return _written_charsmap(part)


def _written_charsmap(part: Normaliser) -> dict[str, Any]:
    from lineal.tokenizers.text.charsmap import Charsmap, SentencePieceNormaliser

    if isinstance(part, Charsmap):
        return {"type": "Precompiled", "precompiled_charsmap": base64.b64encode(part.charsmap).decode()}
    if isinstance(part, SentencePieceNormaliser):
        return {"type": "Sequence", "normalizers": [written_normaliser(inner) for inner in _steps(part)]}
    raise ModelError(
        f"a {type(part).__name__} cannot be written as tokenizer.json: it has no such normalizer."
    )


def read_splitter(field: Field) -> tuple[Splitter, bool]:
    """The pre-tokenizer, and whether it goes over to bytes. MissingPart for a kind or an order that we lack."""
    parts: list[Splitter] = []
    byte_level = False
    for entry in _flat(field):
        kind = entry["type"].text()
        if byte_level:
            raise entry.lacks(f"{kind} behind ByteLevel")
        if kind == "ByteLevel":
            byte_level = True
            parts += _byte_level(entry, bool(parts))
        elif kind == "Metaspace":
            parts = _metaspace(entry, parts)
        elif kind in SPLITS:
            parts.append(SPLITS[kind](entry))
        else:
            raise entry["type"].lacks(f"a {kind} pre-tokenizer")
    return (
        parts[0] if len(parts) == 1 else split.Splits(tuple(parts)) if parts else split.Whole()
    ), byte_level


def _flat(field: Field) -> Iterator[Field]:
    if not field.given:
        return
    if field["type"].text() == "Sequence":
        for entry in field["pretokenizers"].items():
            yield from _flat(entry)
    else:
        yield field


def _byte_level(field: Field, later: bool) -> list[Splitter]:
    prefix = field["add_prefix_space"].flag(True)
    if prefix and later:
        raise field["add_prefix_space"].lacks("a space before each piece")
    if field["use_regex"].flag(True):
        return [split.Gpt2(prefix_space=prefix)]
    return [Prepared(normalise.SpaceInFront(), split.Whole())] if prefix else []


def _metaspace(field: Field, before: list[Splitter]) -> list[Splitter]:
    symbol, prepend, cuts = field["replacement"].text(), scheme(field), field["split"].flag(True)
    if len(symbol) != 1:
        raise field["replacement"].bad("one character")
    if before == [split.WhitespaceSplit()] and prepend == "always" and cuts:
        return [Prepared(MarkedWords(symbol), split.SymbolSplit(symbol))]
    if before:
        raise field.lacks("Metaspace behind another pre-tokenizer")
    return [
        Prepared(normalise.Metaspace(symbol, prepend), split.SymbolSplit(symbol) if cuts else split.Whole())
    ]


def _split(field: Field) -> Splitter:
    behaviour = BEHAVIOURS[one_of(field["behavior"], [*BEHAVIOURS])]
    invert = field["invert"].flag()
    pattern = field["pattern"]
    if not pattern["Regex"].given:
        if not pattern["String"].text():
            raise pattern.bad("a text that is not empty")
        if (behaviour, invert) == ("merged_with_next", False):
            return split.SymbolSplit(pattern["String"].text())
        return _with_pattern(pattern["String"], lambda text: _regex(text, behaviour, invert), literal=True)
    known = None if _ODD.search(pattern["Regex"].text()) else splitter_of(pattern["Regex"].text())
    if known is not None and (behaviour, invert) in (("isolated", False), ("removed", True)):
        return known
    return _with_pattern(pattern["Regex"], lambda text: _regex(text, behaviour, invert))


def _regex(pattern: str, behaviour: str, invert: bool) -> Splitter:
    split.compile_pattern(pattern)
    return split.Regex(pattern, behaviour, invert)


def _delimiter(field: Field) -> Splitter:
    if len(field["delimiter"].text()) != 1:
        raise field["delimiter"].bad("one character")
    return _with_pattern(field["delimiter"], lambda text: _regex(text, "removed", False), literal=True)


SPLITS: dict[str, Callable[[Field], Splitter]] = {
    "Whitespace": lambda _: split.Whitespace(),
    "WhitespaceSplit": lambda _: split.WhitespaceSplit(),
    "BertPreTokenizer": lambda _: split.BertSplit(),
    "Punctuation": lambda field: split.Punctuation(
        BEHAVIOURS[one_of(field["behavior"], [*BEHAVIOURS], "Isolated")]
    ),
    "Digits": lambda field: split.Digits(field["individual_digits"].flag()),
    "Split": _split,
    "CharDelimiterSplit": _delimiter,
}


def written_splitter(part: Splitter, byte_level: bool) -> dict[str, Any] | None:
    """The pre-tokenizer as tokenizer.json has it; ModelError for one that it cannot say."""
    parts = list(part.parts) if isinstance(part, split.Splits) else [part]
    last = parts[-1]
    entries = []
    if byte_level:
        level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
        if last == Prepared(normalise.SpaceInFront(), split.Whole()):
            level, parts = {**level, "add_prefix_space": True}, parts[:-1]
        elif isinstance(last, split.Gpt2):
            level, parts = {**level, "add_prefix_space": last.prefix_space, "use_regex": True}, parts[:-1]
        entries.append(level)
    entries = [*(entry for inner in parts for entry in _written(inner)), *entries]
    return (
        entries[0]
        if len(entries) == 1
        else {"type": "Sequence", "pretokenizers": entries}
        if entries
        else None
    )


def is_whole(part: Splitter) -> bool:
    """Whether a splitter is none: Whole, or RunSplit, which only makes the same quicker."""
    return isinstance(part, split.Whole) or type(part).__name__ == "RunSplit"


def quickened(part: Splitter, tokens: Sequence[bytes]) -> Splitter:
    """A splitter for a vocabulary of words with a symbol in front: where it has none, one that cuts at the symbols.

    No token goes on over a symbol, so that the ids stay the same, and short pieces are found in the model's cache. (Unigram
    finds them by itself.)
    """
    inner = part.splitter if isinstance(part, Prepared) else part
    if not is_whole(inner) or "▁".encode() not in tokens:
        return part
    if any("▁" in token.decode("utf-8", "replace").lstrip("▁") for token in tokens):
        return part
    from lineal.tokenizers.files.proto import RunSplit

    return Prepared(part.prepare, RunSplit("▁")) if isinstance(part, Prepared) else RunSplit("▁")


def _written(part: Splitter) -> list[dict[str, Any]]:
    if isinstance(part, (split.Gpt2, split.Cl100k, split.O200k)):
        return [
            {"type": "Split", "pattern": {"Regex": pattern_of(part)}, "behavior": "Isolated", "invert": False}
        ]
    behaviours = {ours: theirs for theirs, ours in BEHAVIOURS.items()}
    if is_whole(part):
        return []
    match part:
        case split.Whitespace() | split.WhitespaceSplit():
            return [{"type": type(part).__name__}]
        case split.BertSplit():
            return [{"type": "BertPreTokenizer"}]
        case split.Punctuation():
            return [{"type": "Punctuation", "behavior": behaviours[part.behaviour]}]
        case split.Digits():
            return [{"type": "Digits", "individual_digits": part.individual}]
        case split.Regex():
            how = {"behavior": behaviours[part.behaviour], "invert": part.invert}
            return [{"type": "Split", "pattern": {"Regex": part.pattern}, **how}]
        case Prepared(prepare=normalise.Metaspace() as mark, splitter=inner):
            if is_whole(inner) or isinstance(inner, split.SymbolSplit):
                return [_written_metaspace(mark.symbol, mark.prepend, not is_whole(inner))]
        case Prepared(prepare=MarkedWords() as mark):
            return [{"type": "WhitespaceSplit"}, _written_metaspace(mark.symbol, "always", True)]
        case split.SymbolSplit():
            pattern = {"String": part.symbol}
            return [{"type": "Split", "pattern": pattern, "behavior": "MergedWithNext", "invert": False}]
    raise ModelError(
        f"a {type(part).__name__} cannot be written as tokenizer.json: it has no such pre-tokenizer."
    )


def _written_metaspace(symbol: str, prepend: str, cuts: bool) -> dict[str, Any]:
    return {"type": "Metaspace", "replacement": symbol, "prepend_scheme": prepend, "split": cuts}
