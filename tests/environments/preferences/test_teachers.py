from __future__ import annotations

import math

import numpy as np
import pytest

from lineal.environments.preferences.records import TEXTS, Pair, Segment
from lineal.environments.preferences.teachers import FunctionLabeller, Teacher, uniform
from lineal.errors import RewardError, UsageError


def world(*rewards: list[float]) -> tuple[dict[str, Segment], list[Pair]]:
    """Segments with these rewards, and every pair of neighbours."""
    made = [
        Segment(np.full((len(r), 1), i, np.float32), np.zeros(len(r), np.int64), np.array(r))
        for i, r in enumerate(rewards)
    ]
    pairs = [Pair(a.id, b.id) for a, b in zip(made[::2], made[1::2], strict=True)]
    return {segment.id: segment for segment in made}, pairs


def answers(teacher: Teacher, *rewards: list[float]) -> list[float | None]:
    segments, pairs = world(*rewards)
    return [teacher(pair, segments).preference for pair in pairs]


def test_the_rational_teacher_prefers_the_greater_sum():
    assert answers(Teacher(), [1, 2], [2, 0], [0, 0], [0, 1], [3, 3], [4, 2]) == [1.0, 0.0, 0.5]


def test_equal_margin_and_skip():
    assert answers(Teacher(equal_margin=1.5), [1, 2], [2, 0], [5, 0], [0, 0]) == [0.5, 1.0]
    assert answers(Teacher(skip_below=4.0), [1, 2], [2, 0], [5, 0], [0, 0]) == [None, 1.0]


def test_the_myopic_teacher_sees_the_end():
    """With myopia .1: 0.1·10 + 0 = 1 against 0.1·0 + 2 = 2, though the sums are 10 and 2."""
    assert answers(Teacher(myopia=0.1), [10, 0], [0, 2]) == [0.0]
    assert answers(Teacher(), [10, 0], [0, 2]) == [1.0]


def test_mistakes_and_temperature_have_their_frequencies():
    rewards = [[float(i % 2), i / 1e6] for i in range(4000)]
    right = np.array(answers(Teacher(), *rewards))
    wrong = np.array(answers(Teacher(mistake=0.2), *rewards))
    assert (right == 0).all()
    assert abs((wrong != right).mean() - 0.2) < 0.04
    noisy = np.array(answers(Teacher(temperature=2.0), *rewards))
    assert abs(noisy.mean() - 1 / (1 + math.exp(0.5))) < 0.04


def test_the_same_question_has_the_same_answer():
    teacher = Teacher(temperature=5.0, mistake=0.3)
    rewards = [[float(i), 0.0] for i in range(40)]
    assert answers(teacher, *rewards) == answers(teacher, *rewards)
    assert answers(teacher, *rewards) != answers(Teacher(temperature=5.0, mistake=0.3, seed=1), *rewards)


def test_uniform_is_uniform():
    draws = np.array([uniform("x", i) for i in range(4000)])
    assert draws.min() >= 0 and draws.max() < 1
    assert abs(draws.mean() - 0.5) < 0.02 and abs(draws.var() - 1 / 12) < 0.01


@pytest.mark.parametrize(
    "option", [{"temperature": -1}, {"mistake": 1.5}, {"equal_margin": -1}, {"myopia": 0}, {"myopia": 2}]
)
def test_options_without_meaning_are_refused(option):
    with pytest.raises(UsageError, match=next(iter(option))):
        Teacher(**option)


def test_the_teacher_has_no_opinion_on_texts():
    with pytest.raises(UsageError, match="texts need a person"):
        Teacher()(Pair("a", "b", TEXTS), {})


def test_a_function_judges_clips_and_texts():
    segments, pairs = world([1, 2], [2, 0])
    judge = FunctionLabeller(lambda first, second, _: float(first.reward_T[0] > second.reward_T[0]), "judge")
    label = judge(pairs[0], segments)
    assert (label.preference, label.labeller) == (0.0, "judge")
    seen = []
    FunctionLabeller(lambda *sides: seen.append(sides))(Pair("a", "b", TEXTS, "p"), {})
    assert seen == [("a", "b", "p")]


@pytest.mark.parametrize("value", [2, "left", float("nan")])
def test_a_function_that_returns_nonsense_is_named(value):
    with pytest.raises(RewardError, match="labeller odd returned"):
        FunctionLabeller(lambda *_: value, "odd")(Pair("a", "b", TEXTS), {})


def test_a_function_that_raises_is_named():
    def broken(*_):
        raise KeyError("x")

    with pytest.raises(RewardError, match="labeller broken raised KeyError"):
        FunctionLabeller(broken, "broken")(Pair("a", "b", TEXTS), {})
