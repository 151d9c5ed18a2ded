"""A policy on pictures: what it computes, where its parameters lie, and that files bring it back."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from lineal.errors import UsageError
from lineal.models.acting import PixelActor, actor_of
from lineal.models.control import ControlConfig, load_tensors, named_tensors
from lineal.models.convolution import NATURE, SMALL, ConvolutionShape, filters_of
from lineal.models.pixels import PixelPolicy, make_policy
from lineal.ops.linear import dense_matrix, kl_fisher_product

SHARED = ControlConfig(
    300,
    (3,),
    hidden=(16,),
    activation="relu",
    image=(3, 10, 10),
    convolutions=((4, 3, 1), (6, 3, 2)),
    shared=True,
)
CASES = {
    "shared": SHARED,
    "separate": replace(SHARED, shared=False, choices=(3, 2)),
    "gaussian": replace(SHARED, shared=False, choices=(), reals=2, log_std=-0.5),
    "full": replace(SHARED, shared=False, choices=(), reals=2, covariance="full", learn_std=False),
    "alone": replace(SHARED, shared=False, critic=False),
}


def made(config: ControlConfig, dtype: torch.dtype = torch.float64, **options: int) -> PixelPolicy:
    policy = make_policy(config, 3, dtype, **options)
    assert isinstance(policy, PixelPolicy)
    with torch.no_grad():
        policy.theta.add_(0.05 * torch.randn(policy.theta.shape, generator=torch.Generator().manual_seed(1)))
    return policy


def pictures(count: int, channels: int = 3) -> torch.Tensor:
    generator = torch.Generator().manual_seed(7)
    return torch.randint(0, 256, (count, channels, 10, 10), dtype=torch.uint8, generator=generator)


def test_the_nature_network_is_the_papers() -> None:
    shape = ConvolutionShape((4, 84, 84), NATURE, (512,), 7)
    reference = nn.Sequential(
        nn.Conv2d(4, 32, 8, 4), nn.ReLU(), nn.Conv2d(32, 64, 4, 2), nn.ReLU(), nn.Conv2d(64, 64, 3, 1), nn.ReLU(),
        nn.Flatten(), nn.Linear(3136, 512), nn.ReLU(), nn.Linear(512, 7),
    )  # fmt: skip
    theta_P = torch.cat([p.detach().flatten() for p in reference.parameters()])
    assert shape.count == len(theta_P) and shape.planes == [(20, 20), (9, 9), (7, 7)]
    image = torch.randint(0, 256, (2, 4, 84, 84), dtype=torch.uint8)
    found = shape(shape.pieces(theta_P), image)
    assert torch.allclose(found, reference(image.float() / 255), atol=1e-6)


def test_an_orthogonal_start() -> None:
    shape = ConvolutionShape((4, 84, 84), NATURE, (512,), 7)
    theta_P = shape.start([(6, 0.01), (1, 1.0)], True, torch.Generator().manual_seed(0))
    pieces = shape.pieces(theta_P)
    for weight, gain in zip(pieces[0:-2:2], [math.sqrt(2)] * 4, strict=True):
        flat = weight.flatten(1)
        assert torch.allclose(flat @ flat.T, gain**2 * torch.eye(len(flat)).double(), atol=1e-10)
    assert all(not bias.any() for bias in pieces[1::2])
    last = pieces[-2]
    assert torch.allclose(last[:6] @ last[:6].T, 1e-4 * torch.eye(6).double(), atol=1e-12)
    assert float(last[6].norm()) == pytest.approx(1.0)
    plain = shape.pieces(shape.start([(7, 1.0)], False, torch.Generator().manual_seed(0)))
    assert float(plain[0].abs().max()) <= 1 / math.sqrt(4 * 64) and plain[1].any()


@pytest.mark.parametrize("config", CASES.values(), ids=CASES)
def test_files_bring_the_same_policy_back_and_acting_is_scoring(config: ControlConfig) -> None:
    policy = made(config, torch.float32)
    tensors = named_tensors(policy)
    twin = make_policy(ControlConfig.from_json({**vars(config), "image": list(config.image)}), seed=9)
    load_tensors(twin, tensors)
    image = pictures(5)
    one, other = policy.outputs(image), twin.outputs(image)
    used = slice(0, 1)
    assert torch.equal(one[0], other[0])
    assert (one.shape[0] == 2) == config.critic and torch.equal(one[1:, :, used], other[1:, :, used])
    assert ("critic.head.weight" in tensors) == config.shared
    actor = actor_of(policy)
    assert isinstance(actor, PixelActor)
    shown = actor.outputs(actor.normalised(image.numpy()))
    assert np.abs(shown - one[0].numpy()).max() < 1e-6
    action = torch.from_numpy(actor.draw(shown, actor.noise(np.random.default_rng(0), 1, 5)[0]))
    scores = policy.read(image).scores(action, entropy=True)
    assert scores.logp_BT.shape == (5, 1) and (scores.value_BT is not None) == config.critic


@pytest.mark.parametrize("config", CASES.values(), ids=CASES)
def test_the_gradient_is_that_of_finite_differences(config: ControlConfig) -> None:
    policy, image = made(config), pictures(4)
    kind = policy.actions
    action = torch.tensor([[1, 0]] * 4) if len(config.choices) == 2 else torch.tensor([2, 0, 1, 1])
    action = torch.randn(4, 2, dtype=torch.float64) if config.reals else action

    def loss() -> torch.Tensor:
        scores = policy.read(image).scores(action, entropy=True)
        total = scores.logp_BT.sum()
        return total if scores.value_BT is None else total + scores.value_BT.square().sum()

    reading = policy.read(image)
    scores = reading.scores(action)
    total = scores.logp_BT.sum() + (0 if scores.value_BT is None else scores.value_BT.square().sum())
    gradient_KP = torch.full_like(policy.theta, 9.0)
    reading.gradient(total, gradient_KP)
    generator = torch.Generator().manual_seed(2)
    for k in range(len(policy.theta)):
        along_P = torch.randn(policy.theta.shape[1], generator=generator, dtype=torch.float64)
        if k == 0 and not config.learn_std:
            along_P[policy.moving :] = 0
        slopes = []
        with torch.no_grad():
            for step in (1e-6, -1e-6):
                policy.theta[k] += step * along_P
                slopes.append(float(loss()))
                policy.theta[k] -= step * along_P
        slope = (slopes[0] - slopes[1]) / 2e-6
        assert float(gradient_KP[k] @ along_P) == pytest.approx(slope, rel=1e-5)
    if kind.spread and not config.learn_std:
        assert not gradient_KP[0, policy.moving :].any()


@pytest.mark.parametrize("name", ["separate", "gaussian", "full"])
def test_the_fisher_product_is_double_backward_however_the_pictures_are_cut(name: str) -> None:
    policy, image = made(CASES[name]), pictures(9)
    kind, weight_N = policy.actions, torch.rand(9, dtype=torch.float64)
    (actor,) = policy.leaves(slice(0, 1))
    spread_E = policy.spread().clone().requires_grad_()
    moving = [*actor, spread_E] if policy.config.learn_std and len(spread_E) else actor
    old_NO, old_E = policy.outputs(image)[0], policy.spread().clone()

    def divergence() -> torch.Tensor:
        return (kind.kl(old_NO, old_E, policy.forward_pieces([actor], image)[0], spread_E) * weight_N).sum()

    wanted = kl_fisher_product([divergence], moving)
    whole = policy.fisher_product([image], [weight_N])
    parts = policy.fisher_product([image[:4], image[4:]], [weight_N[:4], weight_N[4:]])
    v_P = torch.randn(policy.moving, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    for product in (whole, parts):
        assert float((product(v_P) - wanted(v_P)).norm() / wanted(v_P).norm()) < 1e-12
    matrix = dense_matrix(lambda v: whole(v), v_P) if policy.moving < 700 else None
    assert matrix is None or float(torch.linalg.eigvalsh(matrix).min()) > -1e-12


def test_pieces_do_not_change_what_it_says() -> None:
    image = pictures(11)
    whole, cut = made(SHARED).outputs(image), made(SHARED, at_once=3).outputs(image)
    assert torch.allclose(whole, cut, rtol=1e-13)


def test_what_fits_nothing_is_refused() -> None:
    assert filters_of((), (1, 10, 10)) == SMALL and filters_of((), (4, 84, 84)) == NATURE
    assert filters_of(("8x3/1",), (1, 10, 10)) == ((8, 3, 1),)
    for words in (("8x3",), ("8x3/0",), ("big",)):
        with pytest.raises(UsageError, match="FILTERSxSIDE/STRIDE"):
            filters_of(words, (1, 10, 10))
    with pytest.raises(UsageError, match="nothing is left"):
        ConvolutionShape((1, 10, 10), NATURE, (8,), 2)
    with pytest.raises(UsageError, match="divided by 255"):
        replace(SHARED, normalise_observations=True)
