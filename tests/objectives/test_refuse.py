"""Products of parts that mean nothing are refused when they are made, with the reason and the remedy."""

from __future__ import annotations

from dataclasses import replace

import pytest

from lineal.errors import UsageError
from lineal.objectives.advantage import GAE, FullReturn, GroupMean, GroupNormalised, RewardToGo
from lineal.objectives.algorithm import Adam, Algorithm, Group, NaturalGradient, TrustRegion
from lineal.objectives.baseline import LeaveOneOut
from lineal.objectives.penalty import AdaptiveKL, Entropy, OldKL, ReferenceKL, SqrtKL
from lineal.objectives.policy import ALGORITHMS, VARIANTS
from lineal.objectives.ratio import NoRatio, SequenceRatio, SequenceTokenRatio, TokenRatio
from lineal.objectives.reduction import PerBudget, PerPromptToken, PerSequence, PerToken, PlainSum
from lineal.objectives.surrogate import Clip, ClippedWeight, Linear, LogLikelihood

reinforce, grpo, trpo, ppo, gspo = (ALGORITHMS[name] for name in ("reinforce", "grpo", "trpo", "ppo", "gspo"))
many = Adam(epochs=2)


@pytest.mark.parametrize(
    ("base", "change", "reason", "remedy"),
    [
        (grpo, {"ratio": NoRatio()}, "clips a ratio", "LogLikelihood"),
        (grpo, {"ratio": NoRatio(), "surrogate": ClippedWeight()}, "clips a ratio", "TokenRatio"),
        (grpo, {"ratio": NoRatio(), "surrogate": Linear()}, "takes no ratio", "NoRatio with LogLikelihood"),
        (reinforce, {"ratio": TokenRatio()}, "takes no ratio", "NoRatio with LogLikelihood"),
        (reinforce, {"step": Adam(epochs=2)}, "epochs 2 and minibatches 1", "Use 1 and 1"),
        (reinforce, {"step": Adam(minibatches=4)}, "nothing corrects", "a ratio with Linear or Clip"),
        (trpo, {"surrogate": Clip()}, "both bound the step", "Use Linear"),
        (trpo, {"ratio": NoRatio(), "surrogate": LogLikelihood()}, "line search", "TokenRatio with Linear"),
        (trpo, {"penalty": (AdaptiveKL(),)}, "adaptive KL", "Drop the penalty"),
        (trpo, {"penalty": (OldKL(),)}, "already bounds that KL", "use Adam"),
        (trpo, {"penalty": (SqrtKL(),)}, "already bounds that KL", "use Adam"),
        (trpo, {"step": NaturalGradient(), "surrogate": Clip()}, "both bound the step", "Use Linear"),
        (trpo, {"step": NaturalGradient(), "penalty": (AdaptiveKL(),)}, "adaptive KL", "Drop"),
        (grpo, {"group": Group(1)}, "every advantage 0", "group_size 2"),
        (grpo, {"group": Group(1), "advantage": GroupMean()}, "every advantage 0", "group_size 2"),
        (
            grpo,
            {"group": Group(1), "advantage": FullReturn(LeaveOneOut())},
            "every advantage 0",
            "group_size 2",
        ),
        (
            reinforce,
            {"group": Group(1), "advantage": RewardToGo(LeaveOneOut())},
            "every advantage 0",
            "another",
        ),
        (ppo, {"group": Group(1, keep="mixed")}, "always equals itself", "keep='all'"),
        (gspo, {"reduction": PerToken()}, "more than once", "PerSequence"),
        (gspo, {"reduction": PerPromptToken()}, "more than once", "PerSequence"),
        (gspo, {"reduction": PerBudget(9)}, "more than once", "PerSequence"),
        (gspo, {"reduction": PlainSum(), "ratio": SequenceTokenRatio()}, "more than once", "TokenRatio"),
        (gspo, {"advantage": GAE()}, "an advantage per step", "SequenceTokenRatio"),
        (gspo, {"advantage": RewardToGo()}, "an advantage per step", "per completion"),
        (ppo, {"penalty": (OldKL(), AdaptiveKL())}, "two penalties", "Keep one"),
        (reinforce, {"penalty": (OldKL(),)}, "gradient is 0", "Drop it"),
    ],
)
def test_refused_with_reason_and_remedy(base, change, reason, remedy):
    with pytest.raises(UsageError) as caught:
        replace(base, **change)
    message = str(caught.value)
    assert message.startswith(f"{base.name}: ")
    assert reason in message
    assert remedy in message
    assert "\n" not in message


@pytest.mark.parametrize("kind", [TrustRegion, NaturalGradient])
@pytest.mark.parametrize("change", [{"epochs": 2}, {"minibatches": 4}])
def test_a_trust_region_uses_its_rollout_once(kind, change):
    with pytest.raises(UsageError, match="a second step would leave the region"):
        kind(**change)


@pytest.mark.parametrize(
    "change",
    [
        {"surrogate": Clip(0.1, 0.3, dual=3.0), "step": Adam(epochs=4, minibatches=2)},
        {"penalty": (Entropy(0.01), ReferenceKL(0.1, "k2"), OldKL(0.5, "k3"))},
        {"advantage": GAE(), "reduction": PerToken()},
        {"ratio": SequenceTokenRatio(), "advantage": GAE()},
        {"ratio": SequenceRatio(), "reduction": PerSequence(), "step": many},
        {"surrogate": Linear(), "step": TrustRegion(), "advantage": GroupNormalised()},
        {"surrogate": LogLikelihood(), "ratio": NoRatio(), "step": NaturalGradient()},
        {"surrogate": Linear(), "step": Adam(epochs=4), "penalty": (SqrtKL(),)},
    ],
)
def test_unusual_products_that_do_mean_something_are_welcome(change):
    assert isinstance(replace(grpo, **change), Algorithm)


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: ReferenceKL(estimator="k1"), "mean gradient 0"),
        (lambda: ReferenceKL(estimator="exact", place="reward"), "k1, k2 or k3"),
        (lambda: ReferenceKL(place="reward", ratio_weighted=True), "place='loss'"),
        (lambda: ReferenceKL(place="gradient"), "'loss' or in the 'reward'"),
        (lambda: ReferenceKL(estimator="k9"), "exact, k1, k2, k3"),
        (lambda: OldKL(beta=-1.0), "0 or more"),
        (lambda: AdaptiveKL(target=0.0), "above 0"),
        (lambda: Clip(low=-0.1), "clip_low is -0.1"),
        (lambda: Clip(high=-0.1), "clip_high is -0.1"),
        (lambda: Clip(dual=1.1), "dual clip is 1.1"),
        (lambda: Adam(learning_rate=0.0), "learning_rate is 0.0"),
        (lambda: Adam(epochs=0), "epochs is 0"),
        (lambda: Adam(minibatches=0), "minibatches is 0"),
        (lambda: TrustRegion(max_kl=0.0), "max_kl is 0.0"),
        (lambda: TrustRegion(backtrack=1.0), "must shrink"),
        (lambda: NaturalGradient(cg_iterations=0), "cg_iterations is 0"),
    ],
)
def test_numbers_of_parts_are_checked(make, match):
    with pytest.raises(UsageError, match=match):
        make()


def test_everything_named_is_accepted():
    assert len(ALGORITHMS) == 10
    assert all(isinstance(algorithm, Algorithm) for algorithm in (ALGORITHMS | VARIANTS).values())
