"""What every Adam of a recipe is told: refused by name before any work is done, and taken at the very edge."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lineal.errors import UsageError
from lineal.optim.schedules import SCHEDULES, make_schedule
from lineal.train.finetune.options import TuningOptions
from lineal.train.options import OptimiserOptions
from lineal.train.translation.options import TeachingOptions

GROUPS = {OptimiserOptions: (), TuningOptions: (), TeachingOptions: ("noam",)}
each_group = pytest.mark.parametrize("group", GROUPS)


@each_group
def test_schedules_are_refused_by_name_with_the_nearest(group: type) -> None:
    names = ", ".join((*GROUPS[group], *SCHEDULES))
    with pytest.raises(UsageError) as caught:
        group(schedule="cosin")
    assert str(caught.value) == f"--schedule cosin is not one of {names}. Did you mean cosine?"
    with pytest.raises(UsageError) as caught:
        group(schedule="?")
    assert str(caught.value) == f"--schedule ? is not one of {names}."
    for name in (*GROUPS[group], *SCHEDULES):
        assert group(schedule=name).schedule == name


@pytest.mark.parametrize("name", SCHEDULES)
def test_every_name_that_is_taken_makes_a_schedule(name: str) -> None:
    schedule = make_schedule(name, 10, 2, 0.1)
    assert schedule(2) == 1


@each_group
@pytest.mark.parametrize("name", ["beta1", "beta2"])
def test_decays_are_shares(group: type, name: str) -> None:
    for value in (-0.1, 1.0, 1.5):
        with pytest.raises(UsageError) as caught:
            group(**{name: value})
        assert str(caught.value) == f"--{name} {value:g}: it must be at least 0 and below 1."


@each_group
@given(st.floats(0, 1, exclude_max=True))
def test_every_share_is_a_decay(group: type, decay: float) -> None:
    assert group(beta1=decay, beta2=decay).beta2 == decay


@each_group
@pytest.mark.parametrize("name", ["learning_rate", "weight_decay", "max_grad_norm"])
def test_numbers_are_finite(group: type, name: str) -> None:
    with pytest.raises(UsageError) as caught:
        group(**{name: math.inf})
    assert str(caught.value) == f"--{name.replace('_', '-')} inf: it must be a finite number."


@pytest.mark.parametrize("epsilon", [0.0, -1.0])
def test_adam_cannot_divide_by_nothing(epsilon: float) -> None:
    with pytest.raises(UsageError) as caught:
        TeachingOptions(epsilon=epsilon)
    assert str(caught.value) == f"--epsilon {epsilon:g}: it must be above 0."
