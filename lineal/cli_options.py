"""From a frozen dataclass of plain values to a command's options: one source for parsing, help and errors.

The dataclass is flat, or has groups (nested dataclasses) whose names are unique over the groups, so that no
option needs a prefix. `-` and `_` both work. tyro turns words into values; what it refuses becomes one line.
"""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import difflib
import functools
import io
import math
import shutil
import sys
import textwrap
import types
import typing
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from lineal.errors import UsageError

T = TypeVar("T")

OTHER_NAMES = {
    "model-name-or-path": "model",
    "dataset-name": "data",
    "train-file": "data",
    "output-dir": "out",
    "num-generations": "group-size",
    "max-completion-length": "max-new-tokens",
    "num-iterations": "epochs",
    "num-ppo-epochs": "epochs",
    "num-mini-batches": "minibatches",
    "max-steps": "steps",
    "beta": "reference-kl",
    "kl-coef": "reference-kl",
    "epsilon": "clip-low",
    "epsilon-high": "clip-high",
    "cliprange": "clip-low",
    "gamma": "discount",
    "lam": "trace-decay",
    "lr": "learning-rate",
    "reward-funcs": "reward",
    "per-device-train-batch-size": "prompts",
    "entropy-coef": "entropy",
    "save-steps": "save-every",
    "eval-steps": "eval-every",
    "k": "samples",
}
"""What other tools call an option, for the hint after a wrong name."""


@dataclasses.dataclass(frozen=True)
class Option:
    """One option: its name and group, its type, its default and its one-sentence help."""

    name: str
    group: str
    hint: Any
    default: Any
    help: str

    @property
    def flag(self) -> str:
        """The option as it is typed: --learning-rate."""
        return "--" + self.name.replace("_", "-")

    @property
    def choices(self) -> tuple[Any, ...]:
        """Its type without None."""
        union = typing.get_origin(self.hint) in (typing.Union, types.UnionType)
        return (
            tuple(a for a in typing.get_args(self.hint) if a is not types.NoneType) if union else (self.hint,)
        )

    @property
    def many(self) -> bool:
        """It takes several values."""
        return typing.get_origin(self.choices[0]) is tuple

    @property
    def switch(self) -> bool:
        """It is on or off."""
        return self.hint is bool

    @property
    def kind(self) -> str:
        """What a value must be, in words."""
        base = typing.get_args(self.choices[0])[0] if self.many else self.choices[0]
        if typing.get_origin(base) is typing.Literal:
            return "one of " + ", ".join(map(str, typing.get_args(base)))
        words = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
        return words.get(base, getattr(base, "__name__", str(base)))


def options_of(config: Any) -> list[Option]:
    """The options of a configuration, in order; `config` holds the defaults."""
    found = []
    hints = typing.get_type_hints(type(config))
    docs = field_docs(type(config))
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            found += [dataclasses.replace(o, group=field.name) for o in options_of(value)]
        else:
            found.append(Option(field.name, "", hints[field.name], value, docs.get(field.name, "")))
    return found


def field_docs(owner: type) -> dict[str, str]:
    """The string under each field of a dataclass, by field."""
    return _module_docs(owner.__module__).get(owner.__name__, {})


@functools.cache
def _module_docs(module: str) -> dict[str, dict[str, str]]:
    file = getattr(sys.modules[module], "__file__", None)
    if file is None:
        return {}
    classes: dict[str, dict[str, str]] = {}
    for node in ast.walk(ast.parse(Path(file).read_text(encoding="utf-8"))):
        if isinstance(node, ast.ClassDef):
            classes[node.name] = docs = {}
            for line, after in zip(node.body, node.body[1:]):
                match line, after:
                    case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(
                        value=ast.Constant(value=str(text))
                    ):
                        docs[name] = " ".join(text.split())
    return classes


def parse(config: T, words: Sequence[str]) -> T:
    """The configuration with the options of the command line; raises UsageError, one line, for what is wrong.

    A repeated option: the last one counts, and one that takes several values collects them all.
    """
    options = {option.name: option for option in options_of(config)}
    given = _collect(options, words)
    values = _convert(options, given)
    if values is None:
        raise _culprit(options, given)
    changes: dict[str, dict[str, Any]] = {}
    for name, value in values.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise UsageError(f"{options[name].flag} {value}: must be a finite number.")
        changes.setdefault(options[name].group, {})[name] = value
    whole = changes.pop("", {})
    for group, part in changes.items():
        whole[group] = dataclasses.replace(getattr(config, group), **part)
    return dataclasses.replace(config, **whole)  # type: ignore[type-var]


