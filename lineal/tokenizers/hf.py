"""Any tokenizer.json, through the `tokenizers` library (extra `[hf]`)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lineal.errors import ModelError
from lineal.tokenizers.base import SETTINGS, TOKENIZER, Tokenizer, read_settings, write_settings

TEMPLATE = "chat_template.jinja"


class HFTokenizer(Tokenizer):
    """A tokenizer.json as the model's author wrote it, with the special tokens and chat template of its folder.

    eos_id comes from tokenizer_config.json, else generation_config.json, else config.json; stop_ids are those of
    all three. prefix is what the tokenizer's own post-processor puts before a text (Llama's <s>, say).
    """

    def __init__(self, content: str, settings: dict[str, Any], stop_ids: Sequence[int] = ()):
        self._content, self._settings = content, settings
        self._inner = _open(content)
        self._inner.no_truncation()
        self._inner.no_padding()
        vocabulary: dict[str, int] = self._inner.get_vocab(with_added_tokens=True)
        self.vocab_size = max(vocabulary.values(), default=-1) + 1
        self.bos_id, eos_id, self.pad_id = (self._special(vocabulary, name) for name in ("bos", "eos", "pad"))
        self.eos_id = eos_id if eos_id is not None else next(iter(stop_ids), None)
        own = () if self.eos_id is None else (self.eos_id,)
        self.stop_ids = tuple(dict.fromkeys((*own, *stop_ids)))
        self.prefix = self._prefix()
        self.chat_template = _template(settings.get("chat_template"))

    @classmethod
    def load(cls, folder: str | Path) -> HFTokenizer:
        """Read a folder's tokenizer.json, tokenizer_config.json, chat template and stop ids."""
        folder = Path(folder)
        path = folder / TOKENIZER
        try:
            content = path.read_text(encoding="utf-8")
            settings = {
                **read_settings(folder / "special_tokens_map.json"),
                **read_settings(folder / SETTINGS),
            }
            if (folder / TEMPLATE).is_file():
                settings["chat_template"] = (folder / TEMPLATE).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ModelError(f"{path} cannot be read ({error}): copy or download it again.") from error
        stop_ids: list[int] = []
        for name in ("generation_config.json", "config.json"):
            found = read_settings(folder / name).get("eos_token_id")
            stop_ids += [i for i in (found if isinstance(found, list) else [found]) if isinstance(i, int)]
        try:
            return cls(content, settings, stop_ids)
        except ModelError as error:
            raise ModelError(f"{path}: {error}") from error

    def encode(self, text: str, *, special: bool = True) -> list[int]:
        """Ids of a text, without what the post-processor would add."""
        self._inner.encode_special_tokens = not special
        return self._inner.encode(text, add_special_tokens=False).ids

    def decode(self, ids: Sequence[int], skip_special: bool = True) -> str:
        """The text of ids."""
        return self._inner.decode(list(ids), skip_special_tokens=skip_special)

    def save(self, folder: str | Path) -> None:
        """Write tokenizer.json as it was read, and its settings."""
        folder = Path(folder)
        settings = {"tokenizer_class": "PreTrainedTokenizerFast", **self._settings}
        write_settings(folder / SETTINGS, settings)
        try:
            (folder / TOKENIZER).write_text(self._content, encoding="utf-8")
        except OSError as error:
            raise ModelError(f"{folder / TOKENIZER} cannot be written ({error}).") from error

    def _special(self, vocabulary: dict[str, int], name: str) -> int | None:
        token = self._settings.get(f"{name}_token")
        content = token.get("content") if isinstance(token, dict) else token
        return vocabulary.get(content) if isinstance(content, str) else None

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


def _template(found: Any) -> str | None:
    if isinstance(found, list):
        named = {entry.get("name"): entry.get("template") for entry in found if isinstance(entry, dict)}
        found = named.get("default")
    return found if isinstance(found, str) else None
