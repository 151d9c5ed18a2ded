"""The named algorithms are what their papers say, part by part; and the value behaves like one."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace

import pytest
import torch

from lineal.errors import UsageError
from lineal.objectives.advantage import GAE, FullReturn, GroupMean, GroupNormalised, RewardToGo
from lineal.objectives.algorithm import Adam, Algorithm, Critic, Group, Needs, TrustRegion, needs
from lineal.objectives.baseline import LeaveOneOut, RunningMean
from lineal.objectives.penalty import AdaptiveKL, Entropy, OldKL, ReferenceKL, SqrtKL
from lineal.objectives.policy import ALGORITHMS, VARIANTS, named
from lineal.objectives.ratio import NoRatio, SequenceRatio, TokenRatio
from lineal.objectives.reduction import PerBudget, PerPromptToken, PerSequence, PerToken, PlainSum
from lineal.objectives.surrogate import Clip, ClippedWeight, Linear, LogLikelihood, Surrogate

EVERYTHING = ALGORITHMS | VARIANTS


@pytest.mark.parametrize(
    ("name", "advantage", "ratio", "surrogate", "reduction"),
    [
        ("reinforce", RewardToGo(RunningMean()), NoRatio(), LogLikelihood(), PlainSum()),
        ("rloo", FullReturn(LeaveOneOut()), NoRatio(), LogLikelihood(), PlainSum()),
        ("trpo", GAE(), TokenRatio(), Linear(), PerToken()),
        ("ppo", GAE(), TokenRatio(), Clip(0.2, 0.2), PerToken()),
        ("ppo-kl", GAE(), TokenRatio(), Linear(), PerToken()),
        ("grpo", GroupNormalised(ddof=1, eps=1e-4), TokenRatio(), Clip(0.2, 0.2), PerSequence()),
        ("dapo", GroupNormalised(ddof=1, eps=1e-4), TokenRatio(), Clip(0.2, 0.28), PerPromptToken()),
        ("dr-grpo", GroupMean(), TokenRatio(), Clip(0.2, 0.2), PerBudget()),
        ("gspo", GroupNormalised(ddof=1, eps=1e-4), SequenceRatio(), Clip(3e-4, 4e-4), PerSequence()),
        ("cispo", GroupNormalised(ddof=1, eps=1e-4), TokenRatio(), ClippedWeight(1.0, 4.0), PerPromptToken()),
    ],
)
def test_each_equals_its_paper(name, advantage, ratio, surrogate, reduction):
    algorithm = ALGORITHMS[name]
    assert algorithm.name == name
    assert algorithm.advantage == advantage
    assert algorithm.ratio == ratio
    assert algorithm.surrogate == surrogate
    assert algorithm.reduction == reduction
    assert algorithm.penalty == ((AdaptiveKL(target=0.01),) if name == "ppo-kl" else ())
    assert algorithm.group.keep == ("mixed" if name == "dapo" else "all")
    assert isinstance(algorithm.step, TrustRegion if name == "trpo" else Adam)


def test_a_paper_is_one_replace_away_from_another():
    grpo, dapo = ALGORITHMS["grpo"], ALGORITHMS["dapo"]
    changed = {
        slot
        for slot in ("group", "advantage", "ratio", "surrogate", "reduction", "penalty", "step")
        if getattr(grpo, slot) != getattr(dapo, slot)
    }
    assert changed == {"group", "surrogate", "reduction", "step"}


@pytest.mark.parametrize("algorithm", EVERYTHING.values(), ids=list(EVERYTHING))
def test_json_round_trip(algorithm):
    again = Algorithm.from_json(json.dumps(algorithm.to_json()))
    assert again == algorithm
    assert again.name == algorithm.name
    assert str(again) == str(algorithm)
    assert hash(again) == hash(algorithm)


def test_json_keeps_every_number():
    odd = replace(
        ALGORITHMS["ppo"],
        advantage=GAE(discount=0.1 + 0.2, whiten="off", critic=Critic(kind="separate", clip=0.3)),
        penalty=(Entropy(1e-3), ReferenceKL(0.1, "k2"), OldKL(0.2, "k1")),
        step=Adam(betas=(0.8, 0.95)),
    )
    assert Algorithm.from_json(odd.to_json()) == odd
    region = replace(ALGORITHMS["trpo"], step=TrustRegion(parameters=("blocks.2", "head")))
    assert Algorithm.from_json(region.to_json()) == region


def test_names_do_not_make_algorithms_different_but_numbers_do():
    grpo = ALGORITHMS["grpo"]
    assert replace(grpo, name="mine") == grpo
    assert replace(grpo, surrogate=Clip(0.2, 0.21)) != grpo
    assert len({grpo, replace(grpo, name="mine")}) == 1


@pytest.mark.parametrize("record", ["[]", '"grpo"', {"group": {"part": "Nothing"}}, {}, {"slot": 1}])
def test_json_that_is_no_algorithm_is_refused(record):
    with pytest.raises(UsageError):
        Algorithm.from_json(record)


@dataclass(frozen=True)
class Squashed(Surrogate):
    """A newcomer's own surrogate: a ratio that cannot exceed its scale."""

    scale: float = 2.0

    def __call__(self, log_ratio_BT, advantage_BT):
        return self.scale * torch.tanh(log_ratio_BT.exp() / self.scale) * advantage_BT

    def formula(self, ratio, advantage):
        return f"{self.scale:g} tanh({ratio}/{self.scale:g}) {advantage}"


