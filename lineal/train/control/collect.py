"""A rollout from an environment: some steps of every copy, or one whole episode of each.

All that a step needs is done in numpy, for one observation of each copy at a time; what needs the critic or
log-probabilities is done afterwards in torch, for all steps at once.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lineal.environments.control.protocol import VectorEnvironment
from lineal.errors import EnvironmentFailure
from lineal.models.acting import actor_of
from lineal.models.control import FlatPolicy, Old
from lineal.models.normaliser import CLIP, fill_returns
from lineal.train.control.seen import Features, Seen, action_bounds
from lineal.types import Rollout


@dataclass(frozen=True)
class Experience:
    """A rollout, what the policy read at each of its steps, and what is logged of it.

    input_NF: normalised observations of all B x T steps, row after row. action: the actions of the same steps, flat.
    old: the policy's outputs there. returns, lengths: of the episodes that ended, as the environment paid them.
    env_steps: those that count.
    """

    rollout: Rollout
    input_NF: Tensor
    action: Tensor
    old: Old
    returns: list[float]
    lengths: list[int]
    env_steps: int


class Collector:
    """Steps an environment with a policy and keeps what must survive between rollouts.

    discount: of the sums that rewards are normalised by. clip_rewards: cut each to -1..1 for the learner.
    """

    def __init__(
        self,
        environment: VectorEnvironment,
        policy: FlatPolicy,
        seed: int,
        discount: float,
        *,
        clip_rewards: bool = False,
    ) -> None:
        self.environment, self.policy, self.seed, self.discount = environment, policy, seed, discount
        self.clip_rewards = clip_rewards
        self.actor = actor_of(policy)
        self.features = Features(environment, policy)
        self._bounds = action_bounds(environment)
        self._feature_BF = np.zeros((0, 0))
        self._return_B = np.zeros(environment.count)
        self._length_B = np.zeros(environment.count, np.int64)
        self._carried_B = np.zeros(environment.count)

    def restart(self, step: int) -> None:
        """Begin new episodes, seeded by the run's seed and the step."""
        self._feature_BF = self.features(
            self.environment.reset((self.seed * 1_000_003 + step * 7919) % 2**31)
        )
        for array in (self._return_B, self._length_B, self._carried_B):
            array[:] = 0

    def state(self, step: int) -> dict[str, Any]:
        """What a checkpoint holds; an environment whose state cannot be taken begins new episodes here, always.

        So a run that goes on from the checkpoint meets the same episodes as one that was never interrupted.
        """
        inner = self.environment.get_state()
        if inner is None:
            self.restart(step)
        carried = {
            "return": self._return_B.tolist(),
            "length": self._length_B.tolist(),
            "carried": self._carried_B.tolist(),
        }
        return {"environment": inner, "step": step, **carried}

    def resume(self, state: dict[str, Any]) -> None:
        """Go on from what `state` gave."""
        if state["environment"] is None:
            self.restart(state["step"])
            return
        self._feature_BF = self.features(self.environment.set_state(state["environment"]))
        self._return_B = np.array(state["return"], np.float64)
        self._length_B = np.array(state["length"], np.int64)
        self._carried_B = np.array(state["carried"], np.float64)

    def collect(self, step: int, steps: int, whole: bool = False) -> Experience:
        """`steps` steps of each copy; or, `whole`, one episode of each from its beginning, however long.

        The randomness is that of (seed, step) alone. Raises EnvironmentFailure for what no environment should do.
        """
        random = np.random.Generator(np.random.Philox(key=[self.seed % 2**63, step]))
        self.actor.refresh()
        if whole:
            self.restart(step)
        seen = self._take(random, steps, whole)
        self._check(seen)
        returns, lengths = self._episodes(seen, whole)
        experience = self._experience(seen, whole, returns, lengths)
        self._learn_scales(seen, experience.rollout.mask_BT.numpy())
        return experience

    def _take(self, random: np.random.Generator, steps: int, whole: bool) -> Seen:
        """Step until there are enough; nothing is worked out here that can be worked out afterwards."""
        actor, count = self.actor, self.environment.count
        seen = Seen.room(count, steps, actor, self.features.shape)
        normalises = self.policy.observation is not None
        waiting_B = np.ones(count, bool)
        noise = Noise(self, random, steps)
        while waiting_B.any() if whole else seen.length < steps:
            if seen.length == seen.reward_BT.shape[1]:
                seen = seen.doubled()
            t = seen.length
            if normalises:
                seen.feature_BTF[:, t] = self._feature_BF
            seen.input_BTF[:, t] = input_BF = actor.normalised(self._feature_BF)
            seen.output_BTO[:, t] = output_BO = actor.outputs(input_BF)
            seen.action[:, t] = action = actor.draw(output_BO, noise.at(t))
            got = self.environment.step(action if self._bounds is None else action.clip(*self._bounds))
            seen.note(got)
            self._feature_BF = self.features(got.observation_BF)
            if got.truncated_B.any():
                for b in (got.truncated_B & ~got.terminated_B).nonzero()[0].tolist():
                    seen.ends.append((b, t, self.features(got.final_observation_BF[b : b + 1])[0]))
            if got.counted_B is not None:
                noise.behind_B += ~got.counted_B
            if whole:
                waiting_B &= ~seen.ended_BT[:, t]
            seen.length += 1
        return seen.cut()

    def _episodes(self, seen: Seen, whole: bool) -> tuple[list[float], list[int]]:
        """Returns and lengths of the episodes that ended, in the order of their ends; of `whole`, the first of each."""
        ended_BT = seen.over_BT
        begun_B = np.zeros(len(ended_BT), np.int64)
        found: list[tuple[float, int]] = []
        first_B = np.ones(len(ended_BT), bool)
        for t, b in np.argwhere(ended_BT.T).tolist():
            if first_B[b] or not whole:
                span = slice(begun_B[b], t + 1)
                paid = float(self._return_B[b] + seen.reward_BT[b, span].sum())
                found.append((paid, int(self._length_B[b] + seen.counted_BT[b, span].sum())))
            first_B[b], begun_B[b] = False, t + 1
            self._return_B[b], self._length_B[b] = 0.0, 0
        for b, start in enumerate(begun_B.tolist()):
            self._return_B[b] += seen.reward_BT[b, start:].sum()
            self._length_B[b] += seen.counted_BT[b, start:].sum()
        return [paid for paid, _ in found], [length for _, length in found]

    def _check(self, seen: Seen) -> None:
        shown = seen.input_BTF if self.policy.observation is None else seen.feature_BTF
        for what, array in (
            ("reward", seen.reward_BT),
            ("observation", shown),
            ("observation", self._feature_BF),
        ):
            if array.dtype.kind == "f" and not np.isfinite(array).all():
                place = np.argwhere(~np.isfinite(array))[0]
                value = array[tuple(place)]
                raise EnvironmentFailure(
                    f"{self.environment.name} gave {what} {value} in copy {place[0]}: the policy would become nan too. "
                    "Fix the environment; the last checkpoint is untouched."
                )

    def _paid(self, seen: Seen) -> np.ndarray:
        """The rewards as the learner gets them, before they are normalised."""
        return seen.reward_BT.clip(-1, 1) if self.clip_rewards else seen.reward_BT

    def _experience(self, seen: Seen, whole: bool, returns: list[float], lengths: list[int]) -> Experience:
        count, steps = seen.reward_BT.shape
        scale = 1.0 if self.policy.reward is None else float(self.policy.reward.scale()[0])
        paid_BT = self._paid(seen)
        paid_BT = paid_BT if scale == 1.0 else np.clip(paid_BT * scale, -CLIP, CLIP)
        after_BT = np.zeros((count, steps), np.int64)
        after_BT[:, 1:] = seen.ended_BT.cumsum(1)[:, :-1]
        mask_BT = (after_BT == 0) & seen.counted_BT if whole else seen.counted_BT
        input_NF = torch.from_numpy(np.ascontiguousarray(seen.input_BTF)).flatten(0, 1)
        action = torch.from_numpy(np.ascontiguousarray(seen.action))
        sampled_NO = torch.from_numpy(np.ascontiguousarray(seen.output_BTO)).flatten(0, 1)
        behaviour_N = self.policy.actions.logp(sampled_NO, self.policy.spread(), action.flatten(0, 1))
        rollout = Rollout(
            action_BT=action,
            mask_BT=torch.from_numpy(np.ascontiguousarray(mask_BT)),
            reward_BT=torch.from_numpy(np.where(mask_BT, paid_BT, 0.0)).to(self.policy.theta.dtype),
            behaviour_logp_BT=behaviour_N.view(count, steps),
            group_B=torch.arange(count),
            terminated_BT=torch.from_numpy(seen.terminated_BT | seen.lost_BT),
            truncated_BT=torch.from_numpy(np.ascontiguousarray(seen.truncated_BT)),
            segment_BT=torch.zeros(count, steps, dtype=torch.int64) if whole else torch.from_numpy(after_BT),
        )
        rollout, old = self._scored(rollout, input_NF, seen)
        taken = int(seen.counted_BT.sum())
        return Experience(rollout, input_NF, action.flatten(0, 1), old, returns, lengths, taken)

    def _scored(self, rollout: Rollout, input_NF: Tensor, seen: Seen) -> tuple[Rollout, Old]:
        """The trainer's own log-probabilities and values, of every step and of what came after the last one.

        The value after a step is that of the next observation; where the episode was cut off there it is that of the
        observation before the reset, and where it terminated there is none (GAE puts 0).
        """
        count, steps = seen.reward_BT.shape
        after = [self._feature_BF, *(feature_F[None] for _, _, feature_F in seen.ends)]
        after_NF = torch.from_numpy(self.actor.normalised(np.concatenate(after)))
        output_KNO = self.policy.outputs(torch.cat([input_NF, after_NF]))
        own_NO = output_KNO[0, : count * steps]
        old = Old(own_NO, self.policy.spread().clone())
        logp_N = self.policy.actions.logp(own_NO, old.spread_E, rollout.action_BT.flatten(0, 1))
        rollout = replace(rollout, old_logp_BT=logp_N.view(count, steps))
        if not self.policy.config.critic:
            return rollout, old
        value_BT = output_KNO[1, : count * steps, 0].view(count, steps)
        next_BT = torch.cat([value_BT[:, 1:], output_KNO[1, count * steps : count * (steps + 1), :1]], 1)
        for index, (b, t, _) in enumerate(seen.ends):
            next_BT[b, t] = output_KNO[1, count * (steps + 1) + index, 0]
        for b, t in np.argwhere(~seen.counted_BT[:, 1:] & ~seen.over_BT[:, :-1]).tolist():
            # The episode goes on beyond the step that began it anew: so does its value.
            next_BT[b, t] = next_BT[b, t + 1]
        return replace(rollout, value_BT=value_BT, next_value_BT=next_BT), old

    def _learn_scales(self, seen: Seen, mask_BT: np.ndarray) -> None:
        """Let the normalisers take in what was seen, now that nothing of this rollout reads them any more."""
        if self.policy.observation is not None:
            self.policy.observation.update(seen.feature_BTF[mask_BT])
        if self.policy.reward is not None:
            paid_BT = np.where(seen.counted_BT, self._paid(seen), 0.0)
            running_BT = fill_returns(self._carried_B, paid_BT, seen.ended_BT, self.discount)
            self.policy.reward.update(running_BT[mask_BT][:, None])


class Noise:
    """The randomness of a rollout's steps: the k-th counted step of a copy has the k-th draw, whatever else it did.

    behind_B: steps of each copy that did not count.
    """

    def __init__(self, collector: Collector, random: np.random.Generator, steps: int) -> None:
        self._actor, self._count = collector.actor, collector.environment.count
        self._random, self._steps = random, steps
        self._blocks: list[np.ndarray] = []
        self.behind_B = np.zeros(self._count, np.int64)

    def at(self, t: int) -> np.ndarray:
        """Every copy's share at step t."""
        steps = self._steps
        if t % steps == 0:
            self._blocks.append(self._actor.noise(self._random, steps, self._count))
        if not self.behind_B.any():
            return self._blocks[-1][t % steps]
        place = enumerate((t - self.behind_B).tolist())
        return np.stack([self._blocks[k // steps][k % steps, b] for b, k in place])
