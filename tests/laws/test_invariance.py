"""The gradient does not depend on micro-batches, padding, packing or order: by construction, and here by test."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest
import torch
from torch import Tensor

from lineal.objectives.algorithm import (
    Adam,
    Algorithm,
    AlgorithmState,
    Batch,
    complete,
    objective,
    override,
    prepare,
    split,
    value_loss,
)
from lineal.objectives.penalty import AdaptiveKL, Entropy, OldKL, ReferenceKL, SqrtKL, mean_kl
from lineal.objectives.policy import ALGORITHMS, VARIANTS
from lineal.types import Rollout, Scores

GROUPS, SIZE, WIDTH, VOCABULARY = 5, 4, 6, 3
STATE = AlgorithmState(beta=0.7, baseline_sum=1.0, baseline_count=4.0)
PENALTIES = (Entropy(0.05), ReferenceKL(0.04, "k3"), ReferenceKL(0.1, "k2"))


def everything() -> dict[str, Algorithm]:
    """All named algorithms as off-policy as they go, with penalties, and some of their switches."""
    named = {name: complete(algorithm, 9) for name, algorithm in (ALGORITHMS | VARIANTS).items()}
    named = {name: replace(a, group=replace(a.group, size=SIZE)) for name, a in named.items()}
    ppo, grpo = named["ppo"], named["grpo"]
    return named | {
        "grpo+penalties": replace(grpo, penalty=PENALTIES),
        "grpo+exact": replace(grpo, penalty=(ReferenceKL(0.1, "exact"), OldKL(0.3))),
        "grpo+weighted": replace(grpo, penalty=(ReferenceKL(0.1, "k1", ratio_weighted=True),)),
        "ppo+sqrt": replace(ppo, penalty=(SqrtKL(0.5),)),
        "ppo+k1": replace(ppo, penalty=(AdaptiveKL(estimator="k1"),)),
        "grpo+reward": replace(grpo, penalty=(ReferenceKL(0.1, "k1", place="reward"),)),
        "ppo+value clip": override(ppo, value_clip=0.2, reward_scaling=True),
    }


EVERYTHING = everything()


class Case:
    """A random rollout, and scores that are a function of parameters: one row of logits per step."""

    def __init__(self, seed: int = 0) -> None:
        self.generator = torch.Generator().manual_seed(seed)
        rows = GROUPS * SIZE
        length_B = torch.randint(1, WIDTH + 1, (rows,), generator=self.generator)
        mask_BT = torch.arange(WIDTH) < length_B[:, None]
        last_BT = torch.arange(WIDTH) == length_B[:, None] - 1
        reward_B = torch.randint(0, 2, (rows,), generator=self.generator).double()
        self.rollout = Rollout(
            action_BT=torch.where(
                mask_BT, torch.randint(0, VOCABULARY, (rows, WIDTH), generator=self.generator), 0
            ),
            mask_BT=mask_BT,
            reward_BT=torch.where(last_BT, reward_B[:, None], 0.0),
            behaviour_logp_BT=self.random(mask_BT),
            group_B=torch.arange(GROUPS).repeat_interleave(SIZE),
            terminated_BT=last_BT,
            truncated_BT=torch.zeros_like(last_BT),
            segment_BT=torch.zeros(rows, WIDTH, dtype=torch.int64),
            old_logp_BT=-1 - 0.3 * self.random(mask_BT).abs(),
            reference_logp_BT=-1 + 0.1 * self.random(mask_BT),
            value_BT=self.random(mask_BT),
        )
        shape = (rows, WIDTH, VOCABULARY)
        self.theta = torch.randn(shape, generator=self.generator, dtype=torch.float64).requires_grad_()
        self.value = torch.randn(shape[:2], generator=self.generator, dtype=torch.float64).requires_grad_()

    def random(self, mask_BT: Tensor) -> Tensor:
        draw_BT = torch.randn(mask_BT.shape, generator=self.generator, dtype=torch.float64)
        return torch.where(mask_BT, draw_BT, 0.0)

    def scores(self, batch: Batch) -> Scores:
        """Scores of the batch's rows, cut to its width; padded places hold what they like."""
        width = batch.mask_BT.shape[1]
        logp_BTV = torch.log_softmax(self.theta, -1)[batch.row_B, :width]
        action_BT = self.rollout.action_BT[batch.row_B, :width]
        uniform = torch.full_like(logp_BTV, 1 / VOCABULARY)
        return Scores(
            logp_BT=logp_BTV.gather(2, action_BT[:, :, None])[:, :, 0],
            entropy_BT=-(logp_BTV.exp() * logp_BTV).sum(-1),
            kl_BT=(uniform * (uniform.log() - logp_BTV)).sum(-1),
            value_BT=self.value[batch.row_B, :width],
            reference_kl_BT=(logp_BTV.exp() * (logp_BTV - uniform.log())).sum(-1),
        )

    def gradient(self, algorithm: Algorithm, parts: list[Batch]) -> tuple[list[Tensor], dict[str, Tensor]]:
        """Gradients and metrics, added up over the parts as a loop would."""
        total, sums = torch.zeros((), dtype=torch.float64), {}
        critic = algorithm.advantage.critic_part
        for part in parts:
            scores = self.scores(part)
            value, metrics = objective(algorithm, scores, part, STATE)
            total = total + value
            if critic is not None:
                loss, more = value_loss(critic, scores, part)
                total, metrics = total - critic.coefficient * loss, metrics | more
            for name, number in metrics.items():
                sums[name] = sums.get(name, 0) + number
        inputs = (self.theta, self.value)
        found = torch.autograd.grad(total, inputs, allow_unused=True)
        return [torch.zeros_like(x) if g is None else g for x, g in zip(inputs, found)], sums

    def batch(self, algorithm: Algorithm, rollout: Rollout | None = None) -> Batch:
        """The rollout as one optimiser batch, with its mean KL for those that need it."""
        batch = prepare(algorithm, self.rollout if rollout is None else rollout, STATE)
        return replace(batch, mean_kl=mean_kl(self.scores(batch), batch))


