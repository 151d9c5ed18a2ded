"""What a step may promise: the bounds behind TRPO, exact in float64.

The same bodies run on small random MDPs and on the enumerable text policy (V = 3, T = 4), which is an MDP whose states
are prefixes and whose finished texts never leave the end.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lineal.ops.logprob import exact_kl, gather_logp
from lineal.ops.returns import discounted, gae

EXACT = 1e-10
seeds = st.integers(0, 2**31)
kinds = st.sampled_from(["mdp", "text"])
discounts = st.sampled_from([0.0, 0.5, 0.9, 0.99])


@dataclass(frozen=True)
class World:
    """move_SAS: probability of the next state; reward_SA; start_S; discount; horizon of an enumerated episode."""

    move_SAS: Tensor
    reward_SA: Tensor
    start_S: Tensor
    discount: float
    horizon: int

    def solve(self, logits_SA: Tensor) -> Solution:
        """State values by the linear Bellman equation, and discounted visits by its transpose."""
        policy_SA = logits_SA.softmax(-1)
        move_SS = torch.einsum("sa,sat->st", policy_SA, self.move_SAS)
        identity = torch.eye(len(move_SS), dtype=torch.float64)
        system = identity - self.discount * move_SS
        value_S = torch.linalg.solve(system, (policy_SA * self.reward_SA).sum(-1))
        advantage_SA = self.reward_SA + self.discount * self.move_SAS @ value_S - value_S[:, None]
        visits_S = torch.linalg.solve(system.T, self.start_S)
        return Solution(float(self.start_S @ value_S), value_S, advantage_SA, visits_S)

    def finite_return(self, logits_SA: Tensor) -> float:
        """Expected discounted reward of the first `horizon` steps, by backward induction."""
        policy_SA = logits_SA.softmax(-1)
        value_S = torch.zeros(len(policy_SA), dtype=torch.float64)
        for _ in range(self.horizon):
            value_S = (policy_SA * (self.reward_SA + self.discount * self.move_SAS @ value_S)).sum(-1)
        return float(self.start_S @ value_S)

    def episodes(self) -> Iterator[tuple[list[int], list[int], float]]:
        """Every (states, actions) of `horizon` steps that can happen, with the probability of its moves."""
        open_ends = [([int(s)], [], float(self.start_S[s])) for s in self.start_S.nonzero()]
        for _ in range(self.horizon):
            open_ends = [
                ([*states, int(t)], [*actions, a], chance * float(self.move_SAS[states[-1], a, t]))
                for states, actions, chance in open_ends
                for a in range(self.move_SAS.shape[1])
                for t in self.move_SAS[states[-1], a].nonzero()
            ]
        yield from open_ends


@dataclass(frozen=True)
class Solution:
    """J, V(s), A(s, a) and the discounted number of visits Σ_t discount^t P(s_t = s) of one policy."""

    objective: float
    value_S: Tensor
    advantage_SA: Tensor
    visits_S: Tensor


def world(kind: str, seed: int, discount: float = 0.9) -> World:
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    if kind == "mdp":
        move_SAS = (2 * draw(3, 2, 3)).softmax(-1)
        return World(move_SAS, draw(3, 2), draw(3).softmax(0), discount, 4)
    prefixes = [p for length in range(4) for p in itertools.product(range(3), repeat=length)]
    place = {prefix: index for index, prefix in enumerate(prefixes)}
    end = len(prefixes)
    move_SAS = torch.zeros(end + 1, 3, end + 1, dtype=torch.float64)
    reward_SA = torch.zeros(end + 1, 3, dtype=torch.float64)
    move_SAS[end, :, end] = 1
    for prefix, state in place.items():
        for token in range(3):
            move_SAS[state, token, place.get((*prefix, token), end)] = 1
            if len(prefix) == 3:
                # The outcome reward of the finished text, on its last token.
                reward_SA[state, token] = draw(1)[0]
    start_S = torch.zeros(end + 1, dtype=torch.float64)
    start_S[0] = 1
    return World(move_SAS, reward_SA, start_S, discount, 4)


def policies(place: World, seed: int, distance: float = 1.0) -> tuple[Tensor, Tensor]:
    """Logits of an old policy and of a new one, `distance` away; they agree where a text has ended."""
    generator = torch.Generator().manual_seed(seed + 1)
    shape = place.reward_SA.shape
    old_SA = torch.randn(shape, generator=generator, dtype=torch.float64)
    return old_SA, old_SA + distance * torch.randn(shape, generator=generator, dtype=torch.float64)


def surrogate(old: Solution, new_SA: Tensor) -> float:
    """L(new) = Σ_s visits_old(s) Σ_a π_new(a|s) A_old(s, a)."""
    return float((old.visits_S[:, None] * new_SA.softmax(-1) * old.advantage_SA).sum())


@given(kinds, discounts, seeds)
def test_the_advantage_has_mean_zero_under_its_own_policy(kind: str, discount: float, seed: int):
    place = world(kind, seed, discount)
    old_SA, _ = policies(place, seed)
    old = place.solve(old_SA)
    mean_S = (old_SA.softmax(-1) * old.advantage_SA).sum(-1)
    assert float(mean_S.abs().max()) <= EXACT
    assert float(old.advantage_SA.abs().max()) > 1e-3


@given(kinds, discounts, seeds)
def test_the_surrogate_is_zero_at_old_and_rises_there_as_the_objective_does(
    kind: str, discount: float, seed: int
):
    place = world(kind, seed, discount)
    old_SA, _ = policies(place, seed)
    old = place.solve(old_SA)
    assert abs(surrogate(old, old_SA)) <= EXACT
    moving_SA = old_SA.clone().requires_grad_()
    value = (old.visits_S[:, None] * moving_SA.softmax(-1) * old.advantage_SA).sum()
    (slope_SA,) = torch.autograd.grad(value, [moving_SA])
    policy_SA = moving_SA.softmax(-1)
    move_SS = torch.einsum("sa,sat->st", policy_SA, place.move_SAS)
    system = torch.eye(len(move_SS), dtype=torch.float64) - place.discount * move_SS
    exact = place.start_S @ torch.linalg.solve(system, (policy_SA * place.reward_SA).sum(-1))
    (exact_SA,) = torch.autograd.grad(exact, [moving_SA])
    torch.testing.assert_close(slope_SA, exact_SA, rtol=0, atol=EXACT)


@given(kinds, discounts, st.floats(0.01, 5), seeds)
def test_the_objective_changes_by_the_old_advantage_over_the_new_policys_visits(
    kind: str, discount: float, distance: float, seed: int
):
    place = world(kind, seed, discount)
    old_SA, new_SA = policies(place, seed, distance)
    old, new = place.solve(old_SA), place.solve(new_SA)
    by_visits = (new.visits_S[:, None] * new_SA.softmax(-1) * old.advantage_SA).sum()
    assert new.objective - old.objective == pytest.approx(float(by_visits), abs=EXACT)


@pytest.mark.parametrize("kind", ["mdp", "text"])
@given(discount=discounts, distance=st.floats(0.01, 2), seed=seeds)
@settings(max_examples=8)
def test_trajectory_ratios_turn_old_returns_into_the_new_objective(
    kind: str, discount: float, distance: float, seed: int
):
    place = world(kind, seed, discount)
    old_SA, new_SA = policies(place, seed, distance)
    states, actions, chances = zip(*place.episodes(), strict=True)
    state_BT, action_BT = torch.tensor(states)[:, :-1], torch.tensor(actions)
    chance_B = torch.tensor(chances, dtype=torch.float64)
    everything_BT = torch.ones_like(action_BT, dtype=torch.bool)
    reward_BT = place.reward_SA[state_BT, action_BT]
    return_B = discounted(reward_BT, everything_BT, discount)[:, 0]
    old_logp_B = gather_logp(old_SA[state_BT], action_BT).sum(1)
    new_logp_B = gather_logp(new_SA[state_BT], action_BT).sum(1)
    probability_B = chance_B * old_logp_B.exp()
    assert float(probability_B.sum()) == pytest.approx(1.0, abs=EXACT)
    estimate = (probability_B * (new_logp_B - old_logp_B).exp() * return_B).sum()
    assert float(estimate) == pytest.approx(place.finite_return(new_SA), abs=EXACT)
    if kind == "text":
        assert float(estimate) == pytest.approx(place.solve(new_SA).objective, abs=EXACT)


@pytest.mark.parametrize("kind", ["mdp", "text"])
@given(discount=discounts, trace_decay=st.sampled_from([0.0, 0.5, 0.95, 1.0]), seed=seeds)
@settings(max_examples=8)
def test_gae_with_the_true_values_is_the_advantage_on_average(
    kind: str, discount: float, trace_decay: float, seed: int
):
    place = world(kind, seed, discount)
    old_SA, _ = policies(place, seed)
    old = place.solve(old_SA)
    states, actions, chances = zip(*place.episodes(), strict=True)
    state_BT, action_BT = torch.tensor(states), torch.tensor(actions)
    value_BT = old.value_S[state_BT]
    logp_BT = gather_logp(old_SA[state_BT[:, :-1]], action_BT)
    estimate_BT = gae(
        place.reward_SA[state_BT[:, :-1], action_BT],
        value_BT[:, :-1],
        torch.ones_like(action_BT, dtype=torch.bool),
        discount,
        trace_decay,
        next_value_BT=value_BT[:, 1:],
    )
    probability_B = torch.tensor(chances, dtype=torch.float64) * logp_BT.sum(1).exp()
    first_SA = torch.zeros_like(old.advantage_SA)
    weight_SA = torch.zeros_like(old.advantage_SA)
    index = (state_BT[:, 0], action_BT[:, 0])
    first_SA.index_put_(index, probability_B * estimate_BT[:, 0], accumulate=True)
    weight_SA.index_put_(index, probability_B, accumulate=True)
    seen_SA = weight_SA > 0
    mean_SA = first_SA[seen_SA] / weight_SA[seen_SA]
    torch.testing.assert_close(mean_SA, old.advantage_SA[seen_SA], rtol=0, atol=EXACT)


def penalties(place: World, old_SA: Tensor, new_SA: Tensor) -> tuple[float, float, float]:
    """(gain J(new) - J(old) minus L, penalty by the largest KL, penalty by the mean KL)."""
    old, new = place.solve(old_SA), place.solve(new_SA)
    kl_S = exact_kl(old_SA, new_SA)
    far = (1 - place.discount) ** 2
    largest = float(old.advantage_SA.abs().max())
    mean_S = (new_SA.softmax(-1) * old.advantage_SA).sum(-1)
    share_S = old.visits_S * (1 - place.discount)
    c = 2**0.5 * place.discount * float(mean_S.abs().max()) / far
    gap = new.objective - old.objective - surrogate(old, new_SA)
    by_max = 4 * place.discount * largest / far * float(kl_S.max())
    return gap, by_max, c * float((share_S * kl_S).sum().clamp(min=0)) ** 0.5


@given(kinds, discounts, st.floats(0.01, 5), seeds)
@settings(max_examples=100)
def test_the_gain_is_at_least_the_surrogate_minus_either_penalty(
    kind: str, discount: float, distance: float, seed: int
):
    """J(new) - J(old) >= L - 4 discount max|A| / (1-discount)² max KL (Schulman et al. 2015, theorem 1), and
    >= L - C sqrt(mean KL), C = √2 discount max_s|E_new A| / (1-discount)² (Achiam et al. 2017, corollary 3)."""
    place = world(kind, seed, discount)
    gap, by_max, by_mean = penalties(place, *policies(place, seed, distance))
    assert gap >= -by_max - EXACT
    assert gap >= -by_mean - EXACT


@pytest.mark.parametrize("kind", ["mdp", "text"])
def test_without_a_penalty_neither_bound_would_hold(kind: str):
    """So that the bounds say something: the surrogate alone promises too much for some policies."""
    gaps, shares = [], []
    for seed in range(100):
        place = world(kind, seed, 0.9)
        gap, by_max, by_mean = penalties(place, *policies(place, seed, 1.0))
        gaps.append(gap)
        shares.append(-gap / min(by_max, by_mean))
    assert min(gaps) < -0.05
    # How much of the penalty some policy uses up: a wrong power of 1 - discount would show.
    assert max(shares) > 0.007


@given(kinds, seeds)
def test_at_discount_zero_the_surrogate_is_the_gain(kind: str, seed: int):
    place = world(kind, seed, 0.0)
    gap, by_max, by_mean = penalties(place, *policies(place, seed, 2.0))
    assert abs(gap) <= EXACT
    assert by_max == by_mean == 0
