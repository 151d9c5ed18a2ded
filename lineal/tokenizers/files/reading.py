"""Reading a file that anybody may have written: bounded, and with an error that names the file and the field."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lineal.errors import ModelError

LARGEST = 1 << 27
"""Bytes of a tokenizer's file that are read at all; the largest in use have 35 million."""

MOST = 1 << 23
"""Values in a JSON file: what bounds the memory that reading takes. The largest in use have two million."""


class MissingPart(ModelError):
    """A tokenizer's file is sound, but asks for a part that this package does not have."""


@dataclass(frozen=True)
class Field:
    """A value of a JSON file and where it stands."""

    file: str
    place: str
    value: Any

    def __getitem__(self, name: str) -> Field:
        """A field of this object; its value is None when it is not there."""
        if not isinstance(self.value, dict):
            raise self.bad("an object")
        return Field(self.file, f"{self.place}.{name}".lstrip("."), self.value.get(name))

    @property
    def given(self) -> bool:
        """Whether there is anything but null."""
        return self.value is not None

    def bad(self, wanted: str) -> ModelError:
        """The error for a value that is not what was wanted."""
        shown = repr(self.value)
        shown = shown if len(shown) <= 60 else f"{shown[:57]}..."
        return ModelError(
            f"{self.file}: {self.place or 'the file'} must be {wanted}, not {shown}: copy or download it again."
        )

    def lacks(self, what: str) -> MissingPart:
        """The error for a part that this package does not have."""
        return MissingPart(f"{self.file}: {self.place} asks for {what}, which lineal does not have.")

    def text(self, default: str | None = None) -> str:
        """Its text, or the default for null."""
        value = default if self.value is None else self.value
        if not isinstance(value, str):
            raise self.bad("a text")
        return value

    def flag(self, default: bool = False) -> bool:
        """True or false, or the default for null."""
        value = default if self.value is None else self.value
        if not isinstance(value, bool):
            raise self.bad("true or false")
        return value

    def number(self, low: int, high: int, default: int | None = None) -> int:
        """A whole number from low to high, or the default for null."""
        value = default if self.value is None else self.value
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise self.bad(f"a whole number from {low} to {high}")
        return value

    def share(self) -> float:
        """A number from 0 to 1; 0 for null."""
        value = 0.0 if self.value is None else self.value
        if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 <= value <= 1:
            raise self.bad("a number from 0 to 1")
        return float(value)

    def list(self) -> list[Any]:
        """Its list."""
        if not isinstance(self.value, list):
            raise self.bad("a list")
        return self.value

    def object(self) -> dict[str, Any]:
        """Its object."""
        if not isinstance(self.value, dict):
            raise self.bad("an object")
        return self.value

    def items(self) -> Iterator[Field]:
        """The fields of its list."""
        return (Field(self.file, f"{self.place}[{i}]", value) for i, value in enumerate(self.list()))


def read_bytes(path: Path) -> bytes:
    """A file's bytes; ModelError for one that cannot be read or is too large to be a tokenizer's."""
    try:
        size = path.stat().st_size
        if size > LARGEST:
            raise ModelError(
                f"{path} has {size:,} bytes, and {LARGEST:,} are read at most: it is no tokenizer's file."
            )
        return path.read_bytes()
    except OSError as error:
        raise ModelError(f"{path} cannot be read ({error}): copy or download it again.") from error


def read_text(path: Path) -> str:
    """A UTF-8 file's text; ModelError names the byte that is not."""
    try:
        return read_bytes(path).decode()
    except UnicodeDecodeError as error:
        raise ModelError(f"{path} is not UTF-8 at byte {error.start}: copy or download it again.") from error


def read_json(path: Path) -> Field:
    """A JSON file's content. ModelError for what is no JSON, too deep, or has too many values."""
    data = read_bytes(path)
    if data.count(b",") + data.count(b"[") + data.count(b"{") > MOST:
        raise ModelError(f"{path} has more than {MOST:,} values: it is no tokenizer's file.")
    try:
        found = json.loads(data.decode("utf-8-sig"), parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise ModelError(
            f"{path} cannot be read as JSON ({_short(error)}): copy or download it again."
        ) from error
    return Field(str(path), "", found)


def _no_number(text: str) -> Any:
    raise ValueError(f"{text} is no number")


def _short(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    return f"byte {error.start} is not UTF-8" if isinstance(error, UnicodeDecodeError) else str(error)[:200]


def read_vocabulary(field: Field) -> list[str]:
    """Tokens in the order of their ids, from an object of token to id; gaps are empty texts.

    ModelError for ids that are no numbers, used twice, or so far apart that the file must be damaged.
    """
    vocabulary = field.object()
    ids = list(vocabulary.values())
    if not all(type(i) is int for i in ids):
        odd = next(token for token, i in vocabulary.items() if type(i) is not int)
        raise Field(field.file, f"{field.place}[{odd!r}]", vocabulary[odd]).bad("a whole number")
    most = max(ids, default=-1)
    if min(ids, default=0) < 0 or most > 2 * len(ids) + 65536:
        worst = most if most > 2 * len(ids) + 65536 else min(ids)
        raise ModelError(
            f"{field.file}: {field.place} has the id {worst} for {len(ids)} tokens: it is damaged."
        )
    tokens = [""] * (most + 1)
    for token, i in vocabulary.items():
        tokens[i] = token
    if len(set(ids)) != len(ids):
        seen: dict[int, str] = {}
        for token, i in vocabulary.items():
            if i in seen:
                raise ModelError(
                    f"{field.file}: {field.place} has the id {i} twice, for {seen[i]!r} and {token!r}."
                )
            seen[i] = token
    return tokens


def finite(value: Any) -> bool:
    """Whether a value is a number that is neither infinite nor nan."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def one_of(field: Field, names: Sequence[str], default: str | None = None) -> str:
    """A text that is one of the names."""
    found = field.text(default)
    if found not in names:
        raise field.bad(" or ".join(names))
    return found
