"""What lies beside a tokenizer.json: names of special tokens, ids that end a text, the chat template."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lineal.errors import ModelError
from lineal.tokenizers.base import SETTINGS, read_settings, write_settings

TEMPLATE = "chat_template.jinja"


@dataclass(frozen=True)
class Settings:
    """tokenizer_config.json with the older special_tokens_map.json under it, and the end tokens of other files.

    values: as they were read; what nothing here uses is kept for writing. ends: eos ids of generation_config.json, then
    of config.json.
    """

    values: Mapping[str, Any] = field(default_factory=dict)
    ends: tuple[int, ...] = ()

    @classmethod
    def read(cls, folder: str | Path) -> Settings:
        """The settings of a model folder; files that are not there say nothing. ModelError for damaged ones."""
        folder = Path(folder)
        values = {**read_settings(folder / "special_tokens_map.json"), **read_settings(folder / SETTINGS)}
        path = folder / TEMPLATE
        try:
            if path.is_file():
                values["chat_template"] = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ModelError(f"{path} cannot be read ({error}): copy or download it again.") from error
        ends: list[int] = []
        for name in ("generation_config.json", "config.json"):
            found = read_settings(folder / name).get("eos_token_id")
            ends += [i for i in (found if isinstance(found, list) else [found]) if isinstance(i, int)]
        return cls(values, tuple(ends))

    def write(self, folder: str | Path) -> None:
        """Write tokenizer_config.json."""
        write_settings(Path(folder) / SETTINGS, {"tokenizer_class": "PreTrainedTokenizerFast", **self.values})

    def token(self, name: str) -> str | None:
        """The written form of a special token ("bos", "eos", "pad", "unk"), which may stand alone or in an object."""
        found = self.values.get(f"{name}_token")
        content = found.get("content") if isinstance(found, dict) else found
        return content if isinstance(content, str) else None

    @property
    def chat_template(self) -> str | None:
        """The model's Jinja template; of several the one named default."""
        found = self.values.get("chat_template")
        if isinstance(found, list):
            named = {entry.get("name"): entry.get("template") for entry in found if isinstance(entry, dict)}
            found = named.get("default")
        return found if isinstance(found, str) else None

    def stop_ids(self, eos: int | None) -> tuple[int, ...]:
        """All ids that end a text: `eos`, then those of the other files."""
        return tuple(dict.fromkeys((*(() if eos is None else (eos,)), *self.ends)))
