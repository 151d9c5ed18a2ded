"""An actor with or without a critic: which parameters are whose, and what a fresh critic says."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from lineal.models.decoder import Decoder
from lineal.models.policy import ActorCritic

Build = Callable[..., Decoder]


@pytest.mark.parametrize("critic", [None, "head", "separate"])
def test_parameters_are_the_actor_s_or_the_critic_s(build: Build, critic: str | None) -> None:
    policy = ActorCritic(build("llama"), critic)
    actor, other = policy.actor_parameters(), policy.critic_parameters()
    everything = dict(policy.named_parameters())
    assert actor.keys() | other.keys() == everything.keys() and not actor.keys() & other.keys()
    assert all(everything[name] is parameter for name, parameter in (actor | other).items())
    assert {p.data_ptr() for p in actor.values()} == {p.data_ptr() for p in policy.decoder.parameters()}
    assert bool(other) == (critic is not None)
    assert any(name.startswith("critic.") for name in other) == (critic == "separate")


def test_a_separate_critic_starts_as_a_copy_and_lives_apart(build: Build) -> None:
    policy = ActorCritic(build("qwen2"), "separate")
    assert policy.critic is not None
    pairs = list(zip(policy.decoder.parameters(), policy.critic.parameters(), strict=True))
    assert all(torch.equal(a, b) and a.data_ptr() != b.data_ptr() for a, b in pairs)


@pytest.mark.parametrize("critic", ["head", "separate"])
def test_a_fresh_critic_says_0(build: Build, token_BT: torch.Tensor, critic: str) -> None:
    policy = ActorCritic(build("llama"), critic)
    hidden = policy.decoder(token_BT)
    value = policy.values(hidden, lambda decoder: decoder(token_BT), detach=False)
    assert value is not None and value.shape == token_BT.shape and not value.any()


def test_without_a_critic_there_is_no_value(build: Build, token_BT: torch.Tensor) -> None:
    policy = ActorCritic(build("llama"))
    assert policy.values(policy.decoder(token_BT), lambda decoder: decoder(token_BT), detach=False) is None


def test_an_orthogonal_start_has_norm_1_and_is_reproducible(build: Build) -> None:
    torch.manual_seed(0)
    one = ActorCritic(build("llama"), "head", orthogonal=True).value_head
    torch.manual_seed(1)
    other = ActorCritic(build("llama"), "head", orthogonal=True).value_head
    assert one is not None and other is not None
    assert one.weight.norm().item() == pytest.approx(1.0) and not one.bias.any()
    assert torch.equal(one.weight, other.weight)


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [(torch.float64, torch.float64), (torch.float32, torch.float32), (torch.bfloat16, torch.float32)],
)
def test_the_head_has_the_decoder_s_type_and_values_at_least_float32(
    build: Build, token_BT: torch.Tensor, dtype: torch.dtype, expected: torch.dtype
) -> None:
    policy = ActorCritic(build("llama", dtype), "head")
    assert policy.value_head is not None and policy.value_head.weight.dtype == dtype
    value = policy.values(policy.decoder(token_BT), lambda decoder: decoder(token_BT), detach=False)
    assert value is not None and value.dtype == expected
