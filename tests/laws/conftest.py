"""Worlds so small that every completion can be listed, so that an expectation is a sum and a law is exact.

`text` is a policy over V = 3 tokens and at most T = 4 of them, token 2 ending a completion (31 completions, of four
lengths); `process` is a random Markov decision process with 3 states, 2 actions and 3 steps (216 trajectories). Both
offer the same few things, so a law has one body for both. Everything is float64.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor

from lineal.objectives.algorithm import Algorithm, AlgorithmState, Batch, objective, prepare
from lineal.types import Rollout, Scores

STATE = AlgorithmState()


@dataclass(frozen=True)
class World:
    """All completions of a small policy.

    features_NK: what the policy sees in each of N situations; its logits there are features_NK @ theta_KV.
    situation_BT: the situation of each step of each completion. chance_B: probability of what the policy does not choose.
    """

    features_NK: Tensor
    situation_BT: Tensor
    action_BT: Tensor
    mask_BT: Tensor
    reward_BT: Tensor
    chance_B: Tensor
    choices: int

    def theta(self, seed: int) -> Tensor:
        """Random parameters, far from uniform."""
        generator = torch.Generator().manual_seed(seed)
        shape = (self.features_NK.shape[1], self.choices)
        return torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_()

    def distribution(self, theta: Tensor) -> Tensor:
        """log π(every choice) at each step of each completion, [B, T, V]."""
        return torch.log_softmax(self.features_NK @ theta, -1)[self.situation_BT]

    def logp(self, theta: Tensor) -> Tensor:
        """log π of each step of each completion, [B, T]; 0 where masked."""
        logp_BT = self.distribution(theta).gather(2, self.action_BT[:, :, None])[:, :, 0]
        return torch.where(self.mask_BT, logp_BT, 0.0)

    def probability(self, theta: Tensor) -> Tensor:
        """The probability of each completion."""
        return self.chance_B * self.logp(theta).sum(1).exp()

    def returns(self, discount: float = 1.0) -> Tensor:
        """Σ_t discount^t r_t of each completion, by the definition."""
        steps_T = torch.arange(self.mask_BT.shape[1], dtype=torch.float64)
        return (self.reward_BT * discount**steps_T).sum(1)

    def performance(self, theta: Tensor, discount: float = 1.0) -> Tensor:
        """J: the expected return, exactly."""
        return (self.probability(theta) * self.returns(discount)).sum()

    def exact_gradient(self, theta: Tensor, discount: float = 1.0) -> Tensor:
        """∇J."""
        return torch.autograd.grad(self.performance(theta, discount), theta)[0]

    def rollout(self, index_N: Tensor | None = None, group_N: Tensor | None = None) -> Rollout:
        """The given completions (all by default) as a rollout; each is a group of its own unless groups are given."""
        index_N = torch.arange(len(self.mask_BT)) if index_N is None else index_N
        mask_BT = self.mask_BT[index_N]
        length_B = mask_BT.sum(1)
        last_BT = mask_BT & (torch.arange(mask_BT.shape[1]) == length_B[:, None] - 1)
        return Rollout(
            action_BT=self.action_BT[index_N],
            mask_BT=mask_BT,
            reward_BT=self.reward_BT[index_N],
            behaviour_logp_BT=torch.zeros_like(self.reward_BT[index_N]),
            group_B=torch.arange(len(index_N)) if group_N is None else group_N,
            terminated_BT=last_BT,
            truncated_BT=torch.zeros_like(last_BT),
            segment_BT=torch.zeros_like(self.action_BT[index_N]),
        )

    def groups(self, size: int) -> tuple[Tensor, Tensor]:
        """Every group of `size` completions: the completions' indices, and which group each belongs to."""
        index_PG = torch.cartesian_prod(*[torch.arange(len(self.mask_BT))] * size).reshape(-1, size)
        return index_PG.flatten(), torch.arange(len(index_PG)).repeat_interleave(size)

    def expected(
        self,
        algorithm: Algorithm,
        theta: Tensor,
        *,
        size: int = 1,
        state: AlgorithmState = STATE,
        old: Tensor | None = None,
        change: Callable[[Rollout], Rollout] = lambda rollout: rollout,
    ) -> Tensor:
        """The exact expectation of the objective over every group of `size` completions sampled from `old` (or theta).

        The library's own weights, advantages and surrogate; only the average over samples is replaced by the sum over
        all groups, each as likely as it is. For reductions that are a mean over prompts.
        """
        index_N, group_N = self.groups(size)
        rollout = self.rollout(index_N, group_N)
        if old is not None:
            rollout = replace(rollout, old_logp_BT=self.logp(old).detach()[index_N])
        batch = self.likely(prepare(algorithm, change(rollout), state), theta if old is None else old, size)
        return objective(algorithm, Scores(self.logp(theta)[index_N]), batch, state)[0]

    def likely(self, batch: Batch, theta: Tensor, size: int) -> Batch:
        """The batch of every group with its mean over prompts turned into an expectation."""
        index_N, group_N = self.groups(size)
        chance_P = self.probability(theta).detach()[index_N].reshape(-1, size).prod(1)
        assert torch.isclose(chance_P.sum(), torch.ones((), dtype=torch.float64))
        share_B1 = (chance_P * len(chance_P))[group_N][:, None]
        return replace(
            batch, weight_BT=batch.weight_BT * share_B1, step_weight_BT=batch.step_weight_BT * share_B1
        )

    def gradient(self, algorithm: Algorithm, theta: Tensor, **settings) -> Tensor:
        """The gradient of `expected`."""
        return torch.autograd.grad(self.expected(algorithm, theta, **settings), theta)[0]


