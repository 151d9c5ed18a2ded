"""The model part of a tokenizer.json: vocabularies to and from JSON."""

from __future__ import annotations

from collections.abc import Callable, Collection
from itertools import chain, repeat
from typing import TYPE_CHECKING, Any

from lineal.errors import LinealError, ModelError
from lineal.tokenizers.bpe import BPE
from lineal.tokenizers.files.printable import all_to_bytes, to_text
from lineal.tokenizers.files.ranks import merges_of
from lineal.tokenizers.files.reading import Field, finite, read_vocabulary
from lineal.tokenizers.parts import Model

if TYPE_CHECKING:
    # Imported late: a file has one kind of model, and opening it should not wait for the others.
    from lineal.tokenizers.unigram import Unigram
    from lineal.tokenizers.wordpiece import WordPiece
    from lineal.tokenizers.words import WordLevel

Special = Collection[str]
"""Special tokens, which a model must not make from text."""


def read_model(field: Field, byte_level: bool, special: Special) -> Model:
    """The model of a tokenizer.json. MissingPart for a kind that we lack, ModelError for a damaged one."""
    kind = _kind(field)
    if kind not in READERS:
        raise field["type"].lacks(f"a {kind} model")
    if byte_level and kind != "BPE":
        raise field["type"].lacks(f"a {kind} model over bytes")
    try:
        return READERS[kind](field, byte_level, special)
    except UnicodeEncodeError as error:
        raise ModelError(
            f"{field.file}: {field.place} has a token with half a surrogate pair: {error.object!r}."
        ) from error
    except LinealError as error:
        raise (
            error
            if str(error).startswith(field.file)
            else ModelError(f"{field.file}: {field.place}: {error}")
        ) from error


def _kind(field: Field) -> str:
    if not field.given:
        raise field.bad("an object")
    if field["type"].given:
        return field["type"].text()
    # Old files do not name the kind.
    content = field.object()
    if "merges" in content:
        return "BPE"
    if "max_input_chars_per_word" in content:
        return "WordPiece"
    return "Unigram" if isinstance(content.get("vocab"), list) else "WordLevel"


def _silent(names: list[str], special: Special, spoken: Collection[int | None]) -> frozenset[int]:
    return frozenset(i for i, name in enumerate(names) if name in special and i not in spoken)


def _bpe(field: Field, byte_level: bool, special: Special) -> BPE:
    names = read_vocabulary(field["vocab"])
    ids = {name: i for i, name in enumerate(names) if name}
    prefix = field["continuing_subword_prefix"].text("").encode()
    suffix = field["end_of_word_suffix"].text("").encode()
    merges = _merges(field["merges"], ids)
    unknown = _unknown(field["unk_token"], ids)
    silent = _silent(names, special, (unknown, *_merged(special, ids, merges, len(prefix))))
    return BPE(
        all_to_bytes(names) if byte_level else [name.encode() for name in names],
        merges,
        initial="bytes" if byte_level else "characters",
        unknown=unknown,
        byte_fallback=_fallback(field["byte_fallback"], ids),
        fuse_unknown=field["fuse_unk"].flag(),
        suffix=suffix,
        prefix=prefix,
        ignore_merges=field["ignore_merges"].flag(),
        dropout=field["dropout"].share(),
        silent=silent,
    )


def _merged(special: Special, ids: dict[str, int], merges: list[tuple[int, int]], prefix: int) -> set[int]:
    """Special tokens that merges use or make, as somebody's who made a word of the vocabulary special."""
    known = {ids[name] for name in special if name in ids}
    if not known:
        return known
    pairs = set(merges)
    used = set(chain.from_iterable(merges)) & known
    for name in special:
        cuts = ((ids.get(name[:i], -1), name[i:]) for i in range(1, len(name)))
        if name in ids and any((left, i) in pairs for left, end in cuts for i in _ended(ids, end, prefix)):
            used.add(ids[name])
    return used


def _ended(ids: dict[str, int], end: str, prefix: int) -> list[int]:
    if not prefix:
        return [ids.get(end, -1)]
    return [i for name, i in ids.items() if name[prefix:] == end]


def _merges(field: Field, ids: dict[str, int]) -> list[tuple[int, int]]:
    rows = field.list()
    kinds = set(map(type, rows))
    try:
        if kinds == {list}:
            found = [(ids[left], ids[right]) for left, right in rows]
        elif kinds == {str}:
            found = [(ids[left], ids[right]) for left, right in map(str.split, rows, repeat(" "))]
        else:
            found = [_merge(field, at, merge, ids) for at, merge in enumerate(rows)]
    except (KeyError, ValueError, TypeError):
        found = [_merge(field, at, merge, ids) for at, merge in enumerate(rows)]
    # Of a pair that stands twice the last counts.
    return found if len(set(found)) == len(found) else list(dict.fromkeys(reversed(found)))[::-1]


def _merge(field: Field, at: int, merge: Any, ids: dict[str, int]) -> tuple[int, int]:
    try:
        left, right = merge.split(" ") if isinstance(merge, str) else merge
        return ids[left], ids[right]
    except (ValueError, TypeError):
        raise Field(field.file, f"{field.place}[{at}]", merge).bad("two tokens") from None
    except KeyError as error:
        raise ModelError(
            f"{field.file}: {field.place}[{at}] names {str(error.args[0])[:60]!r}, which the vocabulary does not have."
        ) from None


def _unknown(field: Field, ids: dict[str, int]) -> int | None:
    if not field.given:
        return None
    if field.text() not in ids:
        raise field.lacks(f"the unknown token {field.text()!r} outside the vocabulary")
    return ids[field.text()]


