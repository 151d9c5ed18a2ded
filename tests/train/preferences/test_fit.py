from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from lineal.environments.preferences.records import Label, Pair, Segment
from lineal.environments.preferences.teachers import Teacher
from lineal.errors import NonFiniteError
from lineal.models.reward import RewardConfig, RewardEnsemble
from lineal.objectives.preference import preference_losses
from lineal.train.preferences.comparisons import Comparisons, bootstrap, compare
from lineal.train.preferences.diagnostics import pearson
from lineal.train.preferences.fit import (
    BAND,
    FitOptions,
    Fitted,
    fit,
    held_out_probability,
    judge,
    losses,
    overfits,
)

WEIGHT = np.array([1.0, -2.0, 0.5])


def world(
    pairs: int, steps: int = 10, seed: int = 0, mistake: float = 0.0
) -> tuple[Comparisons, list[Segment]]:
    """Comparisons of random segments whose true reward is linear in what the networks see."""
    random = np.random.default_rng(seed)
    segments = []
    for _ in range(2 * pairs):
        seen_TF = random.normal(size=(steps, 3)).astype(np.float32)
        segments.append(Segment(seen_TF[:, :2], seen_TF[:, 2:], seen_TF @ WEIGHT))
    by_id = {segment.id: segment for segment in segments}
    asked = [Pair(a.id, b.id) for a, b in zip(segments[::2], segments[1::2], strict=True)]
    labels = [Teacher(mistake=mistake)(pair, by_id) for pair in asked]
    data = compare(labels, {pair.id: pair for pair in asked}, by_id, features, 3)
    assert data is not None
    return data, segments


def features(segment: Segment) -> np.ndarray:
    return np.concatenate([segment.observation_TF, segment.action_T], 1).astype(np.float32)


def started(data: Comparisons, options: FitOptions, hidden: tuple[int, ...] = (32, 32), **more) -> Fitted:
    ensemble = RewardEnsemble(RewardConfig(3, hidden, **more))
    ensemble.standardise_on(data.steps)
    return Fitted.start(ensemble, options)


def test_a_linear_reward_is_recovered():
    data, segments = world(150)
    options = FitOptions()
    fitted = started(data, options)
    found = fit(fitted, data, options, 40)
    seen = np.concatenate([features(segment) for segment in segments])
    fitted.ensemble.normalise_on(torch.from_numpy(seen))
    assert pearson(fitted.ensemble.reward(torch.from_numpy(seen)).numpy(), seen @ WEIGHT) > 0.9
    assert found.metrics()["reward_model/validation_accuracy"] > 0.8
    assert not overfits(found)


def test_adaptive_l2_keeps_validation_loss_within_the_band():
    """Labels of which a fifth are wrong: without the term the networks learn them by heart, with it they do not."""
    data, _ = world(120, mistake=0.2)
    free = FitOptions(l2=0.0, adapt=1.0)
    loose = fit(started(data, free), data, free, 200)
    options = FitOptions()
    fitted = started(data, options)
    ratios = [fit(fitted, data, options, 5).ratio_M.mean().item() for _ in range(40)]
    late = ratios[20:]
    assert loose.ratio_M.mean() > 1.5 * BAND[1]
    assert BAND[0] - 0.05 <= np.median(late) <= BAND[1], late
    assert max(late) < loose.ratio_M.mean()


def test_a_share_of_1_over_e_is_held_out_and_stays_held_out():
    labels = [Label(f"pair-{i}", 1.0) for i in range(3000)]
    draws = np.array([bootstrap(label, 3) for label in labels])
    assert abs((draws == 0).mean() - math.exp(-1)) < 0.02
    assert abs(draws.mean() - 1) < 0.03 and abs(draws.var() - 1) < 0.08
    assert bootstrap(labels[5], 3) == draws[5].tolist()
    together = (draws == 0).all(1).mean()
    assert abs(together - math.exp(-3)) < 0.015, "members draw independently"


def test_a_held_out_label_teaches_its_member_nothing():
    data, _ = world(20)
    options = FitOptions(batch=20)
    before = started(data, options)
    other = started(data, options)
    flipped_N = data.preference_N.clone()
    held_N = data.weight_MN[1] == 0
    assert held_N.any()
    flipped_N[held_N] = 1 - flipped_N[held_N]
    changed = Comparisons(
        data.feature_STF, data.mask_ST, data.first_N, data.second_N, flipped_N, data.weight_MN
    )
    fit(before, data, FitOptions(batch=20, adapt=1.0), 3)
    fit(other, changed, FitOptions(batch=20, adapt=1.0), 3)
    for one, two in zip(before.ensemble.weights, other.ensemble.weights, strict=True):
        assert torch.equal(one[1], two[1])
        assert not torch.equal(one[0], two[0]), "another member did draw some of them"


