"""The mixture as a layer: who shares a batch does not matter, limits and replay do what they say, bad shapes are refused."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from lineal.errors import UsageError
from lineal.models.decoder import (
    DecoderConfig,
    active_parameters,
    llama_config,
    mixtral_config,
    parameter_count,
)
from lineal.models.gating import ExpertsConfig, Routes
from lineal.models.moe import Mixture
from lineal.train.routing import gating_noise

SHAPES = {
    "top_k": ExpertsConfig(6, 2, 5),
    "weights of all": ExpertsConfig(6, 2, 5, renormalise=False),
    "softmax": ExpertsConfig(4, 1, 5, gate="softmax"),
    "noisy": ExpertsConfig(6, 2, 5, gate="noisy_top_k", activation="relu"),
    "two levels": ExpertsConfig(6, 2, 5, gate="noisy_top_k", groups=2),
    "one expert": ExpertsConfig(1, 1, 5),
}


def built(config: ExpertsConfig, seed: int = 0) -> Mixture:
    mixture = Mixture(config, 8).double()
    made = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in mixture.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=made, dtype=torch.float64))
    return mixture


def rows(count: int = 24) -> Tensor:
    return torch.randn(count, 8, generator=torch.Generator().manual_seed(9), dtype=torch.float64)


@pytest.mark.parametrize("name", list(SHAPES))
def test_a_row_does_not_depend_on_the_others(name: str) -> None:
    mixture, x_ND = built(SHAPES[name]), rows()
    together = mixture(x_ND)
    alone = torch.cat([mixture(x_1D) for x_1D in x_ND.split(1)])
    torch.testing.assert_close(together, alone)
    torch.testing.assert_close(mixture(x_ND.view(2, 3, 4, 8)).view(24, 8), together)


@pytest.mark.parametrize("name", list(SHAPES))
def test_a_limit_that_all_fit_in_changes_nothing(name: str) -> None:
    plain, x_ND = built(SHAPES[name]), rows()
    for overflow in ("next", "around"):
        limited = built(replace(SHAPES[name], capacity=100.0, overflow=overflow))
        torch.testing.assert_close(limited(x_ND, Routes(limited=True)), plain(x_ND))


@pytest.mark.parametrize("overflow", ["next", "around"])
@pytest.mark.parametrize("name", ["top_k", "noisy", "two levels"])
def test_a_tight_limit_is_kept_in_training_batches_only(name: str, overflow: str) -> None:
    mixture, x_ND = built(replace(SHAPES[name], capacity=1.0, overflow=overflow)), rows(60)
    routes = Routes(limited=True)
    mixture(x_ND, routes)
    taken = routes.routing[0].expert_NK
    places = 60 * mixture.config.active
    assert int(torch.bincount(taken[taken >= 0]).max()) <= -(-places // 6)
    if overflow == "around":
        assert (taken < 0).any()
    free = Routes()
    torch.testing.assert_close(mixture(x_ND, free), built(SHAPES[name])(x_ND))
    assert (free.routing[0].expert_NK >= 0).all()


def test_what_goes_around_the_layer_keeps_the_other_weights() -> None:
    mixture, x_ND = built(replace(SHAPES["top_k"], capacity=0.5, overflow="around")), rows()
    limited, free = Routes(limited=True), Routes()
    mixture(x_ND, limited)
    mixture(x_ND, free)
    there = limited.routing[0].expert_NK >= 0
    expected = free.routing[0].weight_NK * there
    torch.testing.assert_close(limited.routing[0].weight_NK, expected)
    assert not there.all()


def test_who_comes_first_is_decided_by_position() -> None:
    mixture, x_ND = built(replace(SHAPES["top_k"], capacity=0.6, overflow="around")), rows()
    order = torch.randperm(24, generator=torch.Generator().manual_seed(1))
    straight, mixed = Routes(limited=True), Routes(limited=True, position_N=order)
    mixture(x_ND, straight)
    mixture(x_ND[order], mixed)
    assert torch.equal(straight.routing[0].expert_NK[order], mixed.routing[0].expert_NK)


@pytest.mark.parametrize("name", ["noisy", "two levels"])
def test_noise_belongs_to_the_token_not_to_its_place_in_the_batch(name: str) -> None:
    mixture, x_ND = built(SHAPES[name]), rows()
    noise = gating_noise(0, 5)
    whole, part = Routes(noise), Routes(noise, position_N=torch.arange(10, 20))
    together, alone = mixture(x_ND, whole), mixture(x_ND[10:20], part)
    torch.testing.assert_close(together[10:20], alone)
    quiet = Routes()
    mixture(x_ND, quiet)
    assert not torch.equal(quiet.routing[0].expert_NK, whole.routing[0].expert_NK)


@pytest.mark.parametrize("name", ["top_k", "weights of all", "two levels"])
def test_replayed_experts_are_used_with_the_gates_weights_of_today(name: str) -> None:
    before, x_ND = built(SHAPES[name]), rows()
    sampled = Routes()
    then = before(x_ND, sampled)
    replay_NLK = torch.stack([sampled.routing[0].expert_NK], 1)
    torch.testing.assert_close(before(x_ND, Routes(replay_NLK=replay_NLK)), then)
    after = built(SHAPES[name])
    with torch.no_grad():
        after.gate.weight.add_(
            0.5 * torch.randn(after.gate.weight.shape, generator=torch.Generator().manual_seed(3))
        )
    free, replayed = Routes(), Routes(replay_NLK=replay_NLK)
    after(x_ND, free)
    after(x_ND, replayed)
    assert not torch.equal(free.routing[0].expert_NK, replay_NLK[:, 0])
    assert torch.equal(replayed.routing[0].expert_NK, replay_NLK[:, 0])
    # What the gate itself would have chosen is still told.
    assert torch.equal(replayed.routing[0].wanted_NK.sort(1).values, _wanted(after, x_ND, name, replay_NLK))
    unknown = Routes(replay_NLK=torch.full_like(replay_NLK, -1))
    torch.testing.assert_close(after(x_ND, unknown), after(x_ND))


def _wanted(mixture: Mixture, x_ND: Tensor, name: str, replay_NLK: Tensor) -> Tensor:
    if name != "two levels":
        free = Routes()
        mixture(x_ND, free)
        return free.routing[0].expert_NK.sort(1).values
    # Inside the groups that were replayed, the best experts of each.
    found = []
    assert mixture.inner_gate is not None
    for x_D, groups in zip(x_ND, (replay_NLK[:, 0] // 3).tolist()):
        own = [3 * g + (mixture.inner_gate.weight[g] @ x_D).topk(2).indices for g in groups[::2]]
        found.append(torch.cat(own).sort().values)
    return torch.stack(found)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"count": 4, "chosen": 5}, "5 of 4 experts: choose at most 4"),
        ({"count": 8, "chosen": 3, "groups": 4}, "3 of 2 experts of a group"),
        ({"count": 8, "chosen": 3, "groups": 2}, "3 of 2 groups"),
        ({"count": 7, "groups": 2}, "cannot be dealt evenly to 2 groups"),
        ({"count": 4, "capacity": 0.0}, "leaves the experts no room"),
        ({"count": 4, "capacity": -1.0}, "leaves the experts no room"),
        ({"count": 4, "capacity": float("nan")}, "leaves the experts no room"),
        ({"count": 4, "capacity": float("inf")}, "None takes all that come"),
        ({"count": 0}, "count of experts must be at least 1; 0"),
        ({"count": 4, "inner": 0}, "inner of experts must be at least 1"),
        ({"count": 4, "gate": "argmax"}, "gate 'argmax' is not one of noisy_top_k, top_k, softmax"),
        ({"count": 4, "overflow": "drop"}, "overflow 'drop' is not one of next, around"),
        ({"count": 4, "gate": "softmax", "groups": 2}, "groups would save nothing"),
    ],
)
def test_experts_that_make_no_sense_are_refused(options: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        ExpertsConfig(**options)


@pytest.mark.parametrize(
    ("layout", "experts", "message"),
    [
        ("llama", ExpertsConfig(4), "layout llama has no place for experts"),
        ("mixtral", None, "layout mixtral is a mixture"),
        ("mixtral", ExpertsConfig(4, activation="relu"), "use lineal_moe"),
        ("mixtral", ExpertsConfig(4, groups=2), "use lineal_moe"),
        ("qwen3_moe", ExpertsConfig(4, 1, groups=2), "use lineal_moe"),
    ],
)
def test_a_layout_holds_only_what_its_files_can_say(
    layout: str, experts: ExpertsConfig | None, message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        llama_config(11, 8, 1, 2, 16, 8, layout=layout, experts=experts)


def test_parameters_that_a_token_meets() -> None:
    config: DecoderConfig = mixtral_config(11, 8, 3, 2, 16, 8)
    one = 3 * 8 * 16
    assert parameter_count(config) - active_parameters(config) == 3 * 6 * one
    dense = llama_config(11, 8, 3, 2, 16, 8)
    assert active_parameters(dense) == parameter_count(dense)
    # Two experts and the gates instead of one feed-forward layer.
    assert active_parameters(config) - parameter_count(dense) == 3 * (one + 8 * 8)
