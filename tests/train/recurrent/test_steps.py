"""From options to optimisers and schedules, and a step that is clipped by direction."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from lineal.errors import UsageError
from lineal.optim.averaged import AveragedSGD
from lineal.train.guard import Guard
from lineal.train.recurrent.elmo_options import SentencesOptions
from lineal.train.recurrent.options import ClassifierOptions, ReaderOptions, StageOptions, StepOptions
from lineal.train.recurrent.steps import make_optimiser, stage_schedule, take_step


def layers_of(*values: float) -> list[dict[str, nn.Parameter]]:
    """Layers of one parameter each."""
    return [{f"p{i}": nn.Parameter(torch.tensor([value]))} for i, value in enumerate(values)]


@pytest.mark.parametrize(
    ("method", "kind"),
    [
        ("adam", torch.optim.AdamW),
        ("adagrad", torch.optim.Adagrad),
        ("sgd", AveragedSGD),
        ("averaged", AveragedSGD),
    ],
)
def test_a_method_s_layers_learn_at_falling_rates(method: str, kind: type) -> None:
    optimiser = make_optimiser(StepOptions(method=method), [layers_of(1.0, 2.0), layers_of(3.0)])
    assert isinstance(optimiser, kind)
    assert [group["scale"] for group in optimiser.param_groups] == pytest.approx([1 / 2.6, 1, 1])


@pytest.mark.parametrize("name", ["slanted", "cosine", "linear"])
def test_schedules_end_at_the_same_share_of_the_peak(name: str) -> None:
    schedule = stage_schedule(StepOptions(schedule=name, ratio=32), 1000)
    assert max(schedule(step) for step in range(1000)) == pytest.approx(1)
    assert schedule(1000) == pytest.approx(1 / 32, abs=1e-3)


def test_each_direction_is_clipped_by_itself() -> None:
    small, large = layers_of(0.0), layers_of(0.0)
    optimiser = make_optimiser(StepOptions(method="sgd", learning_rate=1.0, weight_decay=0.0), [small, large])
    for layers, gradient in ((small, 0.1), (large, 50.0)):
        layers[0]["p0"].grad = torch.tensor([gradient])
    norm = take_step(optimiser, [small, large], {"loss": torch.tensor(1.0)}, 0.25, Guard())
    assert norm == pytest.approx(50)
    assert small[0]["p0"].item() == pytest.approx(-0.1) and large[0]["p0"].item() == pytest.approx(-0.25)


def test_what_is_not_finite_moves_nothing() -> None:
    layers = layers_of(1.0)
    optimiser = make_optimiser(StepOptions(), [layers])
    layers[0]["p0"].grad = torch.tensor([1.0])
    take_step(optimiser, [layers], {"loss": torch.tensor(float("nan"))}, 0.25, Guard())
    assert layers[0]["p0"].item() == 1.0


@pytest.mark.parametrize(
    ("group", "wrong", "said"),
    [
        (StageOptions, {"stage": "tone"}, "--stage tone"),
        (StageOptions, {"directions": "up"}, "--directions up"),
        (StageOptions, {"held_out": 1.0}, "--held-out"),
        (ReaderOptions, {"weight_dropout": 1.0}, "--weight-dropout"),
        (ReaderOptions, {"dtype": "bfloat16"}, "--dtype"),
        (StepOptions, {"method": "adem"}, "Did you mean adam"),
        (StepOptions, {"cut_fraction": 1.0}, "--cut-fraction"),
        (StepOptions, {"discriminative": 0.0}, "--discriminative"),
        (StepOptions, {"beta1": 1.0}, "--beta1"),
        (ClassifierOptions, {"unfreeze": "some"}, "--unfreeze some"),
        (ClassifierOptions, {"head_dropout": 1.0}, "--head-dropout"),
        (SentencesOptions, {"vocab_size": 3}, "--vocab-size"),
    ],
)
def test_options_that_mean_nothing_are_refused(group: type, wrong: dict, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        group(**wrong)
