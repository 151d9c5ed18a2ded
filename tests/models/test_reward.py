from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from lineal.errors import ModelError
from lineal.models.reward import RewardConfig, RewardEnsemble, step_features


def ensemble(**options) -> RewardEnsemble:
    torch.manual_seed(0)
    made = RewardEnsemble(RewardConfig(5, (16, 8), **options), seed=3)
    made.standardise_on(torch.randn(100, 5) * 3 + 1)
    return made


def test_each_member_is_an_ordinary_network():
    made, x = ensemble(), torch.randn(7, 5)
    reward_MN = made(x)
    z = (x - made.input_mean_F) / made.input_std_F
    for m in range(3):
        y = z
        for i, (weight, bias) in enumerate(zip(made.weights, made.biases, strict=True)):
            y = y @ weight[m] + bias[m]
            if i < 2:
                y = F.leaky_relu(y, 0.01)
        assert torch.allclose(reward_MN[m], y[:, 0], atol=1e-5)
    assert not torch.allclose(reward_MN[0], reward_MN[1]), "members start apart"


def test_members_are_normalised_before_they_are_averaged():
    """A member whose scale is a thousand times the others' must not decide alone."""
    made, x = ensemble(), torch.randn(500, 5)
    with torch.no_grad():
        made.weights[-1][0] *= 1000
    made.normalise_on(x)
    reward_MN = (made(x) - made.mean_M[:, None]) / made.std_M[:, None]
    assert torch.allclose(reward_MN.mean(1), torch.zeros(3), atol=1e-4)
    assert torch.allclose(reward_MN.std(1, correction=0), torch.ones(3), atol=1e-4)
    assert torch.allclose(made.reward(x), reward_MN.mean(0))


def test_numpy_says_the_same_as_torch():
    made, x = ensemble(members=4), torch.randn(64, 5) * 3
    made.normalise_on(x)
    assert np.abs(made.fast()(x.numpy()) - made.reward(x).numpy()).max() < 1e-5
    single = RewardEnsemble(RewardConfig(5, (16,), members=1))
    assert np.abs(single.fast()(x.numpy()) - single.reward(x).numpy()).max() < 1e-5


def test_constant_inputs_and_constant_rewards_keep_their_scale():
    made = ensemble()
    made.standardise_on(torch.ones(10, 5))
    assert (made.input_std_F == 1).all() and (made.input_mean_F == 1).all()
    made.normalise_on(torch.ones(10, 5))
    assert (made.std_M == 1).all()
    assert torch.allclose(made.reward(torch.ones(2, 5)), torch.zeros(2), atol=1e-6)


def test_it_comes_back_from_its_folder(tmp_path):
    made, x = ensemble(), torch.randn(9, 5)
    made.normalise_on(x)
    made.save(tmp_path)
    again = RewardEnsemble.load(tmp_path)
    assert (again.reward(x) == made.reward(x)).all() and again.config == made.config
    (tmp_path / "model.safetensors").write_bytes(b"x")
    with pytest.raises(ModelError, match="no reward ensemble"):
        RewardEnsemble.load(tmp_path)


def test_dropout_only_while_fitting():
    made, x = ensemble(dropout=0.5).train(), torch.randn(9, 5)
    assert not torch.equal(made(x), made(x))
    made.eval()
    assert torch.equal(made(x), made(x))


def test_discrete_actions_become_one_hot():
    seen = step_features(np.zeros((2, 2)), np.array([0, 2]), (3,))
    assert seen.tolist() == [[0, 0, 1, 0, 0], [0, 0, 0, 0, 1]]
    seen = step_features(np.zeros((1, 1)), np.array([[1, 0]]), (2, 3))
    assert seen.tolist() == [[0, 0, 1, 1, 0, 0]]
    assert step_features(np.zeros((1, 1)), np.array([[0.5, -2]]), ()).tolist() == [[0, 0.5, -2]]
    assert step_features(np.zeros((2, 2, 2)), np.array([[1.0], [2.0]]), ()).shape == (2, 5)