def _text(vocabulary: int = 3, longest: int = 4, end: int | None = 2, seed: int = 0) -> World:
    generator = torch.Generator().manual_seed(seed)
    completions = []
    for tokens in itertools.product(range(vocabulary), repeat=longest):
        stop = tokens.index(end) + 1 if end is not None and end in tokens else longest
        if tokens[:stop] not in completions:
            completions.append(tokens[:stop])
    prefixes = sorted({c[:t] for c in completions for t in range(len(c))})
    situation_BT = torch.zeros(len(completions), longest, dtype=torch.int64)
    action_BT = torch.zeros_like(situation_BT)
    mask_BT = torch.zeros(len(completions), longest, dtype=torch.bool)
    for row, tokens in enumerate(completions):
        for t, token in enumerate(tokens):
            situation_BT[row, t], action_BT[row, t], mask_BT[row, t] = prefixes.index(tokens[:t]), token, True
    reward_B = torch.randn(len(completions), generator=generator, dtype=torch.float64)
    last_BT = mask_BT & (torch.arange(longest) == mask_BT.sum(1, keepdim=True) - 1)
    features_NK = torch.randn(len(prefixes), 5, generator=generator, dtype=torch.float64)
    return World(
        features_NK=features_NK,
        situation_BT=situation_BT,
        action_BT=action_BT,
        mask_BT=mask_BT,
        reward_BT=torch.where(last_BT, reward_B[:, None], 0.0),
        chance_B=torch.ones(len(completions), dtype=torch.float64),
        choices=vocabulary,
    )


def _process(states: int = 3, actions: int = 2, steps: int = 3, seed: int = 1) -> World:
    generator = torch.Generator().manual_seed(seed)

    def random(*shape: int) -> Tensor:
        return torch.rand(shape, generator=generator, dtype=torch.float64)

    start_S = random(states) / 1
    start_S = start_S / start_S.sum()
    move_SAS = random(states, actions, states)
    move_SAS = move_SAS / move_SAS.sum(-1, keepdim=True)
    reward_SA = random(states, actions) * 2 - 1
    rows, chances = [], []
    for path in itertools.product(range(states), range(actions), repeat=steps):
        visited, taken = path[::2], path[1::2]
        chance = start_S[visited[0]]
        for t in range(steps - 1):
            chance = chance * move_SAS[visited[t], taken[t], visited[t + 1]]
        rows.append((visited, taken))
        chances.append(chance)
    situation_BT = torch.tensor([row[0] for row in rows])
    action_BT = torch.tensor([row[1] for row in rows])
    return World(
        features_NK=random(states, 4) * 2 - 1,
        situation_BT=situation_BT,
        action_BT=action_BT,
        mask_BT=torch.ones_like(action_BT, dtype=torch.bool),
        reward_BT=reward_SA[situation_BT, action_BT],
        chance_B=torch.stack(chances),
        choices=actions,
    )


@pytest.fixture(scope="session")
def text() -> World:
    """V = 3, T = 4, token 2 ends: completions of lengths 1 to 4."""
    return _text()


@pytest.fixture(scope="session")
def even_text() -> World:
    """V = 3, T = 4 without an end: 81 completions of equal length."""
    return _text(end=None)


@pytest.fixture(scope="session")
def process() -> World:
    """A random Markov decision process, every trajectory listed."""
    return _process()


@pytest.fixture(scope="session", params=["text", "process"])
def world(request: pytest.FixtureRequest) -> World:
    """Both worlds: a law with one body."""
    return request.getfixturevalue(request.param)
