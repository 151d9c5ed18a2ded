"""Settings beside a tokenizer.json."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lineal.errors import ModelError
from lineal.tokenizers.settings import Settings


def folder(path: Path, **files: Any) -> Path:
    """A folder with these JSON files."""
    for name, content in files.items():
        (path / f"{name}.json").write_text(json.dumps(content))
    return path


def test_an_empty_folder_says_nothing(tmp_path: Path) -> None:
    assert Settings.read(tmp_path) == Settings({}, ())
    assert Settings().token("eos") is None
    assert Settings().stop_ids(None) == ()


def test_what_is_written_comes_back(tmp_path: Path) -> None:
    values = {"eos_token": {"content": "</s>", "lstrip": False}, "chat_template": "{{ x }}", "other": [1]}
    Settings(values).write(tmp_path / "new")
    again = Settings.read(tmp_path / "new")
    assert again.values == {"tokenizer_class": "PreTrainedTokenizerFast", **values}
    assert (again.token("eos"), again.token("bos"), again.chat_template) == ("</s>", None, "{{ x }}")


def test_the_configuration_wins_over_the_older_map(tmp_path: Path) -> None:
    folder(
        tmp_path, special_tokens_map={"bos_token": "a", "eos_token": "b"}, tokenizer_config={"eos_token": "c"}
    )
    found = Settings.read(tmp_path)
    assert (found.token("bos"), found.token("eos")) == ("a", "c")


def test_ends_come_from_every_file_once(tmp_path: Path) -> None:
    folder(tmp_path, generation_config={"eos_token_id": [3, 1]}, config={"eos_token_id": 1})
    assert Settings.read(tmp_path).stop_ids(7) == (7, 3, 1)


@pytest.mark.parametrize("content", ["{", "[]", '{"a": ' * 100_000, "\udcff"])
def test_damaged_settings_are_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "tokenizer_config.json").write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(ModelError, match=r"tokenizer_config\.json"):
        Settings.read(tmp_path)


def test_a_template_that_is_no_text_is_named(tmp_path: Path) -> None:
    (tmp_path / "chat_template.jinja").write_bytes(b"\xff")
    with pytest.raises(ModelError, match=r"chat_template\.jinja cannot be read"):
        Settings.read(tmp_path)
