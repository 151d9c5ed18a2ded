"""One update: its gradient does not depend on how rows are cut, and natural steps keep what they promise."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor

import lineal.train.update as module
from lineal.models.decoder import Decoder, llama_config
from lineal.models.policy import ActorCritic
from lineal.objectives.advantage import GAE
from lineal.objectives.algorithm import (
    Adam,
    Algorithm,
    Batch,
    Critic,
    Group,
    NaturalGradient,
    TrustRegion,
    complete,
    initial_state,
    needs,
    objective,
    override,
    prepare,
    split,
    value_loss,
)
from lineal.objectives.penalty import SqrtKL
from lineal.objectives.policy import ALGORITHMS, VARIANTS, named
from lineal.optim.groups import adamw
from lineal.train.collect import to_rollout
from lineal.train.gathered import Gathered
from lineal.train.score import Scoring, Sheet, Want, score, score_all
from lineal.train.update import (
    Problem,
    Sums,
    accumulate,
    adam_update,
    critic_update,
    frozen_copy,
    mean_kl,
    natural_update,
    silent,
)
from lineal.types import Completion, Rollout

VOCABULARY = 11
MORE = {
    "grpo with everything": override(named("grpo"), reference_kl=0.1, entropy=0.05),
    "ppo with a separate critic": override(named("ppo"), critic="separate", value_clip=0.1),
    "grpo with the root of KL": replace(named("grpo"), penalty=(SqrtKL(0.5),)),
}
EVERY = ALGORITHMS | VARIANTS | MORE


@dataclass
class World:
    """A tiny policy, a rollout that an older version of it sampled, and everything an update needs."""

    algorithm: Algorithm
    policy: ActorCritic
    old: Decoder
    sheet: Sheet
    batch: Batch
    scoring: Scoring

    @property
    def state(self):
        """The algorithm's state before the first step."""
        return initial_state(self.algorithm)

    def problem(self, scoring: Scoring | None = None) -> Problem:
        """What an update works on."""
        return Problem(
            self.policy, self.algorithm, self.state, self.sheet, self.batch, scoring or self.scoring
        )

    def weights(self) -> dict[str, Tensor]:
        """All parameters as they are now."""
        return {name: p.detach().clone() for name, p in self.policy.named_parameters()}

    def moved(self, before: dict[str, Tensor]) -> set[str]:
        """Which parameters are not bitwise what they were."""
        return {name for name, p in self.policy.named_parameters() if not torch.equal(p, before[name])}


def rollout(seed: int = 0, size: int = 4) -> Rollout:
    """Four prompts with `size` random completions each; all rewards of the third prompt are equal."""
    generator = torch.Generator().manual_seed(seed)

    def draw(low: int, high: int, count: int) -> list[int]:
        return torch.randint(low, high, (count,), generator=generator).tolist()

    prompts = [[1, 2, 3], [4], [5, 6, 7, 8], [9, 9]]
    lengths = [draw(1, 7, size) for _ in prompts]
    answers = [
        [Completion(tuple(draw(0, VOCABULARY, n)), (0.0,) * n, "stop") for n in group] for group in lengths
    ]
    rewards = [
        [float(i) for i in range(size)],
        [1.0, *[0.0] * (size - 1)],
        [1.0] * size,
        [-1.0, *[2.0] * (size - 1)],
    ]
    found = to_rollout(Gathered([], prompts, answers, [], rewards), "cpu")
    return replace(
        found, reward_BT=found.reward_BT.double(), behaviour_logp_BT=found.behaviour_logp_BT.double()
    )


