"""SentencePiece's model files, read and written without its library.

A file is one message, ModelProto: `pieces` (text, score, kind), `trainer_spec`, `normalizer_spec`, and what else there may
be. Fields that are not used here are carried through, so that a file that was read is written back with nothing lost.
(Field numbers: sentencepiece_model.proto of github.com/google/sentencepiece.)
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

from lineal.errors import ModelError, UsageError
from lineal.tokenizers.text.charsmap import SentencePieceNormaliser
from lineal.tokenizers.wire import BYTES, FOUR, VARINT, Field, read_fields, real, signed, varint, write_fields

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
KINDS = {"unigram": 1, "bpe": 2, "word": 3, "char": 4}
TRAINER = {
    "model_type": 3,
    "vocab_size": 4,
    "treat_whitespace_as_suffix": 24,
    "byte_fallback": 35,
    "unk_id": 40,
    "bos_id": 41,
    "eos_id": 42,
    "pad_id": 43,
    "unk_surface": 44,
    "unk_piece": 45,
    "bos_piece": 46,
    "eos_piece": 47,
    "pad_piece": 48,
}
"""Numbers of the fields of trainer_spec that say how a text is encoded and decoded."""
DEFAULTS: dict[str, int | bytes] = {
    "model_type": 1,
    "vocab_size": 8000,
    "unk_id": 0,
    "bos_id": 1,
    "eos_id": 2,
    "pad_id": -1,
    "unk_surface": " \N{DOUBLE QUESTION MARK} ".encode(),
    "unk_piece": b"<unk>",
    "bos_piece": b"<s>",
    "eos_piece": b"</s>",
    "pad_piece": b"<pad>",
}
NORMALISER = {"add_dummy_prefix": 3, "remove_extra_whitespaces": 4, "escape_whitespaces": 5}
LONGEST = 8000
"""SentencePiece itself refuses a piece of so many bytes."""


class Piece(NamedTuple):
    """A piece: its bytes, its score, its kind (NORMAL, ...), and fields that are not known here."""

    text: bytes
    score: float
    kind: int = NORMAL
    rest: tuple[Field, ...] = ()


@dataclass(frozen=True)
class SentencePieceModel:
    """What a SentencePiece model file says.

    pieces: one for each id. trainer, normaliser: the fields of trainer_spec and normalizer_spec; `setting` and
    `text_normaliser` read them. rest: what else is in the file.
    """

    pieces: tuple[Piece, ...]
    trainer: tuple[Field, ...] = ()
    normaliser: tuple[Field, ...] = field(default=(), repr=False)
    rest: tuple[Field, ...] = ()

    def setting(self, name: str) -> int:
        """A number or switch of trainer_spec, or its default."""
        value = _last(self.trainer, TRAINER[name], DEFAULTS.get(name, 0))
        return signed(value) if isinstance(value, int) else 0

    def words(self, name: str) -> str:
        """A text of trainer_spec, or its default."""
        value = _last(self.trainer, TRAINER[name], DEFAULTS[name])
        return value.decode("utf-8", "replace") if isinstance(value, bytes) else ""

    @property
    def kind(self) -> str:
        """Which model cuts the text: unigram, bpe, word or char."""
        names = {number: name for name, number in KINDS.items()}
        return names.get(self.setting("model_type"), "unigram")

    def ids(self, *kinds: int) -> tuple[int, ...]:
        """The ids of pieces of these kinds."""
        return tuple(index for index, piece in enumerate(self.pieces) if piece.kind in kinds)

    @property
    def unknown(self) -> int:
        """The id of the unknown piece."""
        return self.ids(UNKNOWN)[0]

    @property
    def byte_ids(self) -> tuple[int, ...] | None:
        """The ids of the 256 byte pieces, by byte; None without byte fallback."""
        if not self.setting("byte_fallback"):
            return None
        found = {self.pieces[index].text: index for index in self.ids(BYTE)}
        return tuple(found[b"<0x%02X>" % byte] for byte in range(256))

    @property
    def text_normaliser(self) -> SentencePieceNormaliser:
        """What is done to a text before it is cut."""
        charsmap = _last(self.normaliser, 2, b"")
        switches = {name: bool(_last(self.normaliser, number, 1)) for name, number in NORMALISER.items()}
        kept = sorted((self.pieces[index].text for index in self.ids(USER_DEFINED)), key=len, reverse=True)
        return SentencePieceNormaliser(
            charsmap if isinstance(charsmap, bytes) else b"",
            **switches,
            treat_whitespace_as_suffix=bool(self.setting("treat_whitespace_as_suffix")),
            keep=tuple(text.decode("utf-8", "replace") for text in kept),
        )

    def special(self) -> dict[str, int]:
        """The ids of the unknown, start, end and padding pieces that the model has, by role (unk, bos, eos, pad)."""
        place = {piece.text: index for index, piece in enumerate(self.pieces)}
        names = {role: self.words(f"{role}_piece").encode() for role in ("bos", "eos", "pad")}
        found = {role: place[name] for role, name in names.items() if name in place}
        return {"unk": self.unknown} | {
            role: at for role, at in found.items() if self.pieces[at].kind == CONTROL
        }

    def with_settings(self, **settings: int | str) -> SentencePieceModel:
        """The same with other settings of trainer_spec."""
        kept = tuple(entry for entry in self.trainer if entry[0] not in {TRAINER[name] for name in settings})
        return replace(self, trainer=(*kept, *_settings(settings)))


def _last(fields: Sequence[Field], number: int, otherwise: int | bytes) -> int | bytes:
    """The last value of a field, as a reader of Protocol Buffers takes it."""
    for found, _, value in reversed(fields):
        if found == number:
            return value
    return otherwise


def _settings(settings: dict[str, int | str]) -> Iterable[Field]:
    for name, value in settings.items():
        if isinstance(value, int):
            # As it is read again: a negative number is its complement of 64 bits.
            yield TRAINER[name], VARINT, value & 0xFFFFFFFFFFFFFFFF
        else:
            yield TRAINER[name], BYTES, value.encode()


def build_model(
    pieces: Sequence[Piece],
    normaliser: SentencePieceNormaliser,
    *,
    kind: str = "unigram",
    name: str = "lineal",
    **settings: int | str,
) -> SentencePieceModel:
    """A model of pieces and a normaliser, ready to be written.

    kind: unigram, bpe, word or char. name: what normalizer_spec calls its rules. settings: other settings of
    trainer_spec, by the names of TRAINER. Raises UsageError for a kind or setting that is not known.
    """
    if kind not in KINDS or not settings.keys() <= TRAINER.keys():
        unknown = [key for key in (*settings, kind) if key not in TRAINER and key not in KINDS]
        raise UsageError(
            f"{unknown[0]!r} is no kind or setting of a SentencePiece model: use {', '.join([*KINDS, *TRAINER])}."
        )
    bytes_too = any(piece.kind == BYTE for piece in pieces)
    found: dict[str, int | str] = {"model_type": KINDS[kind], "vocab_size": len(pieces)}
    found |= {"byte_fallback": 1} if bytes_too else {}
    found |= {"treat_whitespace_as_suffix": 1} if normaliser.treat_whitespace_as_suffix else {}
    rules: list[Field] = [(1, BYTES, name.encode()), (2, BYTES, normaliser.charsmap)]
    rules += [(number, VARINT, int(getattr(normaliser, switch))) for switch, number in NORMALISER.items()]
    model = SentencePieceModel(tuple(pieces), tuple(_settings(found | settings)), tuple(rules))
    _check(model, "the model")
    return model


def read_model(path: str | Path) -> SentencePieceModel:
    """Read a model file. Raises ModelError, with the file and the field, when it is damaged or of another kind."""
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise ModelError(f"{path} cannot be read ({error}): give a SentencePiece model file.") from error
    return parse_model(data, str(path))


def parse_model(data: bytes, where: str = "the model") -> SentencePieceModel:
    """A model from the bytes of its file. where: what it is called in errors."""
    pieces: list[Piece] = []
    trainer: list[Field] = []
    normaliser: list[Field] = []
    rest: list[Field] = []
    for number, kind, value in read_fields(data, where):
        if kind == BYTES and isinstance(value, bytes) and number <= 3:
            name = (f"pieces[{len(pieces)}]", "trainer_spec", "normalizer_spec")[number - 1]
            if number == 1:
                pieces.append(_quick(value) or _piece(value, f"{where}: {name}"))
            else:
                (trainer if number == 2 else normaliser).extend(read_fields(value, f"{where}: {name}"))
        else:
            rest.append((number, kind, value))
    model = SentencePieceModel(tuple(pieces), tuple(trainer), tuple(normaliser), tuple(rest))
    _check(model, where)
    return model


def _quick(data: bytes) -> Piece | None:
    """A piece as libraries write it: text, score, maybe a kind, each once and short; None for any other layout."""
    size = data[1] if len(data) > 6 and data[0] == 10 else 128
    end = size + 2
    if size > 127 or data[end : end + 1] != b"\x15" or len(data) not in (end + 5, end + 7):
        return None
    kind = NORMAL
    if len(data) == end + 7:
        kind = data[end + 6]
        if data[end + 5] != 24 or kind > 127:
            return None
    return Piece(data[2:end], struct.unpack_from("<f", data, end + 1)[0], kind)


def _piece(data: bytes, where: str) -> Piece:
    text, score, kind, rest = b"", 0.0, NORMAL, []
    for number, wire, value in read_fields(data, where):
        if number == 1 and wire == BYTES and isinstance(value, bytes):
            text = value
        elif number == 2 and wire == FOUR and isinstance(value, bytes):
            score = struct.unpack("<f", value)[0]
        elif number == 3 and wire == VARINT and isinstance(value, int):
            kind = value
        else:
            rest.append((number, wire, value))
    return Piece(text, score, kind, tuple(rest))


def _check(model: SentencePieceModel, where: str) -> None:
    """What SentencePiece asks of a model, and that scores are numbers. Raises ModelError with the field."""
    seen: dict[bytes, int] = {}
    for at, piece in enumerate(model.pieces):
        wrong = ""
        if not piece.text or b"\0" in piece.text or len(piece.text) >= LONGEST:
            wrong = f"piece is {'empty' if not piece.text else 'too long or has a zero byte'}"
        elif not math.isfinite(piece.score):
            wrong = f"score is {piece.score}"
        elif not NORMAL <= piece.kind <= BYTE:
            wrong = f"type is {piece.kind}, of which nothing is known"
        elif seen.setdefault(piece.text, at) != at:
            wrong = f"piece {piece.text!r} stands at {seen[piece.text]} already"
        elif piece.kind == BYTE and not model.setting("byte_fallback"):
            wrong = "is a byte piece, but trainer_spec.byte_fallback is off"
        if wrong:
            raise ModelError(f"{where}: pieces[{at}].{wrong}: the file is damaged; get it again.")
    unknown = len(model.ids(UNKNOWN))
    if unknown != 1:
        raise ModelError(
            f"{where}: pieces has {unknown} of type UNKNOWN, where one is needed: is it a SentencePiece model?"
        )
    if model.setting("byte_fallback"):
        there = {*model.ids(BYTE)}
        missing = [byte for byte in range(256) if seen.get(b"<0x%02X>" % byte, -1) not in there]
        if missing:
            raise ModelError(
                f"{where}: pieces lacks <0x{missing[0]:02X}>, though trainer_spec.byte_fallback is on."
            )


def write_model(model: SentencePieceModel, path: str | Path) -> None:
    """Write a model file that SentencePiece opens. Raises ModelError when it cannot be written; nothing half-written stays."""
    path = Path(path)
    beside = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        beside.write_bytes(model_bytes(model))
        beside.replace(path)
    except OSError as error:
        with suppress(OSError):
            beside.unlink()
        raise ModelError(
            f"{path} cannot be written ({error}): free some space or choose another folder."
        ) from error


def model_bytes(model: SentencePieceModel) -> bytes:
    """The bytes of a model's file."""
    out = bytearray()
    for piece in model.pieces:
        kind: tuple[Field, ...] = () if piece.kind == NORMAL else ((3, VARINT, piece.kind),)
        entry = write_fields(((1, BYTES, piece.text), (2, FOUR, real(piece.score)), *kind, *piece.rest))
        out += b"\x0a" + varint(len(entry)) + entry
    specs: list[Field] = []
    if model.trainer:
        specs.append((2, BYTES, write_fields(model.trainer)))
    if model.normaliser:
        specs.append((3, BYTES, write_fields(model.normaliser)))
    return bytes(out) + write_fields((*specs, *model.rest))
