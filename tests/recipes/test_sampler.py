"""Completions drawn from a bfloat16 copy of the policy: always of the newest weights, and the update knows."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from lineal.recipes.config import PolicyGradientConfig, to_json, with_options
from lineal.recipes.policy_gradient import Loop, open_loop, train_step
from lineal.train.device import Device
from lineal.train.parts import half_copy
from lineal.train.run import Run
from lineal.train.update import frozen_copy


def write_reward(folder: Path) -> None:
    """A reward that differs within nearly every group."""
    (folder / "reward.py").write_text(
        "def length(completions, **_):\n    return [float(len(c)) for c in completions]\n"
    )


@pytest.fixture
def loop(tmp_path: Path):
    """A GRPO run of a tiny model with the copy that a GPU would have."""
    config = with_options(
        PolicyGradientConfig(), layers=1, width=32, heads=2, threads=1, dtype="float32", prompts=4, group_size=4,
        level=1, learning_rate=1e-2, reward=(f"{tmp_path / 'reward.py'}:length",),
    )  # fmt: skip
    write_reward(tmp_path)
    with Run.create(tmp_path / "run", {"recipe": "grpo", "options": to_json(config)}) as run:
        made = open_loop(config, run)
        made.parts.half = frozen_copy(made.parts.policy.decoder).to(torch.bfloat16)
        with made.parts.scorer:
            yield made


@torch.no_grad()
def differences(loop: Loop) -> float:
    """How far the copy is from the rounded policy."""
    assert loop.parts.half is not None
    pairs = zip(loop.parts.half.parameters(), loop.parts.policy.decoder.parameters(), strict=True)
    return max(float((mine.float() - theirs.bfloat16().float()).abs().max()) for mine, theirs in pairs)


def test_the_copy_follows_the_policy(loop: Loop) -> None:
    metrics, _ = train_step(loop, 1)
    assert differences(loop) > 1e-3, "the update moved the policy, not its copy"
    assert loop.parts.sampler() is loop.parts.half and differences(loop) == 0
    for step in (2, 3):
        metrics, _ = train_step(loop, step)
        gap = metrics["sampling/sampling_logp_difference/mean"]
        assert 0 < gap < 0.05, "rounding is seen, and it is no more than rounding"


def test_only_a_gpu_that_trains_in_bfloat16_has_one(loop: Loop) -> None:
    decoder = loop.parts.policy.decoder
    for kind, autocast in (("cpu", None), ("cpu", torch.bfloat16), ("cuda", None)):
        assert half_copy(decoder, Device(kind, "bfloat16", 1, "any"), autocast) is None
    made = half_copy(decoder, Device("cuda", "bfloat16", 1, "any"), torch.bfloat16)
    assert made is not None and made.dtype == torch.bfloat16
    assert not any(parameter.requires_grad for parameter in made.parameters())
    assert decoder.dtype == torch.float32
    assert made.rotary is not None and torch.equal(made.rotary.cos_SD.float()[0], torch.ones(16))


def test_on_a_cpu_autocast_samples_with_products_in_half(tmp_path: Path) -> None:
    config = with_options(
        PolicyGradientConfig(), layers=1, width=192, heads=2, threads=1, dtype="bfloat16", prompts=4, group_size=4,
        level=1, reward=(f"{tmp_path / 'reward.py'}:length",),
    )  # fmt: skip
    write_reward(tmp_path)
    with Run.create(tmp_path / "run", {"recipe": "grpo", "options": to_json(config)}) as run:
        made = open_loop(config, run)
        with made.parts.scorer:
            assert made.parts.sampling.half and made.parts.source.sampling.half
            metrics, _ = train_step(made, 1)
    assert 0 < metrics["sampling/sampling_logp_difference/mean"] < 0.05