def shake(parameters, scale: float, seed: int) -> None:
    """Add noise to parameters, in place."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in parameters:
            parameter += scale * torch.randn(parameter.shape, generator=generator, dtype=torch.float64)


def world(algorithm: Algorithm, *, seed: int = 0, drift: float = 0.02) -> World:
    """drift: how far the policy has moved since it was scored."""
    algorithm = complete(algorithm, 8)
    wanted, state = needs(algorithm), initial_state(algorithm)
    decoder = Decoder(llama_config(VOCABULARY, 16, 2, 4, 32, 16)).initialise(seed).double().eval()
    shake(decoder.parameters(), 0.3, seed + 1)
    policy = ActorCritic(decoder, wanted.critic.kind if wanted.critic else None).eval()
    shake(policy.critic_parameters().values(), 0.3, seed + 2)
    reference = frozen_copy(decoder)
    shake(reference.parameters(), 0.05, seed + 3)
    scoring = Scoring(token_budget=40, reference=reference)
    some = rollout(seed)
    scores = score_all(policy, Sheet.of(some), scoring)
    reference_BT = score_all(ActorCritic(reference), Sheet.of(some), scoring).logp_BT
    some = replace(
        some,
        old_logp_BT=scores.logp_BT if wanted.old_logp else None,
        value_BT=scores.value_BT,
        reference_logp_BT=reference_BT if wanted.reference else None,
    )
    old = frozen_copy(decoder)
    shake(policy.parameters(), drift, seed + 4)
    return World(algorithm, policy, old, Sheet.of(some), prepare(algorithm, some, state), scoring)


def gradients(here: World, part: Batch, scoring: Scoring) -> tuple[Sums, dict[str, Tensor]]:
    """Metric sums and gradients of one optimiser batch."""
    here.policy.zero_grad(set_to_none=True)
    sums = accumulate(here.problem(scoring), part, here.old)
    return sums, {
        n: torch.zeros_like(p) if p.grad is None else p.grad for n, p in here.policy.named_parameters()
    }


def with_mean_kl(here: World, part: Batch) -> Batch:
    """The batch with its mean KL, where the algorithm asks for it."""
    if not needs(here.algorithm).mean_kl:
        return part
    return replace(part, mean_kl=mean_kl(here.problem(), part, here.old))


@pytest.mark.parametrize("name", list(EVERY))
def test_the_gradient_does_not_depend_on_the_budget(name: str) -> None:
    algorithm = EVERY[name]
    here = world(override(algorithm, minibatches=min(2, algorithm.step.minibatches)))
    for part in split(here.algorithm, here.batch, seed=1):
        part = with_mean_kl(here, part)
        sums, whole = gradients(here, part, replace(here.scoring, token_budget=10_000))
        assert any(g.abs().max() > 1e-6 for g in whole.values())
        for budget in (1, 17):
            again, cut = gradients(here, part, replace(here.scoring, token_budget=budget))
            assert again.keys() == sums.keys()
            for key in sums:
                torch.testing.assert_close(
                    again[key], sums[key], rtol=0, atol=1e-9, msg=lambda m, k=key: f"{k} {m}"
                )
            for key, gradient in whole.items():
                torch.testing.assert_close(
                    cut[key], gradient, rtol=0, atol=1e-10, msg=lambda m, k=key: f"{k} {m}"
                )


@pytest.mark.parametrize("name", list(EVERY))
def test_the_gradient_is_that_of_the_whole_batch_at_once(name: str) -> None:
    """Also for silent rows: leaving them out must change nothing."""
    here = world(EVERY[name])
    part = with_mean_kl(here, split(here.algorithm, here.batch)[0])
    _, found = gradients(here, part, replace(here.scoring, token_budget=30))
    wanted = needs(here.algorithm)
    adam = isinstance(here.algorithm.step, Adam)
    want = Want(
        "gradient", here.old if adam else None, reference=here.scoring.reference, detach_critic=not adam
    )
    here.policy.zero_grad(set_to_none=True)
    # Micro-batches sort rows by group, as the batch must.
    rows = here.sheet.by_group(part.row_B)
    place = {row: index for index, row in enumerate(part.row_B.tolist())}
    micro = here.sheet.micro_batch(rows)
    cut = part.rows(torch.tensor([place[row] for row in rows]), micro.width)
    scores = score(here.policy, micro, 1.0, want)
    loss = -objective(here.algorithm, scores, cut, here.state)[0]
    if wanted.critic is not None and adam:
        loss = loss + wanted.critic.coefficient * value_loss(wanted.critic, scores, cut)[0]
    loss.backward()
    for key, parameter in here.policy.named_parameters():
        expected = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        torch.testing.assert_close(found[key], expected, rtol=0, atol=1e-10, msg=lambda m, k=key: f"{k} {m}")


@pytest.mark.parametrize("name", ["grpo", "dapo", "dr-grpo", "gspo", "rloo", "cispo", "reinforce"])
def test_rows_without_advantage_are_not_scored(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    here = world(ALGORITHMS[name])
    part = split(override(here.algorithm, minibatches=1), here.batch)[0]
    quiet = {row for row, a in zip(part.row_B.tolist(), (part.advantage_BT == 0).all(1).tolist()) if a}
    assert silent(here.algorithm)
    seen: list[int] = []
    real = module.score

    def watched(policy, micro, *rest):
        seen.extend(micro.row_N.tolist())
        return real(policy, micro, *rest)

    monkeypatch.setattr(module, "score", watched)
    sums, _ = gradients(here, part, here.scoring)
    assert set(seen) == set(part.row_B.tolist()) - quiet
    assert quiet
    assert float(sums["completions"]) == len(seen)


@pytest.mark.parametrize("algorithm", [named("ppo"), *MORE.values(), named("grpo-reference-kl")], ids=str)
def test_rows_that_a_penalty_or_a_critic_needs_are_never_left_out(algorithm: Algorithm) -> None:
    assert not silent(algorithm)


@pytest.mark.parametrize("name", [n for n, a in ALGORITHMS.items() if a.ratio.uses_old])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_ratios_are_exactly_1_before_any_step(name: str, dtype: torch.dtype) -> None:
    algorithm = override(ALGORITHMS[name], minibatches=1) if name != "trpo" else ALGORITHMS[name]
    here = world(algorithm, drift=0.0)
    if dtype == torch.float32:
        here.policy.float()
        logp_BT = score_all(here.policy, here.sheet, here.scoring).logp_BT
        old_BT = None if here.batch.old_logp_BT is None else logp_BT
        single = {
            n: x.float()
            for n, x in vars(here.batch).items()
            if torch.is_tensor(x) and x.dtype == torch.float64
        }
        here.batch = replace(here.batch, **{**single, "old_logp_BT": old_BT})
        here.old = frozen_copy(here.policy.decoder)
        here.scoring = replace(here.scoring, reference=None)
    monitored = override(here.algorithm, entropy=0.01) if silent(algorithm) else here.algorithm
    here.algorithm = monitored
    sums, _ = gradients(here, split(monitored, here.batch)[0], here.scoring)
    assert float(sums["ratio"]) == float(sums["steps"]), "a sum of ones is exact"
    assert float(sums["trajectory_ratio"]) == float(sums["completions"])
    assert float(sums["clip_low"]) == float(sums["clip_high"]) == 0.0
    assert float(sums["kl"]) == pytest.approx(0.0, abs=1e-12)


def test_epochs_and_minibatches_are_taken_and_reported() -> None:
    here = world(override(named("ppo"), epochs=3, minibatches=2, learning_rate=1e-2), drift=0.0)
    optimiser = adamw(dict(here.policy.named_parameters()), 1e-2)
    before, offered = here.weights(), []

    def accept(norm: float, part: Batch) -> bool:
        offered.append((norm, sorted(set(part.group_B.tolist()))))
        return True

    sums, norms = adam_update(here.problem(), optimiser, accept, 7)
    assert [norm for norm, _ in offered] == norms and len(norms) == 6
    assert all(sorted(a + b) == [0, 1, 2, 3] for (_, a), (_, b) in zip(offered[::2], offered[1::2])), (
        "whole groups"
    )
    assert here.moved(before) == set(before)
    steps = int(here.batch.mask_BT.sum())
    assert float(sums["steps"]) == 3 * steps
    assert float(sums["kl"]) > 0 and float(sums["ratio"]) != 3 * steps


def test_the_seed_fixes_an_update() -> None:
    def after(seed: int) -> dict[str, Tensor]:
        here = world(override(named("ppo"), minibatches=3, learning_rate=1e-2), drift=0.0)
        optimiser = adamw(dict(here.policy.named_parameters()), 1e-2)
        adam_update(here.problem(), optimiser,
            lambda *_: True, seed,
        )  # fmt: skip
        return here.weights()

    one, same, other = after(1), after(1), after(2)
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert any(not torch.equal(one[name], other[name]) for name in one)


def test_a_refused_step_moves_nothing_and_counts_for_nothing() -> None:
    here = world(named("grpo"), drift=0.0)
    optimiser, before = adamw(dict(here.policy.named_parameters()), 1e-2), here.weights()
    sums, norms = adam_update(
        here.problem(),
        optimiser,
        lambda *_: False,
    )
    assert here.moved(before) == set() and sums == {} and len(norms) == 1
    assert not optimiser.state


def test_gradients_are_clipped_together_and_their_own_norm_is_reported() -> None:
    here = world(override(named("grpo"), max_grad_norm=1e-3), drift=0.0)
    seen: list[float] = []

    class Recorder(torch.optim.SGD):
        """Notes the norm of what it is given."""

        def step(self, closure=None):
            grads = [p.grad for group in self.param_groups for p in group["params"] if p.grad is not None]
            seen.append(float(torch.stack([g.norm() for g in grads]).norm()))

    _, norms = adam_update(
        here.problem(), Recorder(here.policy.parameters(), 0.1), lambda *_: True,
    )  # fmt: skip
    assert norms[0] > 1e-2 and seen[0] == pytest.approx(1e-3, rel=1e-4)


def test_mean_kl_is_that_of_the_definition() -> None:
    here = world(named("ppo-kl"))
    assert float(mean_kl(here.problem(), here.batch, frozen_copy(here.policy.decoder))) == 0.0
    found = mean_kl(here.problem(), here.batch, here.old)
    micro = here.sheet.micro_batch(list(range(len(here.sheet))))
    hidden = micro.hidden(here.policy.decoder), micro.hidden(here.old)
    new_NV, old_NV = (
        torch.log_softmax(d.logits(h), -1) for d, h in zip((here.policy.decoder, here.old), hidden)
    )
    expected = (old_NV.exp() * (old_NV - new_NV)).sum(-1).mean()
    torch.testing.assert_close(found, expected.detach(), rtol=0, atol=1e-12)


def natural(here: World, chosen: list | None = None):
    """The step of TRPO or of the natural gradient."""
    parameters = list(here.policy.actor_parameters().values()) if chosen is None else chosen
    return natural_update(here.problem(), parameters)


@pytest.mark.parametrize("max_kl", [1e-4, 1e-2])
def test_trpo_improves_inside_its_ball(max_kl: float) -> None:
    here = world(override(named("trpo"), max_kl=max_kl), drift=0.0)
    before, old = here.weights(), frozen_copy(here.policy.decoder)
    sums, report = natural(here)
    assert report.accepted and report.reason == ""
    assert 0 < report.kl <= max_kl and report.improvement > 0
    assert report.cg_residual < 0.5
    measured = mean_kl(here.problem(), here.batch, old)
    assert float(measured) == pytest.approx(report.kl, rel=1e-9), (
        "the report is about the policy as it is now"
    )
    if report.backtracks == 0 and max_kl == 1e-4:
        assert report.kl == pytest.approx(report.expected_kl, rel=0.1)
        assert report.improvement == pytest.approx(report.expected_improvement, rel=0.1)
    assert here.moved(before) == {name for name in before if name.startswith("decoder.")}
    assert float(sums["ratio"]) == pytest.approx(float(sums["steps"]), rel=1e-12)


@pytest.mark.parametrize("budget", [1, 23])
def test_a_natural_step_does_not_depend_on_the_budget(budget: int) -> None:
    ends = []
    for tokens in (10_000, budget):
        here = world(named("trpo"), drift=0.0)
        here.scoring = replace(here.scoring, token_budget=tokens)
        _, report = natural(here)
        ends.append((here.weights(), report))
    for name in ends[0][0]:
        torch.testing.assert_close(ends[0][0][name], ends[1][0][name], rtol=0, atol=1e-7)
    assert ends[0][1].kl == pytest.approx(ends[1][1].kl, rel=1e-6)


@pytest.mark.parametrize(("max_kl", "reason"), [(0.1, "still has a KL of"), (10.0, "no improvement")])
def test_a_rejected_step_leaves_the_parameters_bitwise(max_kl: float, reason: str) -> None:
    """Steps at which the quadratic model is too hopeful, and no backtracking to mend it."""
    here = world(replace(named("trpo"), step=TrustRegion(max_kl=max_kl, max_backtracks=0)), drift=0.0)
    before = here.weights()
    _, report = natural(here)
    assert not report.accepted and reason in report.reason
    assert here.moved(before) == set()
    here.algorithm = replace(here.algorithm, step=TrustRegion(max_kl=max_kl))
    _, report = natural(here)
    assert report.accepted and report.backtracks > 0 and report.kl <= max_kl and report.improvement > 0


def test_a_flat_objective_is_no_step() -> None:
    here = world(named("trpo"), drift=0.0)
    here.batch = replace(here.batch, advantage_BT=torch.zeros_like(here.batch.advantage_BT))
    before = here.weights()
    _, report = natural(here)
    assert not report.accepted and "gradient" in report.reason and math.isnan(report.kl)
    assert here.moved(before) == set()


def test_only_the_chosen_parameters_move() -> None:
    here = world(named("trpo"), drift=0.0)
    chosen = {n: p for n, p in here.policy.actor_parameters().items() if ".blocks.1." in n}
    before = here.weights()
    _, report = natural(here, list(chosen.values()))
    assert report.accepted and here.moved(before) == set(chosen)


def test_the_natural_gradient_has_no_line_search() -> None:
    here = world(replace(named("trpo"), step=NaturalGradient(max_kl=1e-4)), drift=0.0)
    before = here.weights()
    _, report = natural(here)
    assert report.accepted and report.backtracks == 0 and report.step_scale == 1.0
    assert report.kl == pytest.approx(1e-4, rel=0.1) and here.moved(before)


@pytest.mark.parametrize("kind", ["head", "separate"])
def test_the_critic_is_fitted_alone(kind: str) -> None:
    critic = Critic(kind, epochs=30, learning_rate=1e-2)
    here = world(replace(named("trpo"), advantage=GAE(critic=critic)), drift=0.0)
    assert needs(here.algorithm).critic == critic
    optimiser = adamw(here.policy.critic_parameters(), critic.learning_rate)
    before, start = here.weights(), copy.deepcopy(here.policy)
    last = critic_update(here.problem(), optimiser)
    optimiser = adamw(start.critic_parameters(), critic.learning_rate)
    once = replace(here.algorithm, advantage=GAE(critic=replace(critic, epochs=1)))
    first = critic_update(replace(here.problem(), policy=start, algorithm=once), optimiser)
    assert float(last["value_loss"]) < 0.7 * float(first["value_loss"])
    assert here.moved(before) == {name for name in before if not name.startswith("decoder.")}


def test_a_frozen_copy_is_apart_and_takes_no_gradient() -> None:
    here = world(named("grpo"))
    here.policy.decoder.train()
    twin = frozen_copy(here.policy.decoder)
    assert not twin.training and here.policy.decoder.training
    assert not any(p.requires_grad for p in twin.parameters())
    shake(here.policy.decoder.parameters(), 1.0, 0)
    assert not any(torch.equal(a, b) for a, b in zip(twin.parameters(), here.policy.decoder.parameters()))


def test_group_sizes_do_not_have_to_be_equal() -> None:
    """Dropped samples leave groups of unequal sizes; the objective's weights say what each then counts."""
    here = world(replace(named("grpo"), group=Group(4)))
    row_N = torch.tensor([0, 1, 2, 4, 5, 8, 9, 10, 11, 12, 13, 14, 15])
    some = here.sheet.rollout.rows(row_N)
    here.sheet, here.batch = Sheet.of(some), prepare(here.algorithm, some, here.state)
    part = split(here.algorithm, here.batch)[0]
    one, other = (gradients(here, part, replace(here.scoring, token_budget=n))[1] for n in (1, 1000))
    for name in one:
        torch.testing.assert_close(one[name], other[name], rtol=0, atol=1e-10)
