"""The reward of pictures: the paper's network, and members that know nothing of what they hold out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from lineal.errors import ModelError
from lineal.models.pixel_reward import PixelReward, PixelRewardConfig

SMALL = PixelRewardConfig((1, 10, 10))


def pictures(count: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(
        0, 256, (count, 100), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed)
    )


def test_the_network_is_the_papers() -> None:
    shape = PixelRewardConfig((4, 84, 84)).shape
    assert [weight[:1] + weight[2:] for weight in shape.weights[:4]] == [
        (16, 7, 7), (16, 5, 5), (16, 3, 3), (16, 3, 3),
    ]  # fmt: skip
    assert shape.planes == [(26, 26), (11, 11), (9, 9), (7, 7)] and shape.weights[4:] == [(64, 784), (1, 64)]
    config = PixelRewardConfig((4, 84, 84))
    assert (config.dropout, config.slope, config.members) == (0.5, 0.01, 3)


def test_batch_normalisation_is_torchs_where_all_count_alike() -> None:
    config = PixelRewardConfig((1, 10, 10), members=1, dropout=0.0, noise=0.0)
    ensemble, x = PixelReward(config).train(), torch.randn(6, 16, 8, 8)
    theirs = torch.nn.BatchNorm2d(16, affine=False).train()
    assert torch.allclose(ensemble._normalised(x, 0, 0, None), theirs(x), atol=1e-5)
    assert torch.allclose(
        ensemble.get_buffer("batch_mean_0")[0], theirs.get_buffer("running_mean"), atol=1e-6
    )
    twice = torch.cat([x, x[:2]])
    weight_N = torch.tensor([2.0, 2, 1, 1, 1, 1])
    drawn = ensemble._normalised(x, 0, 0, weight_N)
    assert torch.allclose(drawn, theirs(twice)[:6], atol=1e-5), "drawn twice is there twice"


def test_what_a_member_holds_out_has_no_part_in_it() -> None:
    ensemble, first, other = PixelReward(SMALL).train(), pictures(8), pictures(8, 1)
    weight_MN = torch.ones(3, 8)
    weight_MN[0, 5:] = 0
    changed = torch.cat([first[:5], other[5:]])
    found = []
    for shown in (first, changed):
        ensemble.reseed(3)
        ensemble.zero_grad()
        reward_MN = ensemble(shown, weight_MN)
        (reward_MN * weight_MN).sum().backward()
        found.append((reward_MN.detach(), [weight.grad.clone() for weight in ensemble.weights]))
    (one_MN, one), (other_MN, other_) = found
    assert torch.equal(one_MN[0, :5], other_MN[0, :5]) and not torch.equal(one_MN[1, :5], other_MN[1, :5])
    assert all(torch.equal(a[0], b[0]) for a, b in zip(one, other_, strict=True))
    assert not torch.equal(one[0][1], other_[0][1])


def test_dropout_and_noise_come_from_the_seed_and_end_with_fitting() -> None:
    ensemble, shown = PixelReward(SMALL).train(), pictures(8)
    ensemble.reseed(5)
    one = ensemble(shown).detach()
    ensemble.reseed(5)
    assert torch.equal(one, ensemble(shown).detach())
    assert not torch.equal(one, ensemble(shown).detach())
    ensemble.eval()
    assert torch.equal(ensemble(shown), ensemble(shown))
    assert torch.allclose(ensemble(shown)[:, :1], ensemble(shown[:1]), atol=1e-6), "one by one as all at once"


def test_files_and_numpy_say_the_same(tmp_path: Path) -> None:
    ensemble, shown = PixelReward(SMALL, seed=2).train(), pictures(20)
    for _ in range(3):
        ensemble(shown)
    ensemble.eval().normalise_on(shown)
    fast = ensemble.fast()
    reward_N = ensemble.reward(shown).numpy()
    assert np.abs(fast(shown.numpy()) - reward_N).max() < 1e-6
    assert float(reward_N.mean()) == pytest.approx(0.0, abs=1e-5)
    ensemble.save(tmp_path)
    assert torch.equal(PixelReward.load(tmp_path).eval().reward(shown), ensemble.reward(shown))
    with torch.no_grad():
        ensemble.weights[0].mul_(3.0)
    assert np.abs(fast(shown.numpy()) - reward_N).max() < 1e-6, "a fit under way does not move it"
    with pytest.raises(ModelError, match="holds no reward ensemble"):
        PixelReward.load(tmp_path / "nowhere")
