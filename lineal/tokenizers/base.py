"""What every tokenizer offers, and how a folder's tokenizer is found."""

from __future__ import annotations

import json
import os
import sys
import threading
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from lineal.errors import DataError, ModelError

TOKENIZER = "tokenizer.json"
SETTINGS = "tokenizer_config.json"


class Tokenizer(ABC):
    """Text to ids and back.

    vocab_size: one more than the largest id. bos_id, eos_id, pad_id: None where absent. stop_ids: all ids that end
    a text (eos and, for chat models, the end of a turn). prefix: ids that the model expects before any text.
    chat_template: the model's Jinja template for messages, None where absent.
    """

    vocab_size: int
    bos_id: int | None = None
    eos_id: int | None = None
    pad_id: int | None = None
    stop_ids: tuple[int, ...] = ()
    prefix: tuple[int, ...] = ()
    chat_template: str | None = None

    @abstractmethod
    def encode(self, text: str, *, special: bool = False) -> list[int]:
        """Ids of a text; nothing is added in front or behind.

        special: the written form of a special token becomes that token. It is for texts that the program wrote, such as
        a rendered chat template; what a user wrote stays text (in transformers it does not).
        """

    @abstractmethod
    def decode(self, ids: Sequence[int], skip_special: bool = True) -> str:
        """The text of ids; ids beyond the vocabulary (a model's padding rows) are passed over."""

    @abstractmethod
    def save(self, folder: str | Path) -> None:
        """Write tokenizer.json and tokenizer_config.json, readable by the `tokenizers` library."""

    def encode_prompt(self, text: str, *, special: bool = False) -> list[int]:
        """Ids of a text that starts a sequence: `prefix`, then the text."""
        return [*self.prefix, *self.encode(text, special=special)]

    def stream(self) -> TextStream:
        """A decoder that takes one id at a time."""
        return TextStream(self)


class TextStream:
    """Decodes ids one by one: `push` returns only text that later ids can no longer change.

    Ids are decoded together with a few before them, since some tokenizers drop a space at the start of a text, and
    text is held back while it ends in an unfinished character.
    """

    def __init__(self, tokenizer: Tokenizer):
        self._tokenizer = tokenizer
        self._ids: list[int] = []
        self._context = self._shown = 0

    def push(self, token: int) -> str:
        """Take one id and return the text that it completes, maybe none."""
        self._ids.append(token)
        text = self._tokenizer.decode(self._ids[self._context :])
        if text.endswith("\N{REPLACEMENT CHARACTER}"):
            return ""
        return self._show(text)

    def finish(self) -> str:
        """The text still held back; an unfinished character becomes the replacement character."""
        return self._show(self._tokenizer.decode(self._ids[self._context :]))

    def _show(self, text: str) -> str:
        before = self._tokenizer.decode(self._ids[self._context : self._shown])
        # Ids that show nothing (special tokens) are no context: the next would be the first of its text.
        if len(text) > len(before):
            self._context = self._shown
        self._shown = len(self._ids)
        return text[len(before) :]


def load_tokenizer(folder: str | Path) -> Tokenizer:
    """The tokenizer of a model folder.

    A tokenizer.json that asks for a part which we lack is opened by the `tokenizers` library, and a line on standard
    error names the part. Raises ModelError when there is no tokenizer, when it is damaged, or when the library is
    needed and not installed.
    """
    from lineal.tokenizers.bytes import ByteTokenizer
    from lineal.tokenizers.characters import CharTokenizer
    from lineal.tokenizers.files.huggingface import read_huggingface
    from lineal.tokenizers.files.reading import MissingPart
    from lineal.tokenizers.hf import HFTokenizer

    folder = Path(folder)
    if not (folder / TOKENIZER).is_file():
        raise ModelError(
            f"{folder} has no {TOKENIZER}: give a folder that has one (--tokenizer), or write it once with "
            f"transformers: AutoTokenizer.from_pretrained({str(folder)!r}).save_pretrained({str(folder)!r})."
        )
    settings = read_settings(folder / SETTINGS)
    kind = settings.get("lineal_kind")
    if kind == "char":
        return CharTokenizer.load(folder)
    if kind == "byte":
        return ByteTokenizer.load(folder)
    try:
        return read_huggingface(folder)
    except MissingPart as missing:
        try:
            found = HFTokenizer.load(folder)
        except ModelError as error:
            raise ModelError(f"{missing} {error}") from error
        print(f"lineal: {missing} The tokenizers library opens it instead, more slowly.", file=sys.stderr)
        return found


def read_settings(path: Path, required: bool = False) -> dict[str, Any]:
    """A JSON object from a file; empty when there is no file, unless it is required."""
    if not path.is_file() and not required:
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{path} cannot be read as JSON ({error}): copy or download it again.") from error
    if not isinstance(found, dict):
        raise ModelError(f"{path} holds no JSON object: copy or download it again.")
    return found


def write_settings(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON object, whole or not at all."""
    write_whole(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def write_whole(path: Path, content: str | bytes) -> None:
    """Write a file so that it is there whole or not at all; ModelError when it cannot be written."""
    data = content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass")
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        with suppress(OSError):
            os.unlink(temporary)
        raise ModelError(
            f"{path} cannot be written ({error}): free some space or choose another folder."
        ) from error


def added_token(token: str, index: int) -> dict[str, Any]:
    """A special token as tokenizer.json lists it: matched in text exactly as written."""
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    return {"id": index, "content": token, **flags}


def utf8(text: str) -> bytes:
    """A text as UTF-8. DataError names half a surrogate pair, which no file can hold."""
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise DataError(
            f"the text holds the lone surrogate U+{ord(text[error.start]):04X} at character {error.start}, which UTF-8 "
            'cannot write: read it again with errors="replace", or take it out.'
        ) from None
