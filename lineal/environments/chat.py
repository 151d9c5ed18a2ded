"""Chat templates: a model's own, rendered in an immutable sandbox inside a process with limits.

A template is a program that came with a model. The sandbox keeps it from Python's internals; the process
bounds its time, memory and output.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from lineal.environments.worker import Limits, Worker, WorkerFailure
from lineal.errors import ModelError, UsageError

LONGEST_TEMPLATE = 1 << 20
"""Bytes of a template that is read at all."""

LONGEST_PROMPT = 1 << 20
"""Characters of a rendered prompt."""

LIMITS = Limits(seconds=5.0, start_seconds=60.0, memory_bytes=1 << 29)
"""Seconds for BATCH conversations, and the address space of the process."""

BATCH = 100

OLDEST_JINJA = (3, 1, 6)
"""Older versions have known escapes from the sandbox."""


class ChatTemplate:
    """Renders conversations with a chat template; a context manager that owns its process.

    source: the Jinja text. tokens: the special tokens it may write (bos_token, eos_token, ...). now: the time
    that `strftime_now` shows, fixed when it is made so that a resumed run can be given the same (ISO format).
    """

    def __init__(
        self,
        source: str,
        tokens: Mapping[str, str] | None = None,
        *,
        now: str | None = None,
        limits: Limits = LIMITS,
    ) -> None:
        _require_jinja()
        if len(source) > LONGEST_TEMPLATE:
            raise ModelError(
                f"the chat template has {len(source)} characters; {LONGEST_TEMPLATE} are read at most."
            )
        self.source, self.tokens = source, dict(tokens or {})
        self.now = now or datetime.now().isoformat(timespec="seconds")
        self._limits = limits
        self._worker = Worker(Path(__file__).with_name("chat_child.py"), "render", limits)

    def __enter__(self) -> ChatTemplate:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the process."""
        self._worker.close()

    def render(
        self,
        conversations: Sequence[Sequence[Mapping[str, Any]]],
        *,
        add_generation_prompt: bool = True,
        **variables: Any,
    ) -> list[str]:
        """One prompt per conversation. Raises ModelError when the template refuses or misbehaves."""
        defaults = {"tools": None, "documents": None, "add_generation_prompt": add_generation_prompt}
        variables = {**defaults, **self.tokens, **variables}
        texts: list[str] = []
        for start in range(0, len(conversations), BATCH):
            texts += self._batch([list(c) for c in conversations[start : start + BATCH]], variables, start)
        return texts

    def _batch(self, conversations: list[Any], variables: dict[str, Any], start: int) -> list[str]:
        arguments = {
            "template": self.source,
            "conversations": conversations,
            "variables": variables,
            "now": self.now,
            "most": LONGEST_PROMPT,
        }
        try:
            answer = self._worker.call(arguments)["value"]
        except WorkerFailure as error:
            raise ModelError(
                f"the chat template {error}, so it was stopped: it may be hostile or broken; use another "
                "one, or leave out --chat."
            ) from error
        except (TypeError, ValueError) as error:
            raise ModelError(
                f"messages must be plain text, numbers, lists and objects to be rendered ({error})."
            ) from error
        if "refused" in answer:
            raise ModelError(
                f"the chat template refused conversation {start + answer['index']}: {answer['refused']}. "
                "Check the roles and the order of its messages, or use another template."
            )
        return answer["texts"]


def _require_jinja() -> None:
    try:
        version = metadata.version("jinja2")
    except metadata.PackageNotFoundError as error:
        raise UsageError(
            "chat templates need jinja2, which is not installed: pip install 'lineal[hf]'."
        ) from error
    if tuple(int(part) for part in re.findall(r"\d+", version)[:3]) < OLDEST_JINJA:
        oldest = ".".join(map(str, OLDEST_JINJA))
        raise UsageError(
            f"chat templates need jinja2 {oldest} or newer, whose sandbox is sound; {version} is installed: "
            "pip install -U jinja2."
        )


def render(
    source: str,
    messages: Sequence[Mapping[str, Any]],
    add_generation_prompt: bool = True,
    tokens: Mapping[str, str] | None = None,
) -> str:
    """One conversation as text; see `ChatTemplate`, which is faster for many."""
    with ChatTemplate(source, tokens) as template:
        return template.render([messages], add_generation_prompt=add_generation_prompt)[0]


def load_chat_template(folder: Path, *, now: str | None = None) -> ChatTemplate:
    """The template of a model folder: `chat_template.jinja`, else `chat_template` in tokenizer_config.json.

    Raises UsageError when it has none, ModelError when its files cannot be read.
    """
    config = _tokenizer_config(folder)
    file = folder / "chat_template.jinja"
    try:
        source = file.read_text(encoding="utf-8") if file.is_file() else config.get("chat_template")
    except (OSError, UnicodeDecodeError) as error:
        raise ModelError(f"{file} cannot be read as UTF-8 text ({error}).") from error
    if isinstance(source, list):  # several named templates
        named = {t.get("name"): t.get("template") for t in source if isinstance(t, dict)}
        source = named.get("default")
    if not isinstance(source, str):
        raise UsageError(
            f"{folder} has no chat template (no chat_template.jinja, none in tokenizer_config.json): leave "
            "out --chat, or use a model that was made for chat."
        )
    tokens = {name: _token_text(value) for name, value in config.items() if name.endswith("_token")}
    return ChatTemplate(source, {name: text for name, text in tokens.items() if text is not None}, now=now)


def _tokenizer_config(folder: Path) -> dict[str, Any]:
    path = folder / "tokenizer_config.json"
    if not path.is_file():
        return {}
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{path} is not JSON ({error}): copy the model's folder again.") from error
    if not isinstance(config, dict):
        raise ModelError(f"{path} holds no JSON object: copy the model's folder again.")
    return config


def _token_text(value: Any) -> str | None:
    text = value.get("content") if isinstance(value, dict) else value
    return text if isinstance(text, str) else None
