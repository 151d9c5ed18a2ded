"""Renders chat templates inside a worker's process: run by path, so it imports nothing of lineal.

The environment is the one Hugging Face renders templates in: Jinja's immutable sandbox, blocks trimmed, loop
controls, `raise_exception`, `strftime_now`, `tojson`, and `{% generation %}` blocks rendered as they are.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from jinja2 import TemplateError, Undefined, nodes
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension, loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace


class TooLong(Exception):
    """The rendered text passes its limit."""


class Sandbox(ImmutableSandboxedEnvironment):
    """Jinja's sandbox, which writes nothing for a forbidden attribute, made to refuse the template instead."""

    def unsafe_undefined(self, obj: Any, attribute: str) -> Undefined:
        """Refuse the attribute."""
        raise SecurityError(f"a template cannot read {attribute!r} of a {type(obj).__name__}")


class Generation(Extension):
    """`{% generation %}...{% endgeneration %}` marks what an assistant said; here it is its body."""

    tags = {"generation"}  # noqa: RUF012  (jinja2 reads a plain set)

    def parse(self, parser: Any) -> nodes.Node:
        """The block's body in a scope of its own."""
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.Scope(body).set_lineno(line)


class PlainNamespace(Namespace):
    """A namespace whose attributes cannot start with an underscore."""

    def __init__(*args: Any, **kwargs: Any) -> None:
        self, args = args[0], args[1:]
        attributes = dict(*args, **kwargs)
        for name in attributes:
            _check(name)
        Namespace.__init__(self, attributes)

    def __setitem__(self, name: str, value: Any) -> None:
        _check(name)
        Namespace.__setitem__(self, name, value)


def _check(name: Any) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise SecurityError(f"a namespace cannot hold {name!r}")


class PlainDict:
    """`dict(...)` and `dict.fromkeys(...)` without the class behind them."""

    def __call__(self, *args: Any, **kwargs: Any) -> dict[Any, Any]:
        return dict(*args, **kwargs)

    def fromkeys(self, *args: Any, **kwargs: Any) -> dict[Any, Any]:
        """As dict.fromkeys."""
        return dict.fromkeys(*args, **kwargs)


def _refuse(message: str) -> None:
    raise TemplateError(message)


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


def environment(now: datetime) -> Sandbox:
    """The sandbox in which a template is compiled; `now` is what `strftime_now` formats."""
    sandbox = Sandbox(trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols])
    sandbox.filters["tojson"] = _to_json
    sandbox.globals["raise_exception"] = _refuse
    sandbox.globals["strftime_now"] = now.strftime
    sandbox.globals["dict"] = PlainDict()
    sandbox.globals["namespace"] = PlainNamespace
    return sandbox


def render(
    template: str, conversations: Sequence[Any], variables: dict[str, Any], now: str, most: int
) -> dict[str, Any]:
    """A text per conversation, none longer than `most` characters; or a refusal and who caused it."""
    index = 0
    try:
        compiled = environment(datetime.fromisoformat(now)).from_string(template)
        texts = []
        for index, messages in enumerate(conversations):  # noqa: B007  (named in the refusal)
            pieces, length = [], 0
            for piece in compiled.generate(messages=messages, **variables):
                length += len(piece)
                if length > most:
                    raise TooLong(f"it writes more than {most} characters")
                pieces.append(piece)
            texts.append("".join(pieces))
        return {"texts": texts}
    except MemoryError:
        return {"refused": "it takes too much memory", "index": index}
    except RecursionError:
        return {"refused": "it calls itself without end", "index": index}
    except Exception as error:
        return {"refused": f"{type(error).__name__}: {' '.join(str(error).split())[:300]}", "index": index}
