"""Updates from pictures, and from environments that reset in the next step: nothing depends on how a batch is cut."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from lineal.environments.control.gymnasium import VectorTask
from lineal.environments.control.protocol import Step, VectorEnvironment
from lineal.environments.control.spaces import Discrete, Space, box
from lineal.models.control import ControlConfig, ControlPolicy
from lineal.models.pixels import PixelPolicy
from lineal.objectives.algorithm import Algorithm, initial_state, needs, override, prepare, split
from lineal.objectives.penalty import SqrtKL
from lineal.objectives.policy import named
from lineal.optim.groups import adamw
from lineal.train.control.collect import Collector
from lineal.train.control.natural import critic_update, natural_update
from lineal.train.control.parts import policy_config
from lineal.train.control.update import StepProblem, accumulate, adam_update
from lineal.train.environment_options import PolicyOptions


class Dots:
    """Copy b shows a dot that moves; it terminates after 5 + b steps, loses a life after 3, and pays 3 per step."""

    name = "Dots-v0"
    observation: Space = box(0.0, 255.0, (8, 8, 1), "uint8")
    action: Space = Discrete(3)

    def __init__(self, count: int = 3) -> None:
        self.count, self.time_B = count, np.zeros(count, np.int64)

    def show(self) -> np.ndarray:
        shown = np.zeros((self.count, 8, 8, 1), np.uint8)
        shown[np.arange(self.count), self.time_B % 8, np.arange(self.count) % 8] = 255
        return shown

    def reset(self, seed: int | None = None) -> np.ndarray:
        self.time_B[:] = 0
        return self.show()

    def step(self, action: np.ndarray) -> Step:
        self.time_B += 1
        final, ended = self.show(), self.time_B == 5 + np.arange(self.count)
        lost = self.time_B == 3
        self.time_B[ended] = 0
        return Step(
            self.show(), np.full(self.count, 3.0), ended, np.zeros(self.count, bool), final, lost_B=lost
        )

    def render(self, index: int = 0) -> np.ndarray:
        return np.zeros((8, 8, 3), np.uint8)

    def get_state(self) -> dict[str, Any] | None:
        return {"time": self.time_B.tolist()}

    def set_state(self, state: dict[str, Any]) -> np.ndarray:
        self.time_B = np.array(state["time"])
        return self.show()

    def close(self) -> None:
        return


def problem(algorithm: Algorithm, at_once: int = 1000, shared: bool = False) -> StepProblem:
    environment: VectorEnvironment = Dots()
    critic = needs(algorithm).critic is not None
    options = PolicyOptions(hidden=(8,), convolutions=("4x3/1", "4x3/2"))
    config = policy_config(options, environment.observation, environment.action, critic=critic, shared=shared)
    policy = PixelPolicy(config, 0, torch.float64, at_once)
    with torch.no_grad():
        policy.theta.add_(0.1 * torch.randn(policy.theta.shape, generator=torch.Generator().manual_seed(4)))
    collector = Collector(environment, policy, 0, 0.99, clip_rewards=True)
    collector.restart(0)
    experience = collector.collect(1, 12, whole=not critic)
    state = initial_state(algorithm)
    return StepProblem(policy, algorithm, state, experience, prepare(algorithm, experience.rollout, state))


def test_pictures_lives_and_clipped_rewards_in_a_rollout() -> None:
    experience = problem(named("ppo")).experience
    assert experience.input_NF.shape == (36, 1, 8, 8) and experience.input_NF.dtype == torch.uint8
    assert experience.rollout.terminated_BT[0].nonzero().flatten().tolist() == [2, 4, 7, 9]
    assert experience.rollout.reward_BT.unique().tolist() == [1.0]
    assert experience.returns == [15.0, 18.0, 21.0, 15.0, 18.0] and experience.lengths == [5, 6, 7, 5, 6]


CUTS = [
    ("ppo", {"minibatches": 1, "entropy": 0.02, "value_clip": 0.1}, True),
    ("ppo", {"minibatches": 2}, True),
    ("ppo-kl", {"minibatches": 2}, True),
    ("sqrt", {"minibatches": 1}, True),
    ("reinforce", {}, False),
]


@pytest.mark.parametrize(("name", "numbers", "shared"), CUTS)
def test_any_micro_batches_give_the_same_gradient(name: str, numbers: dict[str, Any], shared: bool) -> None:
    algorithm = override(named("ppo-kl" if name == "sqrt" else name), **numbers)
    if name == "sqrt":
        algorithm = replace(algorithm, penalty=(SqrtKL(1.0),))
    found: list[tuple[Tensor, dict[str, Tensor]]] = []
    for at_once in (1000, 7, 1):
        work = problem(algorithm, at_once, shared)
        with torch.no_grad():
            shift = torch.randn(work.policy.theta.shape, generator=torch.Generator().manual_seed(8))
            work.policy.theta.add_(0.05 * shift)
        gradient_KP = torch.full_like(work.policy.theta, 5.0)
        part = split(algorithm, work.batch, 0, by_step=not algorithm.reduction.whole_rows)[0]
        found.append((gradient_KP, accumulate(work, part, gradient_KP)))
    for gradient_KP, sums in found[1:]:
        assert torch.allclose(gradient_KP, found[0][0], rtol=1e-9, atol=1e-13)
        for metric in {"surrogate", "entropy", "kl", "value_loss", "steps"} & set(sums):
            assert float(sums[metric]) == pytest.approx(float(found[0][1][metric]), rel=1e-9, abs=1e-14)
    assert float(found[0][0].abs().max()) > 0


def test_a_trust_region_step_on_pictures_keeps_its_promises_however_it_is_cut() -> None:
    moved = []
    for at_once in (1000, 7):
        work = problem(named("trpo"), at_once)
        before = work.policy.theta.detach().clone()
        _, report = natural_update(work)
        assert report.accepted and report.improvement > 0 and 0 < report.kl <= 0.01
        now_NO = work.policy.outputs(work.experience.input_NF)[0]
        kl_N = work.policy.actions.kl(work.experience.old.output_NO, torch.zeros(0), now_NO, torch.zeros(0))
        assert float(kl_N.mean()) == pytest.approx(report.kl, rel=1e-9)
        assert torch.equal(work.policy.theta[1], before[1]), "the critic must not move"
        optimiser = adamw({"theta": torch.nn.Parameter(work.policy.theta.data[1:2])}, 1e-2, weight_decay=0.0)
        accepted = work.policy.theta[0].detach().clone()
        critic_update(work, optimiser, 2)
        assert torch.equal(work.policy.theta[0], accepted) and not torch.equal(
            work.policy.theta[1], before[1]
        )
        moved.append(accepted - before[0])
    assert torch.allclose(moved[0], moved[1], rtol=1e-6, atol=1e-12)


def test_an_update_by_adam_moves_the_shared_features() -> None:
    algorithm = override(named("ppo"), epochs=2, minibatches=3, learning_rate=1e-3)
    work = problem(algorithm, 5, shared=True)
    before = work.policy.theta.detach().clone()
    optimiser = adamw({"theta": work.policy.theta}, 1e-3, weight_decay=0.0)
    sums, norms = adam_update(work, optimiser, lambda norm, part: True)
    assert len(norms) == 6 and float(sums["steps"]) == 36 and float(sums["value_loss"]) > 0
    assert work.policy.theta.shape[0] == 1 and not torch.equal(work.policy.theta, before)


# An environment that resets in the next step, beside the same one that resets in the same.


def clocks(mode: str) -> VectorTask:
    gymnasium = pytest.importorskip("gymnasium")

    class Clock(gymnasium.Env):  # type: ignore[name-defined]
        def __init__(self) -> None:
            self.observation_space = gymnasium.spaces.Box(-1, 1000, (2,), np.float32)
            self.action_space = gymnasium.spaces.Discrete(2)
            self.episode, self.time = 0, 0

        def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict]:
            self.episode, self.time = (0 if seed is not None else self.episode) + 1, 0
            return np.array([self.episode % 3, 0], np.float32), {}

        def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict]:
            self.time += 1
            over, even = self.time == 3 + self.episode % 2, self.episode % 2 == 0
            shown = np.array([self.episode % 3, self.time], np.float32)
            return shown, self.time + 0.5 * float(action), over and not even, over and even, {}

    one = gymnasium.vector.AutoresetMode[mode]
    return VectorTask("Clock-v0", gymnasium.vector.SyncVectorEnv([Clock, Clock], autoreset_mode=one))


def counted(work: StepProblem, x_BT: Tensor | None) -> Tensor:
    assert x_BT is not None
    return x_BT[work.batch.mask_BT]


@pytest.mark.parametrize("name", ["ppo", "trpo", "reinforce"])
def test_dummy_steps_count_nowhere(name: str) -> None:
    """Two rollouts of 7 counted steps of each copy, whichever way episodes begin anew; the second begins with a dummy."""
    algorithm = override(named(name), **({"minibatches": 2, "epochs": 2} if name == "ppo" else {}))
    critic = needs(algorithm).critic is not None
    config = ControlConfig(
        2, (2,), hidden=(8,), critic=critic, normalise_observations=True, normalise_rewards=True
    )
    works, policies = {}, {}
    for mode, lengths in (("SAME_STEP", (7, 7)), ("NEXT_STEP", (8, 9))):
        policy = policies[mode] = ControlPolicy(config, 0, torch.float64)
        collector = Collector(clocks(mode), policy, 0, 0.9)
        collector.restart(0)
        state = initial_state(algorithm)
        for step, steps in enumerate(lengths, 1):
            experience = collector.collect(step, steps, whole=not critic)
            batch = prepare(algorithm, experience.rollout, state)
            work = works[mode, step] = StepProblem(policy, algorithm, state, experience, batch)
            if name == "trpo":
                natural_update(work)
                leaf = torch.nn.Parameter(policy.theta.data[1:2])
                critic_update(work, adamw({"theta": leaf}, 1e-2, weight_decay=0.0), 2)
            else:
                adam_update(
                    work, adamw({"theta": policy.theta}, 1e-2, weight_decay=0.0), lambda norm, part: True
                )
    for step in (1, 2):
        same, late = works["SAME_STEP", step], works["NEXT_STEP", step]
        if critic:
            assert int(late.batch.mask_BT.sum()) == int(same.batch.mask_BT.sum()) == 14
            assert int((~late.batch.mask_BT).sum()) == (2, 4)[step - 1]
        for part in ("action_BT", "reward_BT", "old_logp_BT", "terminated_BT", "truncated_BT"):
            one, other = (counted(w, getattr(w.experience.rollout, part)) for w in (same, late))
            assert torch.allclose(one.double(), other.double(), rtol=1e-12), part
        for part in ("advantage_BT", "weight_BT", "step_weight_BT"):
            one, other = (counted(w, getattr(w.batch, part)) for w in (same, late))
            assert torch.allclose(one, other, rtol=1e-10, atol=1e-13), part
            assert not getattr(late.batch, part)[~late.batch.mask_BT].any(), part
        assert same.experience.returns == late.experience.returns
        assert same.experience.lengths == late.experience.lengths
        if critic:
            assert same.experience.env_steps == late.experience.env_steps == 14
    for name_, x in policies["SAME_STEP"].state_dict().items():
        assert torch.allclose(x, policies["NEXT_STEP"].state_dict()[name_], rtol=1e-9, atol=1e-12), name_
