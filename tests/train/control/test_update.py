"""Updates of a control policy: hand-written gradients and Fisher products beside autograd, and what a step promises."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from lineal.environments.control.opening import open_environment
from lineal.models.actions import Gaussian
from lineal.models.control import ControlPolicy
from lineal.models.perceptron import activations
from lineal.objectives.algorithm import (
    Adam,
    Algorithm,
    Batch,
    NaturalGradient,
    TrustRegion,
    initial_state,
    needs,
    objective,
    override,
    prepare,
    split,
    value_loss,
)
from lineal.objectives.penalty import SqrtKL
from lineal.objectives.policy import named
from lineal.objectives.prepare import weigh
from lineal.objectives.surrogate import Linear
from lineal.ops.linear import conjugate_gradient, dense_matrix, kl_fisher_product
from lineal.ops.logprob import gather_logp
from lineal.optim.groups import adamw
from lineal.train.control.collect import Collector
from lineal.train.control.natural import ACTOR, critic_update, fisher_product, natural_update
from lineal.train.control.parts import policy_config
from lineal.train.control.update import Quick, StepProblem, accumulate, adam_update
from lineal.train.environment_options import PolicyOptions
from lineal.types import Scores

CASES = [
    ("CartPole-v1", PolicyOptions()),
    ("Pendulum-v1", PolicyOptions(hidden=(8, 8), log_std=-0.3)),
    ("Pendulum-v1", PolicyOptions(hidden=(8,), activation="relu", covariance="full", learn_std=False)),
]


def problem(
    algorithm: Algorithm, env: str = "CartPole-v1", options: PolicyOptions | None = None, steps: int = 40
) -> StepProblem:
    """A rollout in float64, prepared."""
    environment = open_environment(env, 3)
    chosen = options or PolicyOptions(hidden=(8, 8))
    critic = needs(algorithm).critic is not None
    config = policy_config(chosen, environment.observation, environment.action, critic=critic)
    policy = ControlPolicy(config, 0, torch.float64)
    with torch.no_grad():
        policy.theta.add_(0.2 * torch.randn(policy.theta.shape, generator=torch.Generator().manual_seed(4)))
    collector = Collector(environment, policy, 0, 0.99)
    collector.restart(0)
    experience = collector.collect(1, steps, whole=not critic)
    state = initial_state(algorithm)
    return StepProblem(policy, algorithm, state, experience, prepare(algorithm, experience.rollout, state))


def perceptrons(work: StepProblem) -> ControlPolicy:
    """Its policy, which here is of perceptrons."""
    assert isinstance(work.policy, ControlPolicy)
    return work.policy


def plainly(work: StepProblem, part: Batch) -> tuple[Tensor, Tensor]:
    """The same loss through plain torch operations and autograd; (loss, gradient)."""
    policy, algorithm = perceptrons(work), work.algorithm
    theta_KP = policy.theta.detach().clone().requires_grad_()
    rows = part.row_B if part.mask_BT.shape[1] == 1 else slice(None)
    output_KNO = activations(theta_KP, work.experience.input_NF[rows], policy.shape)[-1]
    spread_E = policy.shape.tail(theta_KP)[0]
    spread_E = spread_E if policy.config.learn_std else spread_E.detach()
    kind, old, shape = policy.actions, work.experience.old.rows(rows), part.mask_BT.shape
    scores = Scores(
        kind.logp(output_KNO[0], spread_E, work.experience.action[rows]).view(shape),
        kind.entropy(output_KNO[0], spread_E).view(shape),
        kind.kl(old.output_NO, old.spread_E, output_KNO[0], spread_E).view(shape),
        output_KNO[1, :, 0].view(shape) if policy.config.critic else None,
    )
    value, _ = objective(algorithm, scores, part, work.state)
    loss, critic = -value, needs(algorithm).critic
    if critic is not None:
        loss = loss + critic.coefficient * value_loss(critic, scores, part)[0]
    (gradient_KP,) = torch.autograd.grad(loss, theta_KP)
    return loss.detach(), gradient_KP


@pytest.mark.parametrize(("env", "options"), CASES)
@pytest.mark.parametrize("name", ["ppo", "ppo-kl", "reinforce"])
def test_the_gradient_is_autograds(name: str, env: str, options: PolicyOptions) -> None:
    algorithm = named(name)
    if name != "reinforce":
        algorithm = override(algorithm, entropy=0.02, minibatches=3, value_clip=0.1)
    work = problem(algorithm, env, options)
    for part in split(algorithm, work.batch, 0, by_step=name != "reinforce"):
        found_KP = torch.full_like(perceptrons(work).theta, 5.0)
        accumulate(work, part, found_KP)
        assert torch.allclose(found_KP, plainly(work, part)[1], rtol=1e-9, atol=1e-12)
        assert float(found_KP.abs().max()) > 0


@pytest.mark.parametrize(("env", "options"), CASES)
@pytest.mark.parametrize("name", ["ppo", "reinforce", "linear"])
def test_the_quick_gradient_is_the_same(name: str, env: str, options: PolicyOptions) -> None:
    algorithm = named("ppo" if name == "linear" else name)
    if name == "linear":
        algorithm = replace(algorithm, surrogate=Linear(), name="linear")
    if name != "reinforce":
        algorithm = override(algorithm, minibatches=3, entropy=0.05 if name == "ppo" else None)
    work = problem(algorithm, env, options)
    # The ratios must have left 1, and some of them the bounds.
    with torch.no_grad():
        perceptrons(work).theta.add_(
            0.1 * torch.randn(perceptrons(work).theta.shape, generator=torch.Generator().manual_seed(8))
        )
    assert Quick.fits(work)
    quick_KP, slow_KP = (
        torch.full_like(perceptrons(work).theta, 5.0),
        torch.full_like(perceptrons(work).theta, 7.0),
    )
    quick = Quick(work, quick_KP)
    clipped = 0.0
    for part in split(algorithm, work.batch, 0, by_step=name != "reinforce"):
        quick(part)
        sums = accumulate(work, part, slow_KP)
        clipped += float(sums.get("clip_low", 0.0)) + float(sums.get("clip_high", 0.0))
        assert torch.allclose(quick_KP, slow_KP, rtol=1e-9, atol=1e-12)
    assert (clipped > 0) == (name == "ppo")


def test_the_quick_gradient_leaves_penalties_and_value_clips_alone() -> None:
    assert not Quick.fits(problem(override(named("ppo"), value_clip=0.2)))
    assert not Quick.fits(problem(named("ppo-kl")))


def test_steps_as_rows_and_rows_of_steps_give_the_same_bits() -> None:
    algorithm = override(named("ppo"), minibatches=1, entropy=0.01, whiten="off")
    work = problem(algorithm, "Pendulum-v1")
    rollout = work.experience.rollout
    flat = {
        name: x.flatten(0, 1)[:, None] if name.endswith("_BT") and name != "action_BT" else x
        for name, x in vars(work.batch).items()
        if isinstance(x, Tensor)
    }
    count = rollout.mask_BT.numel()
    flat |= {"row_B": torch.arange(count), "group_B": torch.arange(count)}
    tall = Batch(**flat)
    assert tall.mask_BT.shape == (count, 1) and work.batch.mask_BT.shape[1] > 1
    found = [torch.empty_like(perceptrons(work).theta) for _ in range(2)]
    accumulate(work, split(algorithm, work.batch)[0], found[0])
    accumulate(work, weigh(algorithm, tall), found[1])
    assert torch.equal(found[0], found[1])


def test_minibatches_of_steps_add_up_to_the_whole() -> None:
    algorithm = override(named("ppo"), minibatches=4, whiten="rollout")
    work = problem(algorithm)
    parts = split(algorithm, work.batch, 3, by_step=True)
    seen = torch.cat([part.row_B for part in parts])
    assert sorted(seen.tolist()) == list(range(120))
    total_KP, one_KP = torch.zeros_like(perceptrons(work).theta), torch.empty_like(perceptrons(work).theta)
    for part in parts:
        accumulate(work, part, one_KP)
        total_KP += one_KP * len(part.row_B) / 120
    whole = override(algorithm, minibatches=1)
    accumulate(replace(work, algorithm=whole), split(whole, work.batch)[0], one_KP)
    assert torch.allclose(total_KP, one_KP, rtol=1e-10, atol=1e-13)
    assert torch.equal(split(algorithm, work.batch, 3, by_step=True)[0].row_B, parts[0].row_B)
    assert not torch.equal(split(algorithm, work.batch, 4, by_step=True)[0].row_B, parts[0].row_B)


@pytest.mark.parametrize(("env", "options"), CASES)
def test_the_fisher_product_is_double_backward_and_the_explicit_matrix(
    env: str, options: PolicyOptions
) -> None:
    work = problem(named("trpo"), env, options)
    policy, inputs = perceptrons(work), work.experience.input_NF
    weight_N = torch.rand(len(inputs), generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    weight_N /= weight_N.sum()
    product = fisher_product(policy, policy.read(inputs, ACTOR), weight_N)

    def outputs(theta_P: Tensor) -> tuple[Tensor, Tensor]:
        theta_1P = torch.cat([theta_P, policy.theta.detach()[0, policy.moving :]])[None]
        return activations(theta_1P, inputs, policy.shape)[-1][0], policy.shape.tail(theta_1P)[0]

    theta_P = policy.theta.detach()[0, : policy.moving].clone().requires_grad_()
    kind, (mean_NO, spread_E) = policy.actions, (x.detach() for x in outputs(theta_P))

    def divergence() -> Tensor:
        return (kind.kl(mean_NO, spread_E, *outputs(theta_P)) * weight_N).sum()

    twice = kl_fisher_product([divergence], [theta_P])
    generator = torch.Generator().manual_seed(2)
    for _ in range(3):
        v_P = torch.randn(policy.moving, generator=generator, dtype=torch.float64)
        u_P = torch.randn(policy.moving, generator=generator, dtype=torch.float64)
        assert relative(product(v_P), twice(v_P)) < 1e-12
        assert float(u_P @ product(v_P)) == pytest.approx(float(v_P @ product(u_P)), rel=1e-10)
        assert float(v_P @ product(v_P)) >= 0
    if policy.moving <= 200 and not isinstance(kind, Gaussian):
        jacobian_NVP = torch.autograd.functional.jacobian(
            lambda t: outputs(t)[0].log_softmax(-1), theta_P.detach()
        )
        assert isinstance(jacobian_NVP, Tensor)
        p_NV = mean_NO.softmax(-1)
        explicit = torch.einsum("n,nv,nvp,nvq->pq", weight_N, p_NV, jacobian_NVP, jacobian_NVP)
        assert relative(dense_matrix(product, theta_P.detach()), explicit) < 1e-12


def test_the_explicit_fisher_matrix_of_a_small_policy() -> None:
    algorithm = named("trpo")
    work = problem(algorithm, "CartPole-v1", PolicyOptions(hidden=(6,)))
    policy, inputs = perceptrons(work), work.experience.input_NF
    weight_N = torch.full((len(inputs),), 1 / len(inputs), dtype=torch.float64)
    matrix = dense_matrix(
        fisher_product(policy, policy.read(inputs, ACTOR), weight_N), policy.theta.detach()[0]
    )
    theta_P = policy.theta.detach()[0]

    def logp(theta: Tensor) -> Tensor:
        return activations(theta[None], inputs, policy.shape)[-1][0].log_softmax(-1)

    jacobian_NVP = torch.autograd.functional.jacobian(logp, theta_P)
    assert isinstance(jacobian_NVP, Tensor)
    explicit = torch.einsum("n,nv,nvp,nvq->pq", weight_N, logp(theta_P).exp(), jacobian_NVP, jacobian_NVP)
    assert relative(matrix, explicit) < 1e-12
    # A Monte-Carlo estimate from the sampled actions: right within its noise, and no closer.
    drawn = torch.multinomial(
        logp(theta_P).exp(), 4000, replacement=True, generator=torch.Generator().manual_seed(0)
    )
    taken = jacobian_NVP.gather(1, drawn[..., None].expand(-1, -1, jacobian_NVP.shape[2]))
    estimate = torch.einsum("n,nsp,nsq->pq", weight_N, taken, taken) / drawn.shape[1]
    assert 1e-6 < relative(estimate, explicit) < 0.05
    for damping, iterations, bound in ((0.1, 15, 1e-3), (0.01, 25, 1e-2), (1e-3, 50, 0.05)):
        b_P = torch.randn(len(theta_P), generator=torch.Generator().manual_seed(5), dtype=torch.float64)
        damped = matrix + damping * torch.eye(len(theta_P), dtype=torch.float64)
        x_P, _ = conjugate_gradient(damped.mv, b_P, iterations)
        assert relative(x_P, torch.linalg.solve(damped, b_P)) < bound


def relative(a: Tensor, b: Tensor) -> float:
    return float((a - b).norm() / b.norm())


@pytest.mark.parametrize(("env", "options"), CASES)
def test_a_trust_region_step_keeps_its_promises(env: str, options: PolicyOptions) -> None:
    work = problem(named("trpo"), env, options)
    policy, before = perceptrons(work), perceptrons(work).theta.detach().clone()
    _, report = natural_update(work)
    assert report.accepted and report.improvement > 0 and 0 < report.kl <= 0.01
    reading = policy.read(work.experience.input_NF, ACTOR)
    kl_N = policy.actions.kl(
        work.experience.old.output_NO,
        work.experience.old.spread_E,
        reading.output_KNO.detach()[0],
        policy.spread(),
    )
    assert float(kl_N.mean()) == pytest.approx(report.kl, rel=1e-9)
    assert torch.equal(policy.theta[1], before[1]), "the critic must not move"
    assert torch.equal(policy.theta[0, policy.moving :], before[0, policy.moving :])
    assert not torch.equal(policy.theta[0], before[0])


def test_the_quadratic_model_becomes_exact_as_the_step_shrinks() -> None:
    ratios = []
    for max_kl in (1e-2, 1e-4, 1e-6):
        algorithm = replace(named("trpo"), step=NaturalGradient(max_kl=max_kl, damping=1e-3))
        _, report = natural_update(problem(algorithm, "Pendulum-v1"))
        ratios.append(report.kl / report.expected_kl)
    assert abs(ratios[2] - 1) < 1e-2 < 0.2 + abs(ratios[0] - 1)
    assert abs(ratios[2] - 1) < abs(ratios[0] - 1)


def test_a_step_that_finds_nothing_leaves_every_bit() -> None:
    algorithm = replace(named("trpo"), step=TrustRegion(max_backtracks=0, max_kl=0.01, damping=1e-3))
    work = problem(algorithm, "Pendulum-v1")
    before = perceptrons(work).theta.detach().clone()
    _, report = natural_update(work)
    assert not report.accepted and report.reason
    assert torch.equal(perceptrons(work).theta, before)
    still = replace(work, batch=replace(work.batch, advantage_BT=torch.zeros_like(work.batch.advantage_BT)))
    _, report = natural_update(still)
    assert not report.accepted and "gradient" in report.reason
    assert torch.equal(perceptrons(work).theta, before)


def test_the_critic_is_fitted_alone() -> None:
    work = problem(override(named("trpo"), critic_epochs=30))
    leaf = torch.nn.Parameter(perceptrons(work).theta.data[1:2])
    before = perceptrons(work).theta.detach().clone()
    optimiser = adamw({"theta": leaf}, 1e-2, weight_decay=0.0)
    first = float(
        critic_update(replace(work, algorithm=override(work.algorithm, critic_epochs=1)), optimiser, 2)[
            "value_loss"
        ]
    )
    last = float(critic_update(work, optimiser, 2)["value_loss"])
    assert last < first
    assert torch.equal(perceptrons(work).theta[0], before[0]) and not torch.equal(
        perceptrons(work).theta[1], before[1]
    )


def test_adam_respects_the_clip_the_guard_and_the_old_policy() -> None:
    algorithm = override(named("ppo-kl"), epochs=2, minibatches=2, learning_rate=1e-3)
    work = problem(algorithm)
    optimiser = adamw({"theta": perceptrons(work).theta}, 1e-3, weight_decay=0.0)
    before = perceptrons(work).theta.detach().clone()
    seen: list[float] = []

    def refuse(norm: float, part: Batch) -> bool:
        seen.append(norm)
        return False

    sums, norms = adam_update(work, optimiser, refuse)
    assert len(seen) == 4 and norms == seen and torch.equal(perceptrons(work).theta, before)
    assert float(sums["measured_kl"]) == pytest.approx(0.0, abs=1e-12) and "surrogate" not in sums
    sums, _ = adam_update(work, optimiser, lambda norm, part: True)
    assert float(sums["measured_kl"]) > 0 and float(sums["steps"]) == 120
    assert not torch.equal(perceptrons(work).theta, before)


def test_the_square_root_penalty_gets_its_mean() -> None:
    algorithm = replace(named("ppo-kl"), penalty=(SqrtKL(1.0),), step=Adam(minibatches=1, epochs=2))
    work = problem(algorithm)
    optimiser = adamw({"theta": perceptrons(work).theta}, 1e-3, weight_decay=0.0)
    sums, _ = adam_update(work, optimiser, lambda norm, part: True)
    assert bool(torch.isfinite(perceptrons(work).theta).all()) and float(sums["kl"]) >= 0


def test_reinforce_takes_whole_episodes_and_its_gradient_is_the_formulas() -> None:
    work = problem(named("reinforce"))
    rollout = work.experience.rollout
    assert (rollout.mask_BT.sum(1) == torch.tensor(work.experience.lengths)).all() or sorted(
        rollout.mask_BT.sum(1).tolist()
    ) == sorted(work.experience.lengths)
    found_KP = torch.empty_like(perceptrons(work).theta)
    accumulate(work, split(work.algorithm, work.batch)[0], found_KP)
    theta_KP = perceptrons(work).theta.detach().clone().requires_grad_()
    output_NO = activations(theta_KP, work.experience.input_NF, perceptrons(work).shape)[-1][0]
    logp_BT = gather_logp(output_NO, work.experience.action).view(rollout.mask_BT.shape)
    to_go_BT = rollout.reward_BT.flip(1).cumsum(1).flip(1)
    value = (logp_BT * to_go_BT * rollout.mask_BT).sum() / 3
    (gradient_KP,) = torch.autograd.grad(-value, theta_KP)
    assert torch.allclose(found_KP, gradient_KP, rtol=1e-9)