def test_a_newcomer_adds_a_part_in_under_ten_lines():
    mine = replace(ALGORITHMS["grpo"], name="mine", surrogate=Squashed(3.0), step=Adam(minibatches=4))
    assert "3 tanh(w/3) Aᵢ" in str(mine)
    assert Algorithm.from_json(mine.to_json(), parts={"Squashed": Squashed}) == mine
    with pytest.raises(UsageError, match=r"parts=.*Squashed"):
        Algorithm.from_json(mine.to_json())


@pytest.mark.parametrize(
    ("algorithm", "wanted"),
    [
        (ALGORITHMS["reinforce"], Needs()),
        (ALGORITHMS["rloo"], Needs(one_episode=True)),
        (ALGORITHMS["grpo"], Needs(one_episode=True)),
        (ALGORITHMS["dapo"], Needs(old_logp=True, one_episode=True)),
        (ALGORITHMS["gspo"], Needs(old_logp=True, one_episode=True)),
        (ALGORITHMS["ppo"], Needs(old_logp=True, critic=Critic())),
        (ALGORITHMS["ppo-kl"], Needs(old_logp=True, kl=True, measured_kl=True, critic=Critic())),
        (ALGORITHMS["trpo"], Needs(old_logp=True, kl=True, critic=Critic())),
        (VARIANTS["grpo-reference-kl"], Needs(reference=True, one_episode=True)),
        (
            replace(ALGORITHMS["rloo"], penalty=(ReferenceKL(0.1, "k1", place="reward"),)),
            Needs(old_logp=True, reference=True, one_episode=True),
        ),
        (
            replace(ALGORITHMS["grpo"], penalty=(ReferenceKL(0.1, "exact"), Entropy())),
            Needs(reference_kl=True, entropy=True, one_episode=True),
        ),
        (
            replace(ALGORITHMS["ppo-kl"], penalty=(SqrtKL(),)),
            Needs(old_logp=True, kl=True, mean_kl=True, critic=Critic()),
        ),
        (
            replace(ALGORITHMS["ppo-kl"], penalty=(AdaptiveKL(estimator="k3"),)),
            Needs(old_logp=True, measured_kl=True, critic=Critic()),
        ),
    ],
)
def test_needs_lists_what_a_loop_must_supply(algorithm, wanted):
    assert needs(algorithm) == wanted


def test_names_are_found_and_a_mistyped_one_gets_its_neighbour():
    assert named("dr_grpo") is ALGORITHMS["dr-grpo"]
    assert named("GSPO-token") is VARIANTS["gspo-token"]
    with pytest.raises(UsageError, match="Did you mean grpo"):
        named("grop")
    with pytest.raises(UsageError, match="There are: reinforce"):
        named("zzz")


def test_groups_of_the_named_ones():
    assert {name: a.group.size for name, a in ALGORITHMS.items() if a.group.size == 1} == dict.fromkeys(
        ("reinforce", "trpo", "ppo", "ppo-kl"), 1
    )
    assert ALGORITHMS["dapo"].group == Group(8, keep="mixed", refill=8)
