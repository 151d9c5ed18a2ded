"""JSON as the standard has it: no nan, no key twice, no half surrogates; a fault comes back with its
column.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from typing import Any

TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[{}\[\]:,]|[^\s{}\[\]:,"]+')
SURROGATE = re.compile("[\ud800-\udfff]")
REMEDIES = {
    "Expecting property name enclosed in double quotes": "names and texts stand in double quotes",
    "Expecting ',' delimiter": "a comma or a closing bracket is missing, or a quotation mark lacks its \\",
    "Extra data": "one row ends here and something follows on the same line",
    "Invalid control character at": "a raw control character stands in a text; write \\n, \\t or \\u00XX",
    "Invalid \\escape": "a backslash in a text must be doubled",
}


@dataclass(frozen=True)
class Bad:
    """A row that cannot be used: why, and the column (1 = first) where it shows, or ""."""

    reason: str
    column: int | str = ""


class _NoNumber(ValueError):
    """A constant or a number that JSON, or a float, cannot hold."""


class _Twice(ValueError):
    """An object that names a key twice."""


def parse(text: str) -> Any:
    """The value of a JSON text, or Bad with the reason and the column counted from the start of the text."""
    try:
        value = json.loads(text, object_pairs_hook=_pairs, parse_constant=_constant, parse_float=_float)
    except json.JSONDecodeError as error:
        return _explain(text, error)
    except _Twice:
        column, key = _find_twice(text)
        return Bad(
            f"the name {key!r} stands twice in one object, so one of its values would be lost.", column
        )
    except _NoNumber as error:
        token = str(error)
        return Bad(f"{token} is no JSON number. Write null, or leave the field out.", _find(text, token))
    except RecursionError:
        return Bad("the row is nested too deeply to be data.")
    except ValueError as error:
        return Bad(f"not JSON that can be read ({error}).")
    # A scan of the values costs, so only rows that could hold a half surrogate are scanned.
    if "\\ud" in text or "\\uD" in text:
        return _whole_characters(text, value)
    return value


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise _Twice
    return result


def _constant(token: str) -> Any:
    raise _NoNumber(token)


def _float(token: str) -> float:
    value = float(token)
    if math.isinf(value):
        raise _NoNumber(token)
    return value


def _explain(text: str, error: json.JSONDecodeError) -> Bad:
    column = error.pos + 1
    if error.msg.startswith("Unterminated string") or error.pos >= len(text.rstrip()):
        return Bad(f"the row stops in the middle ({error.msg}): is the file cut short?", column)
    remedy = REMEDIES.get(error.msg.split(":")[0])
    return Bad(f"not JSON: {error.msg}{f' ({remedy})' if remedy else ''}.", column)


def _find(text: str, wanted: str) -> int | str:
    return next((match.start() + 1 for match in TOKEN.finditer(text) if match.group() == wanted), "")


def _find_twice(text: str) -> tuple[int | str, str]:
    seen: list[set[str]] = [set()]
    last = None
    for match in TOKEN.finditer(text):
        token = match.group()
        if token in "{[":
            seen.append(set())
        elif token in "}]":
            seen.pop()
        elif token == ":" and last is not None:
            key = json.loads(last.group())
            if key in seen[-1]:
                return last.start() + 1, key
            seen[-1].add(key)
        last = match if token[0] == '"' else None
    return "", "?"


def _whole_characters(text: str, value: Any) -> Any:
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, dict):
            waiting += [*item.keys(), *item.values()]
        elif isinstance(item, list):
            waiting += item
        elif isinstance(item, str) and (half := SURROGATE.search(item)):
            escape = f"\\u{ord(half.group()):04x}"
            column = text.lower().find(escape) + 1
            return Bad(
                f"{escape} is half of a character (a lone surrogate), which is not text.", column or ""
            )
    return value
