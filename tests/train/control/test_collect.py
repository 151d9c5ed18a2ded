"""Rollouts from environments: what stands where, at resets above all."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch

from lineal.environments.control.opening import open_environment
from lineal.environments.control.protocol import Step
from lineal.environments.control.spaces import Discrete, box
from lineal.errors import EnvironmentFailure
from lineal.models.control import ControlConfig, ControlPolicy
from lineal.objectives.advantage import GAE
from lineal.objectives.algorithm import AlgorithmState
from lineal.train.control.collect import Collector
from lineal.train.control.seen import Features


class Counting:
    """Copy b shows (episode, time in it); it terminates after 3 + b steps, copy 0 is truncated instead; reward = time."""

    name = "Counting-v0"

    def __init__(self, count: int = 2, broken: str = "") -> None:
        self.count, self.broken, self.taken = count, broken, 0
        self.observation = box(-100.0, 100.0, (2,), "float32")
        self.action = Discrete(2)
        self.place_B2 = np.zeros((count, 2))

    def reset(self, seed: int | None = None) -> np.ndarray:
        self.place_B2 = np.zeros((self.count, 2))
        return self.place_B2.astype(np.float32)

    def step(self, action: np.ndarray) -> Step:
        self.taken += 1
        self.place_B2[:, 1] += 1
        final = self.place_B2.astype(np.float32)
        reward = self.place_B2[:, 1].copy()
        ended = self.place_B2[:, 1] == 3 + np.arange(self.count)
        truncated = ended & (np.arange(self.count) == 0)
        self.place_B2[ended] = np.stack([self.place_B2[ended, 0] + 1, np.zeros(ended.sum())], 1)
        shown = self.place_B2.astype(np.float32)
        if self.broken and self.taken == 4:
            (reward if self.broken == "reward" else shown)[1] = np.nan
        return Step(shown, reward, ended & ~truncated, truncated, final)

    def render(self, index: int = 0) -> np.ndarray:
        return np.zeros((4, 4, 3), np.uint8)

    def get_state(self) -> dict[str, Any] | None:
        return {"place": self.place_B2.tolist()}

    def set_state(self, state: dict[str, Any]) -> np.ndarray:
        self.place_B2 = np.array(state["place"])
        return self.place_B2.astype(np.float32)

    def close(self) -> None:
        return


def collector(environment: Any, **changes: Any) -> Collector:
    policy = ControlPolicy(ControlConfig(2, (2,), hidden=(8,), **changes), 0, torch.float64)
    made = Collector(environment, policy, 0, 0.9)
    made.restart(0)
    return made


def value(made: Collector, episode: float, time: float) -> float:
    feature = made.actor.normalised(np.array([[episode, time]], np.float32))
    return float(made.policy.read(torch.from_numpy(feature)).output_KNO.detach()[1, 0, 0])


def test_a_rollout_says_what_happened() -> None:
    made = collector(Counting())
    got = made.collect(1, 7)
    rollout = got.rollout
    assert rollout.reward_BT.tolist() == [[1, 2, 3, 1, 2, 3, 1], [1, 2, 3, 4, 1, 2, 3]]
    assert rollout.truncated_BT.nonzero().tolist() == [[0, 2], [0, 5]]
    assert rollout.terminated_BT.nonzero().tolist() == [[1, 3]]
    assert rollout.segment_BT.tolist() == [[0, 0, 0, 1, 1, 1, 2], [0, 0, 0, 0, 1, 1, 1]]
    assert got.returns == [6.0, 10.0, 6.0] and got.lengths == [3, 4, 3] and got.env_steps == 14
    assert bool(rollout.mask_BT.all())
    assert rollout.old_logp_BT is not None
    assert torch.allclose(rollout.behaviour_logp_BT, rollout.old_logp_BT, atol=1e-12)
    again = made.collect(2, 2)
    assert again.rollout.reward_BT.tolist() == [[2, 3], [4, 1]], (
        "the next rollout goes on where this one stopped"
    )
    assert again.returns == [10.0, 6.0]


def test_values_after_a_step_see_through_the_reset() -> None:
    made = collector(Counting())
    rollout = made.collect(1, 5).rollout
    assert rollout.value_BT is not None and rollout.next_value_BT is not None
    assert float(rollout.value_BT[0, 3]) == pytest.approx(value(made, 1, 0), abs=1e-12)
    assert float(rollout.next_value_BT[0, 1]) == pytest.approx(value(made, 0, 2), abs=1e-12)
    assert float(rollout.next_value_BT[0, 2]) == pytest.approx(value(made, 0, 3), abs=1e-12), (
        "before the reset"
    )
    assert float(rollout.next_value_BT[0, 4]) == pytest.approx(value(made, 1, 2), abs=1e-12), (
        "after the last step"
    )
    advantage_BT = GAE(discount=0.9, trace_decay=0.0, whiten="off")(rollout, AlgorithmState())
    cut = 3 + 0.9 * value(made, 0, 3) - value(made, 0, 2)
    assert float(advantage_BT[0, 2]) == pytest.approx(cut, abs=1e-12), "a cut episode bootstraps"
    assert float(advantage_BT[1, 3]) == pytest.approx(4 - value(made, 0, 3), abs=1e-12), (
        "a finished one does not"
    )


def test_advantages_do_not_depend_on_where_rollouts_are_cut() -> None:
    whole, halves = collector(Counting()), collector(Counting())
    part = GAE(discount=0.9, trace_decay=0.0, whiten="off")
    one_BT = part(whole.collect(1, 6).rollout, AlgorithmState())
    two_BT = [part(halves.collect(step, 3).rollout, AlgorithmState()) for step in (1, 2)]
    assert torch.allclose(one_BT, torch.cat(two_BT, 1), atol=1e-12)


def test_whole_episodes_begin_at_the_beginning_and_mask_the_rest() -> None:
    made = collector(Counting(), critic=False)
    got = made.collect(1, 2, whole=True)
    assert got.rollout.mask_BT.tolist() == [[True] * 3 + [False], [True] * 4]
    assert got.rollout.reward_BT.tolist() == [[1, 2, 3, 0], [1, 2, 3, 4]]
    assert bool((got.rollout.segment_BT == 0).all()) and got.returns == [6.0, 10.0]
    assert made.collect(2, 2, whole=True).returns == [6.0, 10.0]


def test_randomness_belongs_to_seed_and_step() -> None:
    first, second = collector(Counting()), collector(Counting())
    first.collect(1, 7)
    saved = json.loads(json.dumps(first.state(1)))
    wanted = first.collect(2, 20)
    second.resume(saved)
    found = second.collect(2, 20)
    assert torch.equal(wanted.action, found.action) and torch.equal(wanted.input_NF, found.input_NF)
    assert wanted.returns == found.returns
    assert not torch.equal(second.collect(3, 20).action, found.action)


def test_an_environment_without_a_state_begins_anew_at_every_checkpoint() -> None:
    class Opaque(Counting):
        def get_state(self) -> None:
            return None

    first, second = collector(Opaque()), collector(Opaque())
    first.collect(1, 4)
    saved = json.loads(json.dumps(first.state(1)))
    second.resume(saved)
    assert torch.equal(first.collect(2, 9).input_NF, second.collect(2, 9).input_NF)
    assert first.collect(3, 2).returns == second.collect(3, 2).returns


@pytest.mark.parametrize("broken", ["reward", "observation"])
def test_nan_is_refused_by_name(broken: str) -> None:
    made = collector(Counting(broken=broken))
    before = made.policy.theta.detach().clone()
    with pytest.raises(EnvironmentFailure, match=f"Counting-v0 gave {broken} nan in copy 1"):
        made.collect(1, 6)
    assert torch.equal(made.policy.theta, before)


def test_normalisers_learn_after_the_rollout_and_never_within_it() -> None:
    made = collector(Counting(), normalise_observations=True, normalise_rewards=True)
    first = made.collect(1, 7)
    assert first.rollout.reward_BT[0, :3].tolist() == [1, 2, 3]
    assert first.input_NF[:3].tolist() == [[0, 0], [0, 1], [0, 2]]
    normaliser, reward = made.policy.observation, made.policy.reward
    assert (
        normaliser is not None and reward is not None and float(normaliser.count) == float(reward.count) == 14
    )
    second = made.collect(2, 3)
    raw = np.array([[2.0, 1.0]])
    mean, deviation = np.array([first.input_NF[:, i].mean() for i in (0, 1)]), first.input_NF.numpy().std(0)
    assert np.allclose(second.input_NF[0].numpy(), ((raw - mean) / deviation)[0], atol=1e-6)
    assert float(second.rollout.reward_BT[0, 0]) != 2.0 and made.collect(3, 3).returns[0] > 5


def test_rewards_are_divided_by_the_deviation_of_their_running_sum() -> None:
    made = collector(Counting(count=1), normalise_rewards=True)
    made.collect(1, 6)
    running = [1.0, 2.9, 5.61, 1.0, 2.9, 5.61]
    assert made.policy.reward is not None
    assert float(made.policy.reward.scale()[0]) == pytest.approx(1 / np.std(running), rel=1e-6)


def test_actions_are_drawn_with_the_covariance_as_it_is_now() -> None:
    policy = ControlPolicy(ControlConfig(3, reals=1, log_std=-8.0), 0)
    made = Collector(open_environment("Pendulum-v1", 4), policy, 0, 0.9)
    made.restart(0)
    narrow = made.collect(1, 50)
    with torch.no_grad():
        policy.shape.tail(policy.theta)[0] += 8.0
    wide = made.collect(2, 50)
    assert float((narrow.action - narrow.old.output_NO).std()) < 1e-3
    assert float((wide.action - wide.old.output_NO).std()) == pytest.approx(1.0, abs=0.2)


def test_a_choice_is_shown_as_one_hot() -> None:
    environment = open_environment("CartPole-v1")
    features = Features(environment)
    assert features.count == 4
    environment.observation = Discrete(3)
    features = Features(environment)
    assert features.count == 3
    assert features(np.array([2, 0])).tolist() == [[0, 0, 1], [1, 0, 0]]


def test_continuous_actions_reach_the_environment_within_its_bounds() -> None:
    environment = open_environment("Pendulum-v1", 2)
    given: list[np.ndarray] = []
    inner = environment.step
    environment.step = lambda action: (given.append(action), inner(action))[1]  # type: ignore[method-assign]
    policy = ControlPolicy(ControlConfig(3, reals=1, log_std=3.0), 0)
    made = Collector(environment, policy, 0, 0.9)
    made.restart(0)
    got = made.collect(1, 50)
    assert max(float(np.abs(a).max()) for a in given) == 2.0
    assert float(got.action.abs().max()) > 2.0, "the policy is trained on what it drew"
