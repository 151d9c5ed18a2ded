"""The embedded task is right, complete, and never trains on what it is tested on."""

from __future__ import annotations

import re
from collections import Counter

import pytest

from lineal.environments.arithmetic import LEVELS, Arithmetic, arithmetic_task
from lineal.environments.rewards import exact
from lineal.environments.text import Example, TextTask
from lineal.errors import UsageError


@pytest.fixture(scope="module")
def tasks() -> dict[int, TextTask]:
    return {level: arithmetic_task(level) for level in LEVELS}


def parts(task: TextTask) -> tuple[tuple[Example, ...], ...]:
    return task.train, task.validation, task.held_out


def key(example: Example) -> tuple[str, frozenset[int]]:
    a, operator, b = re.fullmatch(r"(\d+)([+-])(\d+)=", example.prompt).groups()  # type: ignore[union-attr]
    return operator, frozenset((int(a), int(b)))


@pytest.mark.parametrize("level", LEVELS)
def test_every_prompt_is_well_formed_and_its_answer_right(tasks: dict[int, TextTask], level: int) -> None:
    for example in (e for part in parts(tasks[level]) for e in part):
        a, operator, b = re.fullmatch(rf"(\d{{{level}}})([+-])(\d{{{level}}})=", example.prompt).groups()  # type: ignore[union-attr]
        value = int(a) + int(b) if operator == "+" else int(a) - int(b)
        assert value >= 0 and int(example.completion[::-1]) == value
        assert example.columns == {"answer": example.completion, "operator": operator, "value": value}
        assert str(value)[::-1] == example.completion


@pytest.mark.parametrize("level", LEVELS)
def test_no_pair_of_operands_is_on_two_sides(tasks: dict[int, TextTask], level: int) -> None:
    train, validation, held_out = ({key(example) for example in part} for part in parts(tasks[level]))
    assert train and validation and held_out
    assert not train & validation and not train & held_out and not validation & held_out


@pytest.mark.parametrize("level", LEVELS)
def test_training_meets_both_operators_equally_and_nothing_else_is_twice(
    tasks: dict[int, TextTask], level: int
) -> None:
    train, validation, held_out = parts(tasks[level])
    assert set(Counter(e.prompt for e in (*validation, *held_out)).values()) == {1}
    for prompt, count in Counter(e.prompt for e in train).items():
        assert count == (2 if "-" in prompt and prompt[:level] != prompt[level + 1 : -1] else 1), prompt
    if level > 1:
        signs = Counter(e.columns["operator"] for e in train)
        assert abs(signs["+"] - signs["-"]) < 0.02 * len(train)


def test_a_plus_b_and_b_plus_a_stay_together(tasks: dict[int, TextTask]) -> None:
    for level, task in tasks.items():
        for part in parts(task):
            there = {example.prompt for example in part}
            for prompt in (p for p in there if "+" in p):
                assert f"{prompt[level + 1 : -1]}+{prompt[:level]}=" in there


def test_the_first_two_levels_are_complete(tasks: dict[int, TextTask]) -> None:
    sizes = {level: len({e.prompt for part in parts(task) for e in part}) for level, task in tasks.items()}
    assert sizes[1] == 100 and sizes[2] == 100 * 100 + 100 * 101 // 2
    assert sizes[3] > 50_000


def test_enough_is_held_out_for_an_honest_figure(tasks: dict[int, TextTask]) -> None:
    train, validation, held_out = ({e.prompt for e in part} for part in parts(tasks[2]))
    assert (len(train), len(validation), len(held_out)) == (13_126, 444, 1_480)


def test_the_task_never_changes(tasks: dict[int, TextTask]) -> None:
    again = arithmetic_task(2)
    assert again == tasks[2]
    assert [e.prompt for e in again.train[:2]] == ["00+00=", "01+00="]


def test_answers_fit_and_the_alphabet_covers_them(tasks: dict[int, TextTask]) -> None:
    for level, task in tasks.items():
        everything = [e for part in parts(task) for e in part]
        assert task.max_new_tokens == max(len(e.completion) for e in everything) + 1 == level + 2
        assert set(task.alphabet) == {char for e in everything for char in e.prompt + e.completion}


def test_natural_order_is_an_option() -> None:
    example = Arithmetic(natural=True).example("+", 99, 2)
    assert (example.prompt, example.completion) == ("99+02=", "101")
    assert Arithmetic().example("+", 98, 4).completion == "201"
    natural = Arithmetic(level=1, natural=True)()
    assert natural.name == "arithmetic-1-natural"
    assert [e.prompt for e in natural.train] == [e.prompt for e in arithmetic_task(1).train]


def test_its_own_reward_accepts_its_own_answers(tasks: dict[int, TextTask]) -> None:
    examples = tasks[2].held_out
    assert tasks[2].rewards == ("exact",)
    answers = [e.columns["answer"] for e in examples]
    assert exact([e.completion for e in examples], answers) == [1.0] * len(examples)
    assert exact([e.completion + "0" for e in examples], answers) == [0.0] * len(examples)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"level": 0}, "--level 0 is not one of 1, 2, 3"),
        ({"level": 4}, "--level 4"),
        ({"held_out": 0.9, "validation": 0.2}, "below 1"),
        ({"held_out": -0.1}, "leave none"),
    ],
)
def test_options_that_cannot_work_are_refused(options: dict[str, float], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Arithmetic(**options)  # type: ignore[arg-type]
