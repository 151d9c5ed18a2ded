"""The named algorithms as values: the difference between two papers is the difference between two lines.

Learning rates are those used for pretrained language models; a small fresh model wants about 1e-3.
"""

from __future__ import annotations

import difflib
from dataclasses import replace

from lineal.errors import UsageError
from lineal.objectives.advantage import GAE, FullReturn, GroupMean, GroupNormalised, RewardToGo
from lineal.objectives.baseline import LeaveOneOut, RunningMean
from lineal.objectives.definition import Algorithm
from lineal.objectives.group import Group
from lineal.objectives.penalty import AdaptiveKL, ReferenceKL
from lineal.objectives.ratio import NoRatio, SequenceRatio, SequenceTokenRatio, TokenRatio
from lineal.objectives.reduction import PerBudget, PerPromptToken, PerSequence, PerToken, PlainSum
from lineal.objectives.step import Adam, TrustRegion
from lineal.objectives.surrogate import Clip, ClippedWeight, Linear, LogLikelihood

# fmt: off
reinforce = Algorithm(Group(1), RewardToGo(RunningMean()), NoRatio(), LogLikelihood(), PlainSum(), (), Adam(), "reinforce")
rloo = replace(reinforce, name="rloo", group=Group(4), advantage=FullReturn(LeaveOneOut()))
trpo = Algorithm(Group(1), GAE(), TokenRatio(), Linear(), PerToken(), (), TrustRegion(), "trpo")
ppo = replace(trpo, name="ppo", surrogate=Clip(0.2, 0.2), step=Adam(epochs=4, minibatches=4))
ppo_kl = replace(ppo, name="ppo-kl", surrogate=Linear(), penalty=(AdaptiveKL(target=0.01),))
grpo = Algorithm(Group(8), GroupNormalised(), TokenRatio(), Clip(0.2, 0.2), PerSequence(), (), Adam(), "grpo")
dapo = replace(grpo, name="dapo", group=Group(8, keep="mixed"), surrogate=Clip(0.2, 0.28), reduction=PerPromptToken(),
               step=Adam(minibatches=16))
dr_grpo = replace(grpo, name="dr-grpo", advantage=GroupMean(), reduction=PerBudget())
gspo = replace(grpo, name="gspo", ratio=SequenceRatio(), surrogate=Clip(3e-4, 4e-4), step=Adam(minibatches=4))
cispo = replace(grpo, name="cispo", surrogate=ClippedWeight(1.0, 4.0), reduction=PerPromptToken(), step=Adam(minibatches=16))

ALGORITHMS: dict[str, Algorithm] = {
    algorithm.name: algorithm for algorithm in (reinforce, trpo, ppo, ppo_kl, grpo, dapo, dr_grpo, gspo, rloo, cispo)
}
"""The ten algorithms by name."""

VARIANTS: dict[str, Algorithm] = {
    algorithm.name: algorithm for algorithm in (
        replace(grpo, name="grpo-reference-kl", penalty=(ReferenceKL(0.04, "k3"),)),
        replace(dapo, name="dapo-token-mean", reduction=PerToken()),
        replace(dr_grpo, name="dr-grpo-formula", reduction=PerBudget(1)),
        replace(gspo, name="gspo-token", ratio=SequenceTokenRatio()),
        replace(ppo, name="ppo-sum", reduction=PlainSum()),
    )
}
"""Named readings of a paper that differ from its default here: its formula with a switch on, or its authors' code."""
# fmt: on


def named(name: str) -> Algorithm:
    """The algorithm or variant of that name ("_" and "-" are the same); an unknown one gets its nearest neighbour."""
    everything = ALGORITHMS | VARIANTS
    wanted = name.strip().lower().replace("_", "-")
    if wanted in everything:
        return everything[wanted]
    near = difflib.get_close_matches(wanted, everything, n=1)
    hint = f" Did you mean {near[0]}?" if near else ""
    raise UsageError(f"no algorithm is called {name!r}.{hint} There are: {', '.join(everything)}.")
