"""Numbers changed by name, as the command line does it; refused where the part is absent."""

from __future__ import annotations

from dataclasses import fields

import pytest

from lineal.errors import UsageError
from lineal.objectives.algorithm import Critic, TrustRegion, override
from lineal.objectives.override import WHERE
from lineal.objectives.penalty import AdaptiveKL, Entropy, ReferenceKL
from lineal.objectives.policy import ALGORITHMS
from lineal.objectives.surrogate import Clip

grpo, ppo, trpo, ppo_kl = (ALGORITHMS[name] for name in ("grpo", "ppo", "trpo", "ppo-kl"))


def test_none_leaves_everything_as_it_is():
    assert override(grpo, **dict.fromkeys(WHERE)) is grpo


def test_numbers_land_in_their_parts():
    changed = override(
        grpo, clip_low=0.1, clip_high=0.3, group_size=4, keep="mixed", epochs=2, minibatches=3, learning_rate=1e-3,
        max_grad_norm=0.0, std_eps=1e-6,
    )  # fmt: skip
    assert changed.surrogate == Clip(0.1, 0.3)
    assert (changed.group.size, changed.group.keep) == (4, "mixed")
    assert (changed.step.epochs, changed.step.minibatches) == (2, 3)
    assert changed.name == "grpo"
    assert grpo.surrogate == Clip(0.2, 0.2)


def test_critic_and_advantage_numbers_go_together():
    changed = override(
        ppo, critic="separate", value_clip=0.2, value_coefficient=1.0, trace_decay=0.9, discount=0.99
    )
    assert changed.advantage.critic_part == Critic(kind="separate", clip=0.2, coefficient=1.0)
    assert (changed.advantage.discount, getattr(changed.advantage, "trace_decay")) == (0.99, 0.9)  # noqa: B009
    assert override(ppo, whiten="minibatch", reward_scaling=True).advantage.scale_reward


def test_trust_region_and_kl_numbers():
    changed = override(trpo, max_kl=0.02, cg_iterations=20, damping=0.01, subset=("blocks.3",), backtrack=0.8)
    assert changed.step == TrustRegion(0.02, 20, 0.01, 0.8, parameters=("blocks.3",))
    assert override(trpo, subset="blocks.3, head").step == TrustRegion(parameters=("blocks.3", "head"))
    assert override(ppo_kl, target_kl=0.05, beta=2.0).penalty == (AdaptiveKL(target=0.05, beta=2.0),)


def test_switches_add_change_and_remove_a_term():
    on = override(grpo, reference_kl=0.04, entropy=0.01)
    assert set(on.penalty) == {ReferenceKL(0.04, "k3"), Entropy(0.01)}
    assert set(override(on, reference_kl=0.1).penalty) == {ReferenceKL(0.1, "k3"), Entropy(0.01)}
    assert override(on, reference_kl=0.0, entropy=0.0) == grpo
    assert override(grpo, entropy=0.0) == grpo


@pytest.mark.parametrize(
    ("algorithm", "numbers", "match"),
    [
        (trpo, {"clip_low": 0.1}, "trpo has no clip. Drop --clip-low"),
        (trpo, {"learning_rate": 1e-3}, "comes from max_kl"),
        (trpo, {"epochs": 4}, "leave the region"),
        (grpo, {"max_kl": 0.1}, "no trust region"),
        (grpo, {"critic": "head"}, "no critic"),
        (grpo, {"value_clip": 0.2}, "Drop --value-clip"),
        (grpo, {"trace_decay": 0.9}, "not GAE"),
        (grpo, {"discount": 0.9}, "whole completions"),
        (grpo, {"whiten": "off"}, "not GAE"),
        (grpo, {"reward_scaling": True}, "not GAE"),
        (grpo, {"target_kl": 0.1}, "no adaptive KL penalty"),
        (grpo, {"budget": 4}, "does not divide by a constant"),
        (grpo, {"group_size": 1}, "every advantage 0"),
        (ALGORITHMS["gspo"], {"dual_clip": 1.0}, "dual clip is 1.0"),
        (ALGORITHMS["reinforce"], {"epochs": 2}, "nothing corrects"),
        (grpo, {"temperature": 2.0}, "no number of an algorithm"),
    ],
)
def test_refused_where_absent_or_meaningless(algorithm, numbers, match):
    with pytest.raises(UsageError, match=match):
        override(algorithm, **numbers)


def test_a_switch_that_is_off_is_no_demand():
    assert override(grpo, reward_scaling=False) is grpo


def test_changes_that_only_work_together_are_made_together():
    """group_size 1 with keep='all' from a mixed group: each alone would be refused."""
    mixed = override(ppo, group_size=4, keep="mixed")
    assert override(mixed, group_size=1, keep="all").group.size == 1


def test_every_name_reaches_a_field_of_some_named_algorithm():
    for name, (slot, field, _) in WHERE.items():
        if slot in ("reference_kl", "entropy", "critic", "old_kl"):
            continue
        parts = [getattr(algorithm, slot) for algorithm in ALGORITHMS.values()]
        assert any(field in {f.name for f in fields(part)} for part in parts), name
