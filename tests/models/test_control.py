"""A control policy: torch and numpy say the same, its normalisers travel with it, and its files come back exactly."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lineal.errors import UsageError
from lineal.models.acting import PerceptronActor
from lineal.models.control import ControlConfig, ControlPolicy, load_tensors, named_tensors
from lineal.models.normaliser import Normaliser, fill_returns

CONFIGS = [
    ControlConfig(4, (2,)),
    ControlConfig(4, (2, 3), activation="relu"),
    ControlConfig(5, reals=3, log_std=-0.5, normalise_observations=True, normalise_rewards=True),
    ControlConfig(5, reals=2, covariance="full", hidden=(7,), critic=False),
]


def made(config: ControlConfig, dtype: torch.dtype = torch.float64) -> ControlPolicy:
    policy = ControlPolicy(config, seed=3, dtype=dtype)
    with torch.no_grad():
        policy.theta.add_(0.1 * torch.randn(policy.theta.shape, generator=torch.Generator().manual_seed(1)))
    if policy.observation is not None:
        policy.observation.update(np.random.default_rng(0).normal(3, 2, (100, config.features)))
    return policy


@pytest.mark.parametrize("config", CONFIGS, ids=str)
@pytest.mark.parametrize(("dtype", "near"), [(torch.float64, 1e-12), (torch.float32, 2e-5)])
def test_numpy_acts_as_torch_says(config: ControlConfig, dtype: torch.dtype, near: float) -> None:
    policy = made(config, dtype)
    actor = PerceptronActor(policy)
    random = np.random.default_rng(2)
    feature_BF = random.normal(0, 3, (40, config.features)).astype(np.float32)
    input_BF = actor.normalised(feature_BF)
    reading = policy.read(torch.from_numpy(input_BF))
    assert np.abs(actor.outputs(input_BF) - reading.output_KNO.detach()[0].numpy()).max() < near
    action = actor.draw(actor.outputs(input_BF), actor.noise(random, 1, 40)[0])
    scores = reading.scores(torch.from_numpy(action), entropy=True)
    assert scores.logp_BT.shape == (40, 1) and bool(torch.isfinite(scores.logp_BT).all())
    assert (scores.value_BT is None) == (not config.critic)
    with torch.no_grad():
        policy.theta.mul_(1.5)
    moved = policy.read(torch.from_numpy(input_BF)).output_KNO.detach()[0].numpy()
    assert np.abs(actor.outputs(input_BF) - moved).max() < 4 * near, "the arrays must be views"


@pytest.mark.parametrize("config", CONFIGS, ids=str)
def test_actions_are_drawn_from_the_distribution_that_scores_them(config: ControlConfig) -> None:
    policy = made(config)
    actor = PerceptronActor(policy)
    rows = 20_000
    input_BF = np.repeat(
        actor.normalised(np.random.default_rng(5).normal(0, 2, (1, config.features))), rows, 0
    )
    action = actor.draw(actor.outputs(input_BF), actor.noise(np.random.default_rng(6), 1, rows)[0])
    scores = policy.read(torch.from_numpy(input_BF)).scores(torch.from_numpy(action), entropy=True)
    assert scores.entropy_BT is not None
    # The mean of -log π over draws from π is the entropy; five standard errors.
    error = float(scores.logp_BT.detach().std()) / rows**0.5
    assert abs(float(-scores.logp_BT.detach().mean()) - float(scores.entropy_BT[0])) < 5 * error
    best = actor.best(actor.outputs(input_BF[:1]))
    best_logp = policy.read(torch.from_numpy(input_BF[:1])).scores(torch.from_numpy(best)).logp_BT
    assert float(best_logp) >= float(scores.logp_BT.max()) - 1e-9


@pytest.mark.parametrize("config", CONFIGS, ids=str)
def test_files_bring_the_same_policy_back(config: ControlConfig) -> None:
    policy = made(config, torch.float32)
    tensors = named_tensors(policy)
    assert ("critic.0.weight" in tensors) == config.critic
    assert tensors["actor.0.weight"].shape == (config.hidden[0], config.features)
    twin = ControlPolicy(ControlConfig.from_json(dict(vars(config))), seed=9)
    assert not torch.equal(twin.theta[0], policy.theta[0])
    load_tensors(twin, tensors)
    again = named_tensors(twin)
    assert all(torch.equal(again[name], x) for name, x in tensors.items())
    for name, buffer in policy.named_buffers():
        assert torch.equal(dict(twin.named_buffers())[name], buffer)
    with pytest.raises(UsageError, match=r"actor.0.weight is absent"):
        load_tensors(twin, {name: x for name, x in tensors.items() if name != "actor.0.weight"})


def test_the_critics_unused_outputs_never_move() -> None:
    policy = made(ControlConfig(4, (3,)))
    reading = policy.read(torch.randn(8, 4, dtype=torch.float64))
    scores = reading.scores(torch.zeros(8, dtype=torch.int64))
    assert scores.value_BT is not None
    gradient_KP = torch.empty_like(policy.theta)
    reading.gradient(scores.logp_BT.sum() + scores.value_BT.sum(), gradient_KP)
    weight_KIO, bias_K1O = policy.shape.layers(gradient_KP)[-1]
    assert (weight_KIO[1, :, 1:] == 0).all() and (bias_K1O[1, :, 1:] == 0).all()
    assert (weight_KIO[1, :, 0] != 0).all() and (weight_KIO[0] != 0).all()


def test_a_fixed_covariance_takes_no_gradient() -> None:
    for learned in (True, False):
        policy = made(ControlConfig(4, reals=2, learn_std=learned))
        assert policy.moving == policy.shape.count - (0 if learned else 2)
        reading = policy.read(torch.randn(8, 4, dtype=torch.float64))
        gradient_KP = torch.full_like(policy.theta, 3.0)
        logp_BT = reading.scores(torch.randn(8, 2, dtype=torch.float64)).logp_BT
        reading.gradient(logp_BT.sum(), gradient_KP)
        assert bool((policy.shape.tail(gradient_KP)[0] != 0).all()) == learned
        assert (policy.shape.tail(gradient_KP)[1] == 0).all()


def test_actions_are_choices_or_real_numbers() -> None:
    for choices, reals in (((), 0), ((2,), 1)):
        with pytest.raises(UsageError, match="either"):
            ControlConfig(3, choices, reals)


def test_the_normaliser_is_the_mean_and_deviation_of_all_it_saw() -> None:
    random = np.random.default_rng(0)
    x_NF = random.normal([1.0, -50.0, 1e6], [2.0, 0.1, 5.0], (1000, 3))
    normaliser = Normaliser(3)
    assert (normaliser.apply_to(np.array([[3.0, 4.0, 20.0]])) == [[3.0, 4.0, 10.0]]).all()
    for part in np.split(x_NF, [1, 400, 401]):
        normaliser.update(part)
    assert np.allclose(normaliser.mean.numpy(), x_NF.mean(0), rtol=1e-12)
    assert np.allclose(normaliser.scale(), 1 / np.sqrt(x_NF.var(0) + 1e-8), rtol=1e-9)
    white = normaliser.apply_to(x_NF)
    assert np.abs(white.mean(0)).max() < 1e-6 and np.abs(white.std(0) - 1).max() < 1e-3
    twin = Normaliser(3)
    twin.load_state_dict(normaliser.state_dict())
    assert (twin.apply_to(x_NF) == white).all()


def test_running_returns_stop_at_ends_and_go_on_between_rollouts() -> None:
    reward_BT = np.array([[1.0, 2.0, 3.0, 4.0]])
    ended_BT = np.array([[False, True, False, False]])
    carried_B = np.array([10.0])
    running_BT = fill_returns(carried_B, reward_BT, ended_BT, 0.5)
    assert running_BT.tolist() == [[6.0, 5.0, 3.0, 5.5]]
    assert carried_B.tolist() == [5.5]
    whole = fill_returns(np.array([10.0]), np.tile(reward_BT, 2), np.tile(ended_BT, 2), 0.5)
    assert (whole[:, 4:] == fill_returns(carried_B, reward_BT, ended_BT, 0.5)).all()