def _fallback(field: Field, ids: dict[str, int]) -> tuple[int, ...] | None:
    if not field.flag():
        return None
    found = [ids.get(f"<0x{byte:02X}>", -1) for byte in range(256)]
    if min(found) < 0:
        if max(found) < 0:
            return None
        raise field.lacks(f"byte fallback without <0x{found.index(-1):02X}>")
    return tuple(found)


def _wordpiece(field: Field, byte_level: bool, special: Special) -> WordPiece:
    from lineal.tokenizers.wordpiece import WordPiece

    names = read_vocabulary(field["vocab"])
    unknown = _needed(field["unk_token"], names, "[UNK]")
    silent = _silent(names, special, (unknown,))
    tokens = [b"" if i in silent else name.encode() for i, name in enumerate(names)]
    longest = field["max_input_chars_per_word"].number(0, 1 << 40, 100)
    prefix = field["continuing_subword_prefix"].text("##").encode()
    return WordPiece(tokens, unknown=unknown, prefix=prefix, longest_word=longest)


def _wordlevel(field: Field, byte_level: bool, special: Special) -> WordLevel:
    from lineal.tokenizers.words import WordLevel

    names = read_vocabulary(field["vocab"])
    unknown = _needed(field["unk_token"], names, "<unk>")
    silent = _silent(names, special, (unknown,))
    return WordLevel([b"" if i in silent else name.encode() for i, name in enumerate(names)], unknown=unknown)


def _needed(field: Field, names: list[str], default: str) -> int:
    name = field.text(default)
    if not name or name not in names:
        raise field.lacks(f"the unknown token {name!r} outside the vocabulary")
    return names.index(name)


def _unigram(field: Field, byte_level: bool, special: Special) -> Unigram:
    from lineal.tokenizers.unigram import Unigram

    rows = field["vocab"].list()
    for at, row in enumerate(rows):
        if not (isinstance(row, list) and len(row) == 2 and isinstance(row[0], str) and finite(row[1])):
            raise Field(field.file, f"{field.place}.vocab[{at}]", row).bad("a token and its score")
    unknown = field["unk_id"].number(0, len(rows) - 1) if field["unk_id"].given else None
    names = [name for name, _ in rows]
    pieces = [(name.encode(), float(score)) for name, score in rows]
    ids = {name: i for i, name in reversed([*enumerate(names)])}
    fallback = _fallback(field["byte_fallback"], ids)
    return Unigram(
        pieces, unknown=unknown, byte_fallback=fallback, silent=_silent(names, special, (unknown,))
    )


READERS: dict[str, Callable[[Field, bool, Special], Model]] = {
    "BPE": _bpe,
    "WordPiece": _wordpiece,
    "WordLevel": _wordlevel,
    "Unigram": _unigram,
}


def written_model(model: Model, names: list[str]) -> dict[str, Any]:
    """The model as tokenizer.json has it; `names` are its tokens as they are written there, "" for gaps."""
    kind = type(model).__name__
    if kind not in WRITERS:
        raise ModelError(f"a {kind} cannot be written as tokenizer.json: it has no such kind.")
    unknown = None if model.unknown is None else names[model.unknown]
    return {"type": kind, **WRITERS[kind](model, names, unknown)}


def _written_wordpiece(model: WordPiece, names: list[str], unknown: str | None) -> dict[str, Any]:
    limits = {
        "continuing_subword_prefix": model.prefix.decode(),
        "max_input_chars_per_word": model.longest_word,
    }
    return {"unk_token": unknown, **limits, "vocab": vocabulary_of(names)}


def _written_unigram(model: Unigram, names: list[str], unknown: str | None) -> dict[str, Any]:
    if model.user_defined:
        raise ModelError(
            "tokenizer.json has no pieces that always win: write a model with some for sentencepiece."
        )
    rows = [[name, score] for name, (_, score) in zip(names, model.pieces)]
    return {"unk_id": model.unknown, "vocab": rows, "byte_fallback": model.byte_fallback is not None}


def _written_bpe(model: BPE, names: list[str], unknown: str | None) -> dict[str, Any]:
    pairs = merges_of(list(model.tokens)) if model.by_rank else model.merges
    merges = [[names[left], names[right]] for left, right in pairs]
    return {
        "dropout": model.dropout or None,
        "unk_token": unknown,
        "continuing_subword_prefix": model.prefix.decode() or None,
        "end_of_word_suffix": model.suffix.decode() or None,
        "fuse_unk": model.fuse_unknown,
        "byte_fallback": model.byte_fallback is not None,
        "ignore_merges": model.ignore_merges,
        "vocab": vocabulary_of(names),
        "merges": merges,
    }


WRITERS: dict[str, Callable[[Any, list[str], str | None], dict[str, Any]]] = {
    "BPE": _written_bpe,
    "WordPiece": _written_wordpiece,
    "WordLevel": lambda _, names, unknown: {"vocab": vocabulary_of(names), "unk_token": unknown},
    "Unigram": _written_unigram,
}


def vocabulary_of(names: list[str]) -> dict[str, int]:
    """Token to id, without the gaps; ModelError when two ids are written alike."""
    found = {name: i for i, name in enumerate(names) if name}
    if len(found) != len(names) - names.count(""):
        twice = next(name for i, name in enumerate(names) if name and found[name] != i)
        raise ModelError(
            f"the token {twice!r} is written alike for two ids: such a file could not be read again."
        )
    return found


def printed(tokens: list[bytes], byte_level: bool) -> list[str]:
    """Tokens as files have them; ModelError for bytes that are no UTF-8 where nothing maps them to characters."""
    if byte_level:
        return [to_text(token) for token in tokens]
    try:
        return [token.decode() for token in tokens]
    except UnicodeDecodeError as error:
        raise ModelError(
            f"the token {error.object!r} is no UTF-8: only a byte-level vocabulary can write it."
        ) from error