def test_the_loss_is_bradley_terry_on_summed_rewards():
    data, _ = world(6)
    ensemble = RewardEnsemble(RewardConfig(3, (8,)))
    index = torch.tensor([4, 1])
    found_MB = losses(ensemble, data, index, 0.1)
    for m in range(3):
        for b, n in enumerate(index.tolist()):
            sums = [ensemble(data.feature_STF[s])[m].sum() for s in (data.first_N[n], data.second_N[n])]
            p = 0.05 + 0.9 * torch.sigmoid(sums[0] - sums[1])
            mu = data.preference_N[n]
            assert found_MB[m, b].item() == pytest.approx(
                -(mu * p.log() + (1 - mu) * (1 - p).log()).item(), rel=1e-4
            )


def test_padding_counts_for_nothing():
    data, _ = world(8)
    assert isinstance(data.feature_STF, torch.Tensor)
    wide = torch.cat([data.feature_STF, torch.full((16, 5, 3), 99.0)], 1)
    mask = torch.cat([data.mask_ST, torch.zeros(16, 5, dtype=torch.bool)], 1)
    padded = Comparisons(wide, mask, data.first_N, data.second_N, data.preference_N, data.weight_MN)
    ensemble = RewardEnsemble(RewardConfig(3, (8,)))
    a, b = (losses(ensemble, d, torch.arange(8), 0.1) for d in (data, padded))
    assert torch.allclose(a, b, atol=1e-5)
    assert torch.equal(padded.steps, data.steps)


def test_answers_without_a_preference_are_left_out():
    segments = {s.id: s for s in world(2)[1]}
    a, b, c, d = segments
    pairs = {p.id: p for p in (Pair(a, b), Pair(c, d))}
    first, second = pairs
    labels = [Label(first, None), Label(second, 0.5), Label(second, 1.0, control=True)]
    data = compare(labels, pairs, segments, features, 2)
    assert data is not None and data.preference_N.tolist() == [0.5] and len(data.feature_STF) == 2
    assert compare(labels[:1], pairs, segments, features, 2) is None


def test_ties_are_symmetric_and_swapping_turns_everything_round():
    gap = torch.linspace(-5, 5, 11, dtype=torch.float64)
    zero, half = torch.zeros_like(gap), torch.full_like(gap, 0.5)
    tie = preference_losses(gap, zero, half, error_rate=0.1)
    assert torch.allclose(tie, tie.flip(0)) and tie.argmin() == 5
    mu = torch.linspace(0, 1, 11, dtype=torch.float64)
    assert torch.allclose(
        preference_losses(gap, zero, mu, error_rate=0.1), preference_losses(zero, gap, 1 - mu, error_rate=0.1)
    )


def test_it_goes_on_from_what_was_saved():
    data, _ = world(40)
    options = FitOptions(batch=16)
    whole = started(data, options)
    fit(whole, data, options, 6, seed=1)
    half = started(data, options)
    fit(half, data, options, 3, seed=1)
    tensors, state = half.tensors()
    saved = {name: x.clone() for name, x in tensors.items()}
    other = started(data, options)
    other.load(saved, state)
    fit(other, data, options, 3, seed=1)
    assert torch.equal(other.l2_M, whole.l2_M)
    for name, value in whole.ensemble.state_dict().items():
        assert torch.equal(other.ensemble.state_dict()[name], value), name


def test_a_loss_that_is_not_finite_leaves_the_weights():
    data, _ = world(8)
    assert isinstance(data.feature_STF, torch.Tensor)
    data.feature_STF[0, 0, 0] = math.nan
    fitted = Fitted.start(RewardEnsemble(RewardConfig(3, (8,))), FitOptions())
    before = {name: x.clone() for name, x in fitted.ensemble.state_dict().items()}
    with pytest.raises(NonFiniteError, match="not finite"):
        fit(fitted, data, FitOptions(), 1)
    assert all(torch.equal(before[name], x) for name, x in fitted.ensemble.state_dict().items())


def test_learning_by_heart_is_noticed():
    data, _ = world(30)
    noise = torch.Generator().manual_seed(0)
    random_N = torch.randint(0, 2, (30,), generator=noise).float()
    nonsense = Comparisons(
        data.feature_STF, data.mask_ST, data.first_N, data.second_N, random_N, data.weight_MN
    )
    options = FitOptions(l2=0.0, adapt=1.0, learning_rate=1e-2)
    fitted = started(nonsense, options)
    assert overfits(fit(fitted, nonsense, options, 150))


def test_held_out_predictions_come_from_members_that_did_not_see_the_label():
    data, _ = world(40)
    ensemble = started(data, FitOptions()).ensemble
    found_N = held_out_probability(ensemble, data, 0.1)
    drawn_by_all = (data.weight_MN > 0).all(0)
    assert torch.equal(found_N.isnan(), drawn_by_all)
    assert ((found_N > 0.05) & (found_N < 0.95))[~drawn_by_all].all()
    assert judge(ensemble, data, 0.1).metrics().keys() >= {"reward_model/ratio"}
