"""Text tasks: prompts with the columns their rewards need, split by a hash of the prompt."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, runtime_checkable

from lineal.environments.scoring import Samples
from lineal.errors import DataError, UsageError

COMPLETION_FIELDS = ("completion", "answer", "solution")
"""Where the gold answer is looked for when no field is named."""

VALIDATION_SHARE = 0.25
"""Of the held-out share, the part that stopping rules may look at; final figures use the rest."""


@dataclass(frozen=True)
class Example:
    """One prompt and what is known about it.

    prompt: the text the model reads, a chat template already applied.
    columns: the row's other fields, and the gold answer as `answer` unless the row has its own.
    completion: the gold answer as text, "" when there is none. messages: the prompt's messages, for chat
    data; reward functions then see messages instead of text, as in TRL. rendered: a chat template wrote the prompt.
    """

    prompt: str
    columns: Mapping[str, Any] = field(default_factory=dict)
    completion: str = ""
    messages: tuple[Mapping[str, Any], ...] | None = None
    rendered: bool = False


@dataclass(frozen=True)
class TextTask:
    """Prompts to train on, for stopping rules, and for final figures only; no prompt is in two of them.

    rewards: the task's own reward names. max_new_tokens: enough for its answers, None when unknown. alphabet:
    every character of its prompts and answers. notes: what a user should be told about the split.
    """

    name: str
    train: tuple[Example, ...]
    validation: tuple[Example, ...]
    held_out: tuple[Example, ...]
    rewards: tuple[str, ...] = ("exact",)
    max_new_tokens: int | None = None
    alphabet: str = ""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Fields:
    """Which columns hold the prompt and the gold answer; completion None looks for the usual names."""

    prompt: str = "prompt"
    completion: str | None = None


Parts = tuple[list[Example], list[Example], list[Example]]
"""Train, validation, held-out."""


@runtime_checkable
class Encoder(Protocol):
    """What a tokenizer must do for a task."""

    def encode(self, text: str, *, special: bool = False) -> list[int]:
        """Token ids of a text; with `special`, the written form of a special token becomes that token."""
        ...

    def encode_prompt(self, text: str) -> list[int]:
        """Token ids of a text that starts a sequence: what the model expects first, then the text."""
        ...


@runtime_checkable
class Template(Protocol):
    """What a chat template must do for a task: one text per conversation."""

    def render(self, conversations: Sequence[Sequence[Mapping[str, Any]]]) -> list[str]:
        """One prompt per conversation, ready for the assistant's turn."""
        ...


