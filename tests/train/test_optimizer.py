"""An optimiser resumed from its saved state goes on bit for bit."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn

from lineal.errors import CheckpointError
from lineal.train.checkpoint import load_newest, save_checkpoint
from lineal.train.optimizer import load_optimizer, optimizer_tensors


def model_of() -> nn.Sequential:
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2))
    made = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        parameter.data = torch.randn(parameter.shape, generator=made, dtype=parameter.dtype)
    return model


def groups_of(model: nn.Module, flip: bool = False) -> list[dict]:
    matrices = [p for p in model.parameters() if p.ndim > 1]
    rest = [p for p in model.parameters() if p.ndim <= 1]
    if flip:
        matrices, rest = matrices[::-1], rest[::-1]
    return [{"params": matrices, "weight_decay": 0.1}, {"params": rest, "weight_decay": 0.0}]


def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: range) -> None:
    for step in steps:
        x = torch.randn(5, 4, generator=torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        model(x).square().sum().backward()
        optimizer.step()
        for group in optimizer.param_groups:
            group["lr"] = 1e-2 / (step + 1)


OPTIMISERS = {
    "adamw": lambda groups: torch.optim.AdamW(groups, lr=1e-2, betas=(0.9, 0.95)),
    "fused": lambda groups: torch.optim.AdamW(groups, lr=1e-2, fused=True),
    "amsgrad": lambda groups: torch.optim.AdamW(groups, lr=1e-2, amsgrad=True),
    "momentum": lambda groups: torch.optim.SGD(groups, lr=1e-2, momentum=0.9),
    "plain": lambda groups: torch.optim.SGD(groups, lr=1e-2),
}


@pytest.mark.parametrize("kind", OPTIMISERS)
@pytest.mark.parametrize("flip", [False, True], ids=["same order", "other order"])
def test_training_goes_on_bit_for_bit(tmp_path, kind, flip):
    straight = model_of()
    optimizer = OPTIMISERS[kind](groups_of(straight))
    train(straight, optimizer, range(3))
    tensors, state = optimizer_tensors(optimizer, dict(straight.named_parameters()))
    save_checkpoint(tmp_path, 3, {**straight.state_dict(), **tensors}, {"optimizer": state})
    train(straight, optimizer, range(3, 6))

    found = load_newest(tmp_path)
    assert found is not None
    resumed = model_of()
    resumed.load_state_dict({name: found.tensors[name] for name in resumed.state_dict()})
    fresh = OPTIMISERS[kind](groups_of(resumed, flip))
    load_optimizer(fresh, found.tensors, found.state["optimizer"], dict(resumed.named_parameters()))
    assert fresh.param_groups[0]["lr"] == 1e-2 / 3 and fresh.param_groups[0]["weight_decay"] == 0.1
    train(resumed, fresh, range(3, 6))
    for name, value in straight.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name
    assert json.dumps(state) == json.dumps(json.loads(json.dumps(state)))


def test_without_the_state_training_differs():
    """The control: the comparison above can fail."""
    one, two = model_of(), model_of()
    optimizer = OPTIMISERS["adamw"](groups_of(one))
    train(one, optimizer, range(3))
    two.load_state_dict(one.state_dict())
    train(one, optimizer, range(3, 6))
    train(two, OPTIMISERS["adamw"](groups_of(two)), range(3, 6))
    assert not torch.equal(one.get_parameter("0.weight"), two.get_parameter("0.weight"))


def test_tensors_are_named_by_parameter():
    model = model_of()
    optimizer = OPTIMISERS["adamw"](groups_of(model))
    assert optimizer_tensors(optimizer, dict(model.named_parameters()))[0] == {}, (
        "nothing before the first step"
    )
    train(model, optimizer, range(1))
    tensors, state = optimizer_tensors(optimizer, dict(model.named_parameters()))
    names = [
        f"optimizer/{name}/{key}"
        for name, _ in model.named_parameters()
        for key in ("exp_avg", "exp_avg_sq", "step")
    ]
    assert sorted(tensors) == sorted(names)
    assert [group["names"] for group in state["groups"]] == [["0.weight", "2.weight"], ["0.bias", "2.bias"]]


def test_another_set_of_parameters_is_refused():
    model = model_of()
    names = dict(model.named_parameters())
    optimizer = OPTIMISERS["adamw"](groups_of(model))
    train(model, optimizer, range(1))
    tensors, state = optimizer_tensors(optimizer, names)
    fewer = torch.optim.AdamW([model.get_parameter("0.weight")], lr=1e-2)
    with pytest.raises(
        CheckpointError, match=r"has 4 parameters in 2 groups, this one 1 in 1; not in both: 0.bias"
    ):
        load_optimizer(fewer, tensors, state, names)
    one_group = torch.optim.AdamW(model.parameters(), lr=1e-2)
    with pytest.raises(CheckpointError, match="4 parameters in 2 groups, this one 4 in 1"):
        load_optimizer(one_group, tensors, state, names)


def test_a_parameter_without_a_name_is_refused():
    model = model_of()
    with pytest.raises(CheckpointError, match=r"shape \(8, 4\) that has no name"):
        optimizer_tensors(OPTIMISERS["adamw"](groups_of(model)), {"0.bias": model.get_parameter("0.bias")})


def test_state_that_is_no_json_is_refused():
    model = model_of()
    optimizer = OPTIMISERS["adamw"](groups_of(model))
    optimizer.param_groups[0]["hook"] = object()
    with pytest.raises(CheckpointError, match="'hook' is a object"):
        optimizer_tensors(optimizer, dict(model.named_parameters()))


def test_a_learning_rate_held_in_a_tensor_stays_one():
    model = model_of()
    names = dict(model.named_parameters())
    optimizer = torch.optim.AdamW(model.parameters(), lr=torch.tensor(0.1), foreach=False)
    train_once = torch.ones(1, 4)
    model(train_once).sum().backward()
    optimizer.step()
    tensors, state = optimizer_tensors(optimizer, names)
    fresh = torch.optim.AdamW(model.parameters(), lr=torch.tensor(0.5), foreach=False)
    load_optimizer(fresh, tensors, state, names)
    assert isinstance(fresh.param_groups[0]["lr"], torch.Tensor)
    assert torch.equal(fresh.param_groups[0]["lr"], torch.tensor(0.1))
    assert isinstance(fresh.param_groups[0]["betas"], tuple)
