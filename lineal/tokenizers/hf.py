"""Any tokenizer.json, through the `tokenizers` library (extra `[hf]`)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lineal.errors import ModelError
from lineal.tokenizers.base import TOKENIZER, Tokenizer, utf8, write_whole
from lineal.tokenizers.settings import Settings


class HFTokenizer(Tokenizer):
    """A tokenizer.json as the model's author wrote it, with the special tokens and chat template of its folder.

    eos_id comes from tokenizer_config.json, else generation_config.json, else config.json; stop_ids are those of
    all three. prefix is what the tokenizer's own post-processor puts before a text (Llama's <s>, say).
    """

    def __init__(self, content: str, settings: Settings):
        self._content, self._settings = content, settings
        self._inner = _open(content)
        self._inner.no_truncation()
        self._inner.no_padding()
        vocabulary: dict[str, int] = self._inner.get_vocab(with_added_tokens=True)
        self.vocab_size = max(vocabulary.values(), default=-1) + 1
        self.bos_id, eos_id, self.pad_id = (self._special(vocabulary, name) for name in ("bos", "eos", "pad"))
        self.eos_id = eos_id if eos_id is not None else next(iter(settings.ends), None)
        self.stop_ids = settings.stop_ids(self.eos_id)
        self.prefix = self._prefix()
        self.chat_template = settings.chat_template

    @classmethod
    def load(cls, folder: str | Path) -> HFTokenizer:
        """Read a folder's tokenizer.json, tokenizer_config.json, chat template and stop ids."""
        path = Path(folder) / TOKENIZER
        try:
            content = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ModelError(f"{path} cannot be read ({error}): copy or download it again.") from error
        settings = Settings.read(folder)
        try:
            return cls(content, settings)
        except ModelError as error:
            raise ModelError(f"{path}: {error}") from error

    def encode(self, text: str, *, special: bool = False) -> list[int]:
        """Ids of a text, without what the post-processor would add. DataError for half a surrogate pair."""
        self._inner.encode_special_tokens = not special
        utf8(text)
        return self._inner.encode(text, add_special_tokens=False).ids

    def decode(self, ids: Sequence[int], skip_special: bool = True) -> str:
        """The text of ids."""
        return self._inner.decode(list(ids), skip_special_tokens=skip_special)

    def save(self, folder: str | Path) -> None:
        """Write tokenizer.json as it was read, and its settings."""
        self._settings.write(folder)
        write_whole(Path(folder) / TOKENIZER, self._content)

    def _special(self, vocabulary: dict[str, int], name: str) -> int | None:
        token = self._settings.token(name)
        return None if token is None else vocabulary.get(token)

    def _prefix(self) -> tuple[int, ...]:
        # Compared on a text, not on the empty one: some post-processors also add tokens behind.
        plain = self._inner.encode("a", add_special_tokens=False).ids
        whole = self._inner.encode("a", add_special_tokens=True).ids
        for start in range(len(whole) - len(plain) + 1):
            if whole[start : start + len(plain)] == plain:
                return tuple(whole[:start])
        return ()


def _open(content: str) -> Any:
    try:
        import tokenizers
    except ImportError as error:
        raise ModelError(
            "this tokenizer.json needs the tokenizers library, which is not installed: pip install 'lineal[hf]'."
        ) from error
    try:
        return tokenizers.Tokenizer.from_str(content)
    except Exception as error:
        raise ModelError(
            f"the tokenizers library cannot read it ({error}): copy or download it again."
        ) from error
