"""Expressions are read exactly, and only expressions are read."""

from __future__ import annotations

import gzip
import json
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from lineal.environments.countdown import Countdown, ExpressionError, evaluate, find_expression
from lineal.environments.worker_child import BadRow

Tree = tuple[str, Fraction | None]


def combine(children: st.SearchStrategy[Tree]) -> st.SearchStrategy[Tree]:
    def build(left: Tree, sign: str, right: Tree) -> Tree:
        text = f"({left[0]}{sign}{right[0]})"
        if left[1] is None or right[1] is None or (sign == "/" and right[1] == 0):
            return text, None
        a, b = left[1], right[1]
        return text, {"+": a + b, "-": a - b, "*": a * b, "/": a / b if b else None}[sign]

    def negate(child: Tree) -> Tree:
        return f"-{child[0]}", None if child[1] is None else -child[1]

    return st.builds(build, children, st.sampled_from("+-*/"), children) | st.builds(negate, children)


leaves = st.integers(0, 10**6).map(lambda n: (str(n), Fraction(n)))
trees = st.recursive(leaves, combine, max_leaves=12)


@given(trees)
def test_the_value_is_exact(tree: Tree) -> None:
    text, value = tree
    assume(len(text) < 400)
    if value is None:
        with pytest.raises(ExpressionError, match="division by zero"):
            evaluate(text)
    else:
        assert evaluate(text)[0] == value


@pytest.mark.filterwarnings("ignore::SyntaxWarning")
@given(st.lists(st.sampled_from(["1", "22", "+", "-", "*", "/", "(", ")", " "]), max_size=12).map("".join))
def test_it_reads_what_python_reads_and_nothing_more(text: str) -> None:
    try:
        ours: Fraction | str = evaluate(text)[0]
    except ExpressionError:
        ours = "refused"
    try:
        tree = compile(text.strip(), "", "eval")
        assume("**" not in text and "//" not in text)
        theirs: Fraction | float | str = eval(tree)
        theirs = theirs if isinstance(theirs, (int, float)) else "refused"
    except ZeroDivisionError:
        theirs = "refused"
    except (SyntaxError, TypeError):
        theirs = "refused"
    assert (ours == "refused") == (theirs == "refused")
    if isinstance(ours, Fraction):
        assert float(ours) == pytest.approx(float(theirs))


@pytest.mark.parametrize(
    ("text", "value"), [("2+3*4", 14), ("8-3-2", 3), ("64/8/2", 4), ("2*(3+4)", 14), ("-2*-3", 6)]
)
def test_precedence_and_grouping(text: str, value: int) -> None:
    assert evaluate(text)[0] == value


@pytest.mark.parametrize(
    "text",
    [
        "",
        "2**9",
        "9//2",
        "1.5+1",
        "2 3",
        "(1+2",
        "1+2)",
        "+",
        "1+",
        "a+1",
        "__import__('os')",
        "1e9",
        "0x10",
        "1_0",
        "9" * 13,
        "1/0",
        "1/(2-2)",
        "(" * 60 + "1" + ")" * 60,
        "-" * 60 + "1",
        "1+" * 300 + "1",
        "٣+1",
        "2;3",
        "max(1,2)",
    ],
)
def test_everything_else_is_refused(text: str) -> None:
    with pytest.raises(ExpressionError):
        evaluate(text)


@pytest.mark.timeout(60)  # quadratic reading would take many minutes
def test_hostile_text_is_refused_at_once() -> None:
    for text in ("(" * 10**6, "9" * 10**6, "<answer>" * 10**5, "<answer>" + "x" * 10**6, "-" * 10**6):
        assert Countdown().one(text, [1, 2], 3) == 0.0


@pytest.mark.parametrize(
    ("text", "expression"),
    [
        ("(8 - 6) * 3", "(8 - 6) * 3"),
        ("(8 - 6) * 3 = 6", "(8 - 6) * 3"),
        ("let me think: 8 - 6 = 2\n(8 - 6) * 3 = 6\n", "(8 - 6) * 3"),
        ("<answer>1+1</answer> no: <answer> 8*3 </answer> done", "8*3"),
        ("", ""),
        ("\n\n", ""),
    ],
)
def test_the_expression_is_found(text: str, expression: str) -> None:
    assert find_expression(text) == expression


def test_each_number_once() -> None:
    every, subset = Countdown(), Countdown(every=False)
    for text, whole, part in [
        ("2+3+4", 1.0, 1.0),
        ("5+4", 0.0, 0.0),
        ("3*3", 0.0, 0.0),
        ("(4+2)+3", 1.0, 1.0),
        ("2+3+4+0", 0.0, 0.0),
        ("2*3+4", 0.0, 0.0),
    ]:
        assert (every.one(text, [2, 3, 4], 9), subset.one(text, [2, 3, 4], 9)) == (whole, part)
    assert (every.one("3*4", [2, 3, 4], 12), subset.one("3*4", [2, 3, 4], 12)) == (0.0, 1.0)
    assert every.one("3+3", [3, 3], 6) == 1.0 and every.one("3", [3, 3], 3) == 0.0


def test_columns_from_text_files_are_read_too() -> None:
    assert Countdown().one("2*3", "[2, 3]", "6") == 1.0
    assert Countdown().one("1/2", "1 2", 0.5) == 1.0


@pytest.mark.parametrize(
    ("nums", "target"), [(None, 3), (["x"], 3), ([1], "1e999999999"), ([1], None), ([1], "nan")]
)
def test_columns_that_are_no_numbers_are_named(nums: object, target: object) -> None:
    with pytest.raises(BadRow, match=r"column `(nums|target)`"):
        Countdown().one("1", nums, target)


def test_every_solution_of_a_public_set_is_right_and_other_answers_are_not(data: Path) -> None:
    with gzip.open(data / "countdown" / "countdown_3to4_4000.jsonl.gz", "rt") as lines:
        rows = [json.loads(line) for line in lines][::8]
    check = Countdown()
    nums, target = [row["nums"] for row in rows], [row["target"] for row in rows]
    assert check([row["solution"] for row in rows], nums, target) == [1.0] * len(rows)
    assert check([f"{row['solution']} + 1" for row in rows], nums, target) == [0.0] * len(rows)
    assert check([str(row["target"]) for row in rows], nums, target) == [0.0] * len(rows)