def _collect(options: dict[str, Option], words: Sequence[str]) -> dict[str, list[str]]:
    """The values given to each option, by its name."""
    given: dict[str, list[str]] = {}
    option = None
    for word in words:
        if word.startswith("--"):
            flag, equals, value = word.partition("=")
            option, off = _find(options, flag)
            if not option.many or option.name not in given:
                given[option.name] = []
            if off and equals:
                raise UsageError(f"{flag} takes no value; write {option.flag} or {flag}.")
            given[option.name] += ["false"] if off else [value] if equals else []
        elif option is None:
            raise UsageError(f"{word!r} is no option: an option starts with --, and its value follows it.")
        else:
            given[option.name].append(word)
    for name, values in given.items():
        _check_count(options[name], values)
    return given


def _find(options: dict[str, Option], flag: str) -> tuple[Option, bool]:
    name = flag[2:].replace("-", "_")
    if name in options:
        return options[name], False
    if name.startswith("no_") and name[3:] in options and options[name[3:]].switch:
        return options[name[3:]], True
    raise UsageError(f"there is no option {flag}{nearest(flag[2:], options)}")


def nearest(name: str, options: Iterable[str]) -> str:
    """The end of a sentence about an unknown option: the one that was probably meant, or where to look."""
    wanted = name.replace("_", "-").lower()
    known = [o.replace("_", "-") for o in options]
    renamed = OTHER_NAMES.get(wanted)
    close = [renamed] if renamed in known else difflib.get_close_matches(wanted, known, n=1, cutoff=0.5)
    return f"; did you mean --{close[0]}?" if close else "; --help-all lists those there are."


def _check_count(option: Option, values: list[str]) -> None:
    if option.switch:
        values[:] = [v.lower() for v in values] or ["true"]
        if len(values) > 1 or values[0] not in ("true", "false"):
            raise UsageError(f"{option.flag} {' '.join(values)}: a switch is true or false, or stands alone.")
    elif not values:
        raise UsageError(f"{option.flag} needs a value: {option.kind}.")
    elif len(values) > 1 and not option.many:
        raise UsageError(f"{option.flag} takes one value, not {len(values)}: put spaces in quotes.")


def _spell(option: Option, values: list[str]) -> list[str]:
    if option.switch:
        return [option.flag if values[0] == "true" else "--no-" + option.flag[2:]]
    if option.many:
        return [option.flag, *values]
    none = values[0].lower() == "none" and types.NoneType in typing.get_args(option.hint)
    return [f"{option.flag}={'None' if none else values[0]}"]


def _convert(options: dict[str, Option], given: dict[str, list[str]]) -> dict[str, Any] | None:
    """The values as their types ask, or None when one of them is not of its type."""
    if not given:
        return {}
    import tyro

    chosen = [options[name] for name in given]
    fields = [(o.name, o.hint, dataclasses.field(default=o.default)) for o in chosen]
    words = [word for o in chosen for word in _spell(o, given[o.name])]
    try:
        # tyro explains itself in boxes; what is said instead is one line, by `_culprit`.
        with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
            parsed = tyro.cli(dataclasses.make_dataclass("Options", fields), args=words, add_help=False)
    except SystemExit:
        return None
    return {name: getattr(parsed, name) for name in given}


def _culprit(options: dict[str, Option], given: dict[str, list[str]]) -> UsageError:
    for name, values in given.items():
        option = options[name]
        if _convert(options, {name: values}) is None:
            return UsageError(f"{option.flag} {' '.join(values)}: must be {option.kind}.")
    return UsageError("these options cannot be combined: " + " ".join(options[n].flag for n in given))


def help_lines(config: Any, only: Sequence[str] | None = None) -> list[str]:
    """The options, grouped and wrapped to the terminal; `only`: names of the few to show."""
    width = max(60, min(100, shutil.get_terminal_size().columns))
    options = [o for o in options_of(config) if only is None or o.name in only]
    column = 2 + max((len(_usage(o)) for o in options if len(_usage(o)) <= 30), default=8) + 2
    lines, group = [], ""
    for option in options:
        if option.group != group:
            group = option.group
            lines += ["", group]
        left = f"  {_usage(option)}"
        text = textwrap.wrap(_describe(option, only is not None), width - column) or [""]
        if len(left) + 1 >= column:
            lines.append(left)
            left = ""
        lines += [(left if i == 0 else "").ljust(column) + part for i, part in enumerate(text)]
    return lines


def _usage(option: Option) -> str:
    names = {"a whole number": "N", "a number": "X", "text": "TEXT"}
    value = "" if option.switch else " " + names.get(option.kind, "VALUE") + (" ..." if option.many else "")
    return option.flag + value


def _describe(option: Option, short: bool) -> str:
    text = option.help
    if short and ". " in text:
        text = text[: text.index(". ") + 1]
    unset = option.default is None or option.default == () or option.default is False
    return text if unset else f"{text.rstrip('.')} [{_show(option.default)}]"


def _show(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)
