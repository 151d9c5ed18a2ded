"""The countdown game: reach a target with given numbers and + - * /; expressions are read without eval."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from lineal.environments.worker_child import BadRow

LONGEST = 400
"""Characters of an expression that is read at all."""

DEEPEST = 50
"""Nested parentheses and signs of an expression that is read at all."""

_TOKEN = re.compile(r"\s*(?:([0-9]{1,12})(?![\d.])|([-+*/()]))")
_ANSWER = re.compile(r"<answer>((?:(?!</?answer>).)*)</answer>", re.DOTALL)
_PLAIN = re.compile(r"-?[0-9]{1,15}(?:\.[0-9]{1,15})?")
_SIGNS = str.maketrans({"×": "*", "·": "*", "÷": "/", "−": "-", "–": "-", "[": "(", "]": ")"})


class ExpressionError(ValueError):
    """The text is no expression of whole numbers, + - * / and parentheses, or it divides by zero."""


def evaluate(expression: str) -> tuple[Fraction, tuple[int, ...]]:
    """The exact value of an arithmetic expression and the numbers it uses, in their order.

    Whole numbers of at most 12 digits, + - * / (exact fractions), signs and parentheses, with the usual
    precedence; nothing else, and no more than 400 characters. Raises ExpressionError.
    """
    if len(expression) > LONGEST:
        raise ExpressionError(f"longer than {LONGEST} characters")
    parser = _Parser(_tokens(expression.translate(_SIGNS)))
    value = parser.total(0)
    if parser.peek() is not None:
        raise ExpressionError(f"unexpected {parser.peek()!r}")
    return value, tuple(parser.used)


def _tokens(text: str) -> list[str]:
    tokens, at = [], 0
    text = text.rstrip()
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            raise ExpressionError(f"unexpected {text[at : at + 10].strip()!r}")
        tokens.append(match.group(1) or match.group(2))
        at = match.end()
    return tokens


class _Parser:
    """Recursive descent over tokens: total = product (+|- product)*, product = factor (*|/ factor)*."""

    def __init__(self, tokens: list[str]) -> None:
        self.tokens, self.at = tokens, 0
        self.used: list[int] = []

    def peek(self) -> str | None:
        return self.tokens[self.at] if self.at < len(self.tokens) else None

    def take(self) -> str:
        token = self.peek()
        if token is None:
            raise ExpressionError("it ends too early")
        self.at += 1
        return token

    def total(self, depth: int) -> Fraction:
        value = self.product(depth)
        while self.peek() in ("+", "-"):
            sign = self.take()
            other = self.product(depth)
            value = value + other if sign == "+" else value - other
        return value

    def product(self, depth: int) -> Fraction:
        value = self.factor(depth)
        while self.peek() in ("*", "/"):
            sign = self.take()
            other = self.factor(depth)
            if sign == "/" and other == 0:
                raise ExpressionError("division by zero")
            value = value * other if sign == "*" else value / other
        return value

    def factor(self, depth: int) -> Fraction:
        if depth > DEEPEST:
            raise ExpressionError(f"nested more than {DEEPEST} deep")
        token = self.take()
        if token == "-":
            return -self.factor(depth + 1)
        if token == "+":
            return self.factor(depth + 1)
        if token == "(":
            value = self.total(depth + 1)
            if self.take() != ")":
                raise ExpressionError("a parenthesis is not closed")
            return value
        if not token.isdigit():
            raise ExpressionError(f"unexpected {token!r}")
        self.used.append(int(token))
        return Fraction(int(token))


def find_expression(text: str) -> str:
    """The expression a completion ends on: inside its last <answer></answer>, else its last non-empty line.

    What follows an equals sign is left out, so "(8 - 6) * 3 = 6" is the expression "(8 - 6) * 3".
    """
    answers = _ANSWER.findall(text)
    lines = (answers[-1] if answers else text).strip().splitlines()
    return lines[-1].split("=")[0].strip() if lines else ""


def _given(nums: Any) -> Counter[int]:
    try:
        return Counter(int(n) for n in (re.findall(r"-?[0-9]+", nums) if isinstance(nums, str) else nums))
    except (TypeError, ValueError) as error:
        raise BadRow(f"needs a list of whole numbers in column `nums`, got {str(nums)[:60]!r}") from error


def _goal(target: Any) -> Fraction:
    if not _PLAIN.fullmatch(str(target)):
        raise BadRow(f"needs a number in column `target`, got {str(target)[:60]!r}")
    return Fraction(str(target))


@dataclass(frozen=True)
class Countdown:
    """1 when the completion's expression equals column `target` and uses each number of column `nums`
    exactly once (`every`), or at most once; else 0.
    """

    every: bool = True

    def __call__(self, completions: Sequence[str], nums: Sequence[Any], target: Sequence[Any]) -> list[float]:
        """One reward per completion."""
        return [self.one(text, *pair) for text, *pair in zip(completions, nums, target, strict=True)]

    def one(self, completion: str, nums: Any, target: Any) -> float:
        """The reward of one completion. Raises BadRow when the columns are no numbers."""
        given, goal = _given(nums), _goal(target)
        try:
            value, used = evaluate(find_expression(completion))
        except ExpressionError:
            return 0.0
        spent = Counter(used)
        allowed = spent == given if self.every else spent <= given
        return 1.0 if allowed and value == goal else 0.0