def same(one, other, tolerance: float = 1e-10) -> None:
    for a, b in zip(one[0], other[0]):
        assert (a - b).abs().max() <= tolerance
    assert one[1].keys() == other[1].keys()
    for name in one[1]:
        assert abs(float(one[1][name]) - float(other[1][name])) <= 1e-9, name


@pytest.fixture(params=EVERYTHING.values(), ids=list(EVERYTHING))
def algorithm(request):
    return request.param


def test_micro_batches_of_any_cut_and_order_add_up(algorithm):
    case = Case()
    batch = case.batch(algorithm)
    whole = case.gradient(algorithm, [batch])
    assert any(g.abs().max() > 1e-3 for g in whole[0])
    order = torch.randperm(GROUPS * SIZE, generator=torch.Generator().manual_seed(1))
    for cuts in ([1] * 20, [7, 7, 6], [3, 17]):
        parts = []
        for index in order.split(cuts):
            # Cut to the widest completion of the micro-batch, as a loop that hates padding does.
            width = int(batch.mask_BT[index].sum(1).max())
            parts.append(batch.rows(index, width))
        same(case.gradient(algorithm, parts), whole)


def test_padding_is_never_read_and_gets_exactly_zero_gradient(algorithm):
    case = Case()
    clean = case.gradient(algorithm, [case.batch(algorithm)])
    mask_BT = case.rollout.mask_BT
    assert clean[0][0][~mask_BT].abs().max() == 0
    assert clean[0][1][~mask_BT].abs().max() == 0
    dirty = {}
    for field in fields(Rollout):
        value = getattr(case.rollout, field.name)
        if isinstance(value, Tensor) and value.is_floating_point():
            dirty[field.name] = torch.where(mask_BT, value, torch.full_like(value, torch.nan))
    case.rollout = replace(case.rollout, **dirty)
    with torch.no_grad():
        case.theta[~mask_BT] = 1e4 * torch.randn(VOCABULARY, dtype=torch.float64)
        case.value[~mask_BT] = -1e6
    same(case.gradient(algorithm, [case.batch(algorithm)]), clean)


def test_rows_and_columns_of_padding_change_nothing(algorithm):
    case = Case()
    whole = case.gradient(algorithm, [case.batch(algorithm)])
    rows, width = case.rollout.mask_BT.shape
    wide = {}
    for field in fields(Rollout):
        value = getattr(case.rollout, field.name)
        if isinstance(value, Tensor) and value.ndim == 2:
            wide[field.name] = torch.zeros(rows + 3, width + 2, dtype=value.dtype)
            wide[field.name][:rows, :width] = value
    group_B = torch.cat([case.rollout.group_B, torch.tensor([0, 3, 17])])
    padded = Case()
    padded.rollout = replace(case.rollout, **wide, group_B=group_B)
    with torch.no_grad():
        padded.theta = torch.nn.functional.pad(case.theta, (0, 0, 0, 2, 0, 3)).requires_grad_()
        padded.value = torch.nn.functional.pad(case.value, (0, 2, 0, 3)).requires_grad_()
    gradients, sums = padded.gradient(algorithm, [padded.batch(algorithm)])
    same(([gradients[0][:rows, :width], gradients[1][:rows, :width]], sums), whole)