def share(key: str) -> float:
    """A number in [0, 1) that depends on the text only, evenly spread: splits are made by it."""
    digest = hashlib.blake2b(key.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64


def text_task(
    rows: Sequence[Mapping[str, Any]],
    *,
    name: str = "data",
    fields: Fields | None = None,
    held_out: float = 0.1,
    held_out_rows: Sequence[Mapping[str, Any]] | None = None,
    template: Template | None = None,
    where: Sequence[str] | None = None,
) -> TextTask:
    """A task from rows of a file: `prompt` (text or messages) or `messages`, and any other columns.

    held_out: share of the distinct prompts that is never trained on, chosen by a hash of the prompt, so that
    equal prompts stay together and new rows move none. held_out_rows: rows of a separate file to hold out
    instead; rows whose prompt occurs there are not trained on. template: applied to every prompt (chat).
    where: file:line of each row, for errors.
    Raises DataError naming the row, UsageError for rows of messages without a template.
    """
    if not 0.0 <= held_out < 1.0:
        raise UsageError(
            f"--held-out {held_out:g} is no share: choose a number from 0 up to, not including, 1."
        )
    fields = fields or Fields()
    examples = _examples(rows, fields, where, chat=template is not None)
    if not examples:
        raise DataError(f"{name} holds no rows, so there is nothing to train on: give a file with prompts.")
    test = [] if held_out_rows is None else _examples(held_out_rows, fields, None, chat=template is not None)
    if held_out_rows is not None and not test:
        raise DataError(f"the held-out file of {name} has no rows: give one with prompts, or leave it out.")
    parts = _split_with_file(examples, test, held_out) if test else _split(examples, held_out)
    if not parts[0]:
        raise DataError(f"{name} leaves no prompt to train on: hold out less, or give more rows.")
    removed = len(examples) + len(test) - sum(map(len, parts))
    note = (
        f"{removed} of {len(examples)} training rows have a prompt that is also held out: they are left out."
    )
    train, validation, held = (_rendered(part, template) for part in parts)
    alphabet = "".join(sorted({c for e in (*train, *validation, *held) for c in e.prompt + e.completion}))
    return TextTask(name, train, validation, held, alphabet=alphabet, notes=(note,) if removed else ())


def _split_with_file(examples: list[Example], test: list[Example], held_out: float) -> Parts:
    taken = {example.prompt for example in test}
    parts: Parts = ([], [], test)
    for example in examples:
        if example.prompt not in taken:
            parts[1 if share(example.prompt) < held_out * VALIDATION_SHARE else 0].append(example)
    return parts


def _split(examples: list[Example], held_out: float) -> Parts:
    """Train, validation, held-out; a file too small for its shares still holds a prompt out, if it can."""
    train: list[str] = []
    validation: list[str] = []
    test: list[str] = []
    for prompt in sorted({example.prompt for example in examples}, key=share):
        place = share(prompt)
        side = (
            test if place < held_out * (1 - VALIDATION_SHARE) else validation if place < held_out else train
        )
        side.append(prompt)
    for side, other in ((test, validation), (validation, test)):
        pool = train if len(train) > 1 else other
        if held_out > 0 and not side and len(pool) > 1:
            side.append(pool.pop(0))
    parts: Parts = ([], [], [])
    sides = {**dict.fromkeys(train, 0), **dict.fromkeys(validation, 1), **dict.fromkeys(test, 2)}
    for example in examples:
        parts[sides[example.prompt]].append(example)
    return parts


def _examples(
    rows: Sequence[Mapping[str, Any]], fields: Fields, where: Sequence[str] | None, *, chat: bool
) -> list[Example]:
    return [
        _example(row, fields, where[index] if where else f"row {index + 1}", chat=chat)
        for index, row in enumerate(rows)
    ]


def _rendered(examples: list[Example], template: Template | None) -> tuple[Example, ...]:
    """After the split, so that a template (or the date it writes) moves no prompt to another side."""
    if template is None or not examples:
        return tuple(examples)
    turns = [e.messages or ({"role": "user", "content": e.prompt},) for e in examples]
    return tuple(
        replace(e, prompt=text, rendered=True)
        for e, text in zip(examples, template.render(turns), strict=True)
    )


def _example(row: Mapping[str, Any], fields: Fields, place: str, *, chat: bool) -> Example:
    name = fields.prompt if fields.prompt in row or "messages" not in row else "messages"
    if name not in row:
        there = ", ".join(row) or "none"
        raise DataError(f"{place}: no field {name!r}; it has {there}. Name the prompt's with --prompt-field.")
    prompt = row[name]
    gold_field = fields.completion or next((f for f in COMPLETION_FIELDS if f in row and f != name), None)
    if fields.completion is not None and fields.completion not in row:
        raise DataError(
            f"{place}: no field {fields.completion!r}; it has {', '.join(row)}. Correct --completion-field."
        )
    gold = None if gold_field is None else row[gold_field]
    if isinstance(prompt, str):
        text, messages = prompt, None
    else:
        messages = _messages(prompt, name, place)
        if name == "messages" and messages[-1]["role"] == "assistant":
            said, messages = messages[-1]["content"], messages[:-1]
            gold = said if fields.completion is None else gold
        if not messages or not chat:
            _refuse_messages(place, name, empty=not messages)
        text = json.dumps(messages, sort_keys=True, ensure_ascii=False)
    completion = _gold_text(gold, gold_field or "messages", place)
    columns = {key: value for key, value in row.items() if key != name}
    if gold is not None:
        columns.setdefault("answer", completion if isinstance(gold, (list, tuple)) else gold)
    return Example(text, columns, completion, messages)


def _refuse_messages(place: str, name: str, *, empty: bool) -> None:
    if empty:
        raise DataError(
            f"{place}: {name!r} has no message before the assistant's: there is nothing to answer."
        )
    raise UsageError(
        f"{place}: {name!r} is a list of messages, and how to write them as text is the model's own affair: "
        "add --chat to apply its chat template."
    )


def _messages(value: Any, name: str, place: str) -> tuple[Mapping[str, Any], ...]:
    if not isinstance(value, (list, tuple)) or not value:
        kind = "an empty list" if value == [] or value == () else f"a {type(value).__name__}"
        raise DataError(f"{place}: {name!r} is {kind}; a prompt is text or a list of messages.")
    for message in value:
        if not isinstance(message, Mapping) or not {"role", "content"} <= set(message):
            raise DataError(f"{place}: a message of {name!r} has no role and content: {str(message)[:60]!r}.")
    return tuple(value)


def _gold_text(gold: Any, name: str, place: str) -> str:
    if gold is None:
        return ""
    if isinstance(gold, (list, tuple)):
        return str(_messages(gold, name, place)[-1]["content"])
    if isinstance(gold, (str, int, float)):
        return str(gold)
    raise DataError(
        f"{place}: the answer {name!r} is a {type(gold).__name__}; it must be text, number or messages."
    )


def encode_prompts(
    examples: Sequence[Example], tokenizer: Encoder, context: int | None = None, room: int = 1
) -> list[list[int]]:
    """Token ids of each prompt. Raises DataError for one that is empty or leaves no `room` in the context."""
    encoded = []
    for example in examples:
        # A chat template writes special tokens, the model's first one among them; plain text must not.
        ids = (
            tokenizer.encode(example.prompt, special=True)
            if example.rendered
            else tokenizer.encode_prompt(example.prompt)
        )
        start = repr(example.prompt[:40])
        if not ids:
            raise DataError(f"the prompt {start} has no tokens: a model needs at least one to start from.")
        if context is not None and len(ids) + room > context:
            raise DataError(
                f"the prompt {start} has {len(ids)} tokens and {room} more are to be sampled, but the "
                f"model's context is {context}: shorten it, lower --max-new-tokens, or use a model with a "
                "longer context."
            )
        encoded.append(ids)
    return encoded


def samples_of(
    examples: Sequence[Example],
    completions: Sequence[str],
    completion_ids: Sequence[Sequence[int]],
    finish: Sequence[str] | None = None,
) -> Samples:
    """What reward functions see: examples[i] is the prompt of completions[i] (repeat it for a group).

    A column that only some rows have is None for the others. Chat data is shown as messages.
    """
    names = list(dict.fromkeys(name for example in examples for name in example.columns))
    return Samples(
        prompts=[e.prompt if e.messages is None else list(e.messages) for e in examples],
        completions=[
            said if e.messages is None else [{"role": "assistant", "content": said}]
            for e, said in zip(examples, completions, strict=True)
        ],
        completion_ids=completion_ids,
        columns={name: [example.columns.get(name) for example in examples] for name in names},
        finish=finish,
    )
