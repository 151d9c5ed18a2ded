"""The options of fine-tuning: every refusal with its message, the values at the very edge, and the defaults."""

from __future__ import annotations

import dataclasses
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lineal.errors import UsageError
from lineal.train.finetune.options import KINDS, TARGETS, FinetuneConfig, TaskOptions, TuningOptions, one_of


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"task": "riddle"},
            "--task riddle is not one of classification, pair, similarity, choice, tagging, span.",
        ),
        ({"task": ""}, "--task  is not one of classification, pair, similarity, choice, tagging, span."),
        ({"target": "rank"}, "--target rank is not one of classes, score."),
        ({"held_out": -0.1}, "--held-out -0.1: it must be at least 0."),
        ({"held_out": math.nan}, "--held-out nan: it must be at least 0."),
        ({"limit": -1}, "--limit -1: it must be at least 0."),
        ({"held_out": 1.0}, "--held-out 1: nothing would be left to learn from; it must be below 1."),
        ({"held_out": math.inf}, "--held-out inf: nothing would be left to learn from; it must be below 1."),
        (
            {"task": "choice", "target": "score"},
            "--task choice asks which of several is right: --target score does not go with it.",
        ),
    ],
)
def test_a_task_that_makes_no_sense_is_refused(options: dict, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        TaskOptions(**options)
    assert str(caught.value) == message


LEAST = {
    "auxiliary": 0, "head_dropout": 0, "batch_size": 1, "epochs": 0, "learning_rate": 0, "warmup": 0, "floor": 0,
    "weight_decay": 0, "max_grad_norm": 0, "token_budget": 1,
}  # fmt: skip


@pytest.mark.parametrize("name", list(LEAST))
def test_tuning_below_the_least_is_refused_and_the_least_is_not(name: str) -> None:
    least, flag = LEAST[name], "--" + name.replace("_", "-")
    whole = isinstance(getattr(TuningOptions(), name), int)
    for value in (least - 1, -7) if whole else (-1, -0.5, -math.inf, math.nan):
        with pytest.raises(UsageError) as caught:
            TuningOptions(**{name: value})  # type: ignore[arg-type]
        assert str(caught.value) == f"{flag} {value:g}: it must be at least {least}."
    assert getattr(TuningOptions(**{name: least}), name) == least  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"head_dropout": 1.0},
            "--head-dropout 1 and --warmup 0.002 are shares: below 1, and at most 1.",
        ),
        (
            {"warmup": 1.5, "head_dropout": 0.25},
            "--head-dropout 0.25 and --warmup 1.5 are shares: below 1, and at most 1.",
        ),
    ],
)
def test_shares_of_more_than_the_whole_are_refused(options: dict, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        TuningOptions(**options)
    assert str(caught.value) == message


@given(st.floats(0, 1, exclude_max=True), st.floats(0, 1))
def test_every_share_is_taken(dropout: float, warmup: float) -> None:
    found = TuningOptions(head_dropout=dropout, warmup=warmup)
    assert (found.head_dropout, found.warmup) == (dropout, warmup)
    assert TaskOptions(held_out=dropout).held_out == dropout


@pytest.mark.parametrize("task", KINDS)
@pytest.mark.parametrize("target", TARGETS)
def test_all_tasks_go_with_all_targets_but_those_of_places_with_a_score(task: str, target: str) -> None:
    if target == "score" and task in ("choice", "tagging", "span"):
        with pytest.raises(UsageError, match="--target score does not go with it"):
            TaskOptions(task=task, target=target)
    else:
        assert TaskOptions(task=task, target=target).target == target


def test_the_first_value_that_is_not_allowed_is_named_with_its_flag() -> None:
    @dataclasses.dataclass
    class Two:
        some_name: str = "a"
        other: str = "z"

    one_of(Two(), some_name=("a", "b"), other=("z",))
    with pytest.raises(UsageError) as caught:
        one_of(Two("c", "y"), some_name=("a", "b"), other=("z",))
    assert str(caught.value) == "--some-name c is not one of a, b."


def test_the_defaults_are_the_papers() -> None:
    """Radford et al. 2018, section 4.1: rate 6.25e-5, batches of 32, 3 epochs, warm-up over .2 %; lambda is the model's own."""
    found = FinetuneConfig()
    tuning = found.tuning
    assert (tuning.learning_rate, tuning.batch_size, tuning.epochs) == (6.25e-5, 32, 3.0)
    assert (tuning.warmup, tuning.schedule, tuning.auxiliary, tuning.head_dropout) == (
        0.002,
        "linear",
        None,
        0.1,
    )
    assert (found.task.task, found.task.target, found.task.data) == ("classification", "classes", None)


def test_option_names_are_unique_over_the_groups() -> None:
    groups = [getattr(FinetuneConfig(), field.name) for field in dataclasses.fields(FinetuneConfig)]
    names = [field.name for group in groups for field in dataclasses.fields(group)]
    assert len(names) == len(set(names))


def test_a_checked_configuration_cannot_be_changed_unchecked() -> None:
    found = FinetuneConfig()
    with pytest.raises(dataclasses.FrozenInstanceError):
        found.task.held_out = 2.0  # type: ignore[misc]
    with pytest.raises(UsageError, match="--limit -3"):
        dataclasses.replace(found.task, limit=-3)