def test_the_order_of_rows_changes_nothing(algorithm):
    case = Case()
    whole = case.gradient(algorithm, [case.batch(algorithm)])
    order = torch.randperm(GROUPS * SIZE, generator=torch.Generator().manual_seed(2))
    mixed = Case()
    mixed.rollout = case.rollout.rows(order)
    mixed.theta = case.theta.detach()[order].requires_grad_()
    mixed.value = case.value.detach()[order].requires_grad_()
    gradients, sums = mixed.gradient(algorithm, [mixed.batch(algorithm)])
    back = torch.argsort(order)
    same(([gradients[0][back], gradients[1][back]], sums), whole)


def test_minibatches_hold_whole_groups_and_weigh_themselves(algorithm):
    """Each optimiser batch's gradient is that of the algorithm on those rows alone, had they been the rollout."""
    if not isinstance(algorithm.step, Adam):
        pytest.skip("one optimiser batch by construction")
    if algorithm.surrogate.bounded:
        algorithm = replace(algorithm, step=Adam(minibatches=3))
    case = Case()
    parts = split(algorithm, case.batch(algorithm), seed=3)
    seen = torch.cat([part.row_B for part in parts])
    assert torch.equal(seen.sort().values, torch.arange(GROUPS * SIZE))
    for part in parts:
        assert set(torch.bincount(part.group_B).tolist()) <= {0, SIZE}
        weight_BT = algorithm.reduction(part.mask_BT, part.group_B, torch.float64)
        assert torch.equal(part.weight_BT, weight_BT)
        assert abs(part.step_weight_BT.sum() - 1) <= 1e-12


@pytest.mark.parametrize("name", ["ppo", "ppo-kl", "trpo", "ppo+value clip"])
def test_packing_episodes_into_one_row_changes_nothing(name):
    """Parts that work step by step do not mind several episodes in a row."""
    algorithm, case = EVERYTHING[name], Case()
    whole = case.gradient(algorithm, [case.batch(algorithm)])

    def pack(x_BT: Tensor) -> Tensor:
        return torch.cat([x_BT[0::2], x_BT[1::2]], dim=1)

    changed = {
        field.name: pack(getattr(case.rollout, field.name))
        for field in fields(Rollout)
        if field.name.endswith("_BT") and getattr(case.rollout, field.name) is not None
    }
    changed["segment_BT"][:, WIDTH:] = 1
    packed = Case()
    packed.rollout = replace(case.rollout, **changed, group_B=torch.arange(GROUPS * SIZE // 2))
    packed.theta = pack(case.theta.detach()).requires_grad_()
    packed.value = pack(case.value.detach()).requires_grad_()
    gradients, sums = packed.gradient(algorithm, [packed.batch(algorithm)])
    unpacked = [torch.stack([g[:, :WIDTH], g[:, WIDTH:]], 1).flatten(0, 1) for g in gradients]
    # A row now holds two completions: what counts rows differs, what counts steps does not.
    for skipped in ("completions", "trajectory_ratio"):
        sums.pop(skipped)
        whole[1].pop(skipped)
    same((unpacked, sums), whole)


@pytest.mark.parametrize("name", ["ppo", "ppo-kl"])
def test_minibatches_of_steps_cover_each_step_once(name):
    """Environments: every counted step in one minibatch; one minibatch of all steps has the rollout's gradient."""
    algorithm, case = EVERYTHING[name], Case()
    batch = case.batch(algorithm)
    parts = split(algorithm, batch, seed=4, by_step=True)
    assert len(parts) == 4
    flat = torch.cat([part.row_B for part in parts])
    assert torch.equal(flat.sort().values, batch.mask_BT.flatten().nonzero()[:, 0])
    for part in parts:
        assert part.mask_BT.shape[1] == 1
        assert torch.equal(part.advantage_BT[:, 0], batch.advantage_BT.flatten()[part.row_B])
        assert torch.equal(part.group_B, batch.group_B[part.row_B // WIDTH])
        assert abs(part.weight_BT.sum() - 1) <= 1e-12
