"""TRPO's step and the plain natural-gradient step: what is accepted, what is refused, what is left behind."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from lineal.errors import LinealError, UsageError
from lineal.objectives.step import NaturalGradient, TrustRegion
from lineal.ops.linear import flat_gradient, flatten, gauss_newton_product, softmax_metric
from lineal.ops.logprob import exact_kl, gather_logp
from lineal.optim.natural import (
    StepReport,
    kl_fisher_product,
    natural_gradient_step,
    sum_of_parts,
    trust_region_step,
)

NAN, INF = math.nan, math.inf


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def bits(parameters: Sequence[Tensor]) -> Tensor:
    """The bit patterns: -0.0 is not 0.0, and a nan equals itself."""
    whole = flatten(parameters).detach()
    return whole.view(torch.int64 if whole.dtype == torch.float64 else torch.int32).clone()


class Policy(nn.Module):
    """Two causal attention layers over tokens, on whatever kernel is the default."""

    def __init__(self, vocabulary: int = 6, width: int = 16, seed: int = 0):
        super().__init__()
        self.embedding = nn.Parameter(draw(vocabulary, width, seed=seed))
        shape = (3 * width, width)
        self.qkv = nn.ParameterList([draw(*shape, seed=seed + i) / width**0.5 for i in (1, 2)])
        self.head = nn.Parameter(draw(vocabulary, width, seed=seed + 3) / width**0.5)

    def forward(self, token_BT: Tensor) -> Tensor:
        x_BTD = self.embedding[token_BT]
        for weight in self.qkv:
            query, key, value = (x_BTD @ weight.T).unflatten(-1, (3, 2, 8)).permute(2, 0, 3, 1, 4).unbind(0)
            mixed = F.scaled_dot_product_attention(query, key, value, is_causal=True)
            x_BTD = torch.tanh(x_BTD + mixed.transpose(1, 2).flatten(-2))
        return x_BTD @ self.head.T


class Task:
    """Sequences with an advantage for each token: everything that a step needs, cut into micro-batches."""

    def __init__(self, policy: Policy, cut: int = 12, dtype: torch.dtype = torch.float64):
        self.policy, self.cut = policy.to(dtype), cut
        self.parameters: list[Tensor] = list(policy.parameters())
        generator = torch.Generator().manual_seed(3)
        self.token_BT = torch.randint(6, (12, 5), generator=generator)
        self.action_BT = torch.randint(6, (12, 5), generator=generator)
        self.advantage_BT = torch.randn(12, 5, generator=generator, dtype=torch.float64).to(dtype)
        with torch.no_grad():
            self.old_BTV = policy(self.token_BT).log_softmax(-1)

    def shares(self, rows: slice) -> tuple[Tensor, Tensor]:
        logits_BTV = self.policy(self.token_BT[rows])
        old_BTV, action_BT = self.old_BTV[rows], self.action_BT[rows]
        old_BT = old_BTV.gather(-1, action_BT[..., None])[..., 0]
        ratio_BT = (gather_logp(logits_BTV, action_BT) - old_BT).exp()
        kl = exact_kl(old_BTV, logits_BTV).sum() / 60
        return (ratio_BT * self.advantage_BT[rows]).sum() / 60, kl

    def rows(self) -> list[slice]:
        return [slice(i, i + self.cut) for i in range(0, 12, self.cut)]

    def step(
        self, rule: TrustRegion | NaturalGradient, gauss_newton: bool = False, **options: Any
    ) -> StepReport:
        parameters = self.parameters

        def part(rows: slice):
            logits = self.policy(self.token_BT[rows]).flatten(0, 1)
            return [logits], softmax_metric(logits, logits.new_full((len(logits),), 1 / 60))

        if gauss_newton:
            product = gauss_newton_product([lambda r=r: part(r) for r in self.rows()], parameters, **options)
        else:
            kls = [lambda r=r: self.shares(r)[1] for r in self.rows()]
            product = kl_fisher_product(kls, parameters, **options)
        gradient = flat_gradient([lambda r=r: self.shares(r)[0] for r in self.rows()], parameters)
        evaluate = sum_of_parts([lambda r=r: self.shares(r) for r in self.rows()])
        step = trust_region_step if isinstance(rule, TrustRegion) else natural_gradient_step
        return step(parameters, gradient, product, evaluate, rule)  # type: ignore[arg-type]


# --- on a transformer


@pytest.mark.parametrize("gauss_newton", [True, False])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_trpo_moves_a_transformer_within_the_kl_and_uphill(gauss_newton: bool, dtype: torch.dtype):
    task = Task(Policy(), dtype=dtype)
    before = bits(task.parameters)
    report = task.step(TrustRegion(max_kl=0.01), gauss_newton)
    surrogate, kl = (float(x.detach()) for x in task.shares(slice(0, 12)))
    assert report.accepted
    assert report.reason == ""
    assert report.improvement > 0
    assert 0 < report.kl <= 0.01
    assert report.kl == pytest.approx(kl, rel=1e-4)
    assert report.expected_kl == pytest.approx(0.01 * report.step_scale**2)
    assert 0.2 < report.kl / report.expected_kl < 5
    assert 0.2 < report.improvement / report.expected_improvement < 5
    assert 0 < report.cg_residual < 0.5
    # L(old) is the mean advantage: every ratio is 1.
    assert report.improvement == pytest.approx(surrogate - float(task.advantage_BT.mean()), rel=1e-3)
    assert not torch.equal(bits(task.parameters), before)


@pytest.mark.parametrize("cut", [1, 5])
@pytest.mark.parametrize("gauss_newton", [True, False])
@pytest.mark.parametrize("keep_bytes", [0, 1 << 30])
def test_the_step_does_not_depend_on_how_the_batch_is_cut(cut: int, gauss_newton: bool, keep_bytes: int):
    whole, parts = Task(Policy()), Task(Policy(), cut)
    expected = whole.step(TrustRegion())
    report = parts.step(TrustRegion(), gauss_newton, keep_bytes=keep_bytes)
    torch.testing.assert_close(flatten(parts.parameters), flatten(whole.parameters), rtol=1e-9, atol=1e-10)
    assert report.kl == pytest.approx(expected.kl, rel=1e-8)
    assert report.cg_residual == pytest.approx(expected.cg_residual, rel=1e-6)


def test_a_subset_moves_alone():
    task = Task(Policy())
    others = [task.policy.embedding, task.policy.head]
    before = bits(others)
    task.parameters = [task.policy.qkv[1]]
    report = task.step(TrustRegion(max_kl=1e-3))
    assert report.accepted
    assert torch.equal(bits(others), before)


def test_more_iterations_leave_a_smaller_residual_and_promise_more():
    reports = [Task(Policy()).step(TrustRegion(cg_iterations=n, damping=0.01)) for n in (1, 3, 10, 60)]
    residuals = [report.cg_residual for report in reports]
    gains = [report.expected_improvement / report.step_scale for report in reports]
    assert residuals[-1] < 1e-6
    assert residuals[0] > 10 * residuals[2]
    assert gains == sorted(gains)


def test_trpo_learns_the_best_text():
    """V = 3, T = 4: from uniform to the rewarded text, by exact objectives; each step keeps its promise."""
    logits_SV = torch.zeros(40, 3, dtype=torch.float64, requires_grad=True)
    reward_B = torch.zeros(81, dtype=torch.float64)
    reward_B[0], reward_B[40] = 1.0, 0.5
    text_BT = torch.cartesian_prod(*[torch.arange(3)] * 4)
    place_BT = torch.stack(
        [(text_BT[:, :t] * 3 ** torch.arange(t)).sum(1) + (3**t - 1) // 2 for t in range(4)], 1
    )
    values = []
    while len(values) < 12 and (not values or values[-1] < 0.99):
        with torch.no_grad():
            old_BTV = logits_SV[place_BT].log_softmax(-1)
            old_BT = old_BTV.gather(-1, text_BT[..., None])[..., 0]
            chance_B = old_BT.sum(1).exp()
            advantage_B = reward_B - chance_B @ reward_B
        values.append(float(chance_B @ reward_B))

        def shares() -> tuple[Tensor, Tensor]:
            now_BTV = logits_SV[place_BT]
            ratio_BT = (gather_logp(now_BTV, text_BT) - old_BT).exp()  # noqa: B023
            kl_BT = exact_kl(old_BTV, now_BTV)  # noqa: B023
            weight_B1 = chance_B[:, None] / 4  # noqa: B023
            return (weight_B1 * ratio_BT * advantage_B[:, None]).sum(), (weight_B1 * kl_BT).sum()  # noqa: B023

        gradient = flat_gradient([lambda: shares()[0]], [logits_SV])
        product = kl_fisher_product([lambda: shares()[1]], [logits_SV])
        report = trust_region_step(
            [logits_SV], gradient, product, shares, TrustRegion(max_kl=0.03, damping=1e-4)
        )
        assert report.accepted
        assert report.kl <= 0.03
    assert values[0] == pytest.approx(1.5 / 81)
    assert values[-1] > 0.99
    assert values == sorted(values)


# --- what is accepted


class Scripted:
    """A step on two numbers with F = diag(4, 1): L and the KL of each trial are whatever the test says."""

    def __init__(self, values: list[tuple[float, float]], start: tuple[float, float] = (0.0, 0.0)):
        self.parameter = torch.tensor([-0.0, 1.5], dtype=torch.float64, requires_grad=True)
        self.values, self.tried = [start, *values], []
        self.products = 0

    def product(self, vector: Tensor) -> Tensor:
        self.products += 1
        return torch.tensor([4.0, 1.0], dtype=torch.float64) * vector

    def evaluate(self) -> tuple[float, float]:
        assert not torch.is_grad_enabled()
        self.tried.append(self.parameter.detach().clone())
        return self.values[min(len(self.tried), len(self.values)) - 1]

    def run(self, gradient: list[float] | None = None, **options: Any) -> StepReport:
        g = torch.tensor(gradient or [4.0, 1.0], dtype=torch.float64)
        chosen: dict[str, Any] = {"damping": 0.0} | options
        rule = TrustRegion(max_kl=0.1, **chosen)
        return trust_region_step([self.parameter], g, self.product, self.evaluate, rule)


def test_the_full_step_has_the_length_of_the_undamped_fisher():
    case = Scripted([(1.0, 0.05)])
    report = case.run(damping=2.0)
    step = case.parameter.detach() - torch.tensor([0.0, 1.5], dtype=torch.float64)
    direction = torch.tensor([4 / 6, 1 / 3], dtype=torch.float64)
    assert float(step @ (torch.tensor([4.0, 1.0]).double() * step)) == pytest.approx(2 * 0.1)
    torch.testing.assert_close(step / step.norm(), direction / direction.norm())
    assert report.accepted
    assert (report.step_scale, report.kl, report.improvement, report.backtracks) == (1.0, 0.05, 1.0, 0)
    assert report.expected_kl == pytest.approx(0.1)
    assert report.expected_improvement == pytest.approx(float(4 * step[0] + step[1]))
    assert report.cg_residual == pytest.approx(0.0, abs=1e-12)


def test_it_shrinks_until_both_conditions_hold_and_keeps_exactly_that_step():
    # Too far; uphill but too far; near enough but downhill; not finite; good.
    case = Scripted([(5.0, 0.3), (4.0, 0.1001), (-1.0, 0.05), (NAN, 0.01), (0.5, 0.1)])
    report = case.run()
    assert report.accepted
    assert (report.backtracks, report.step_scale) == (4, 0.5**4)
    assert (report.improvement, report.kl) == (0.5, 0.1)
    assert report.expected_kl == pytest.approx(0.1 / 4**4)
    start, full = case.tried[0], case.tried[1] - case.tried[0]
    assert torch.equal(case.parameter.detach(), case.tried[-1])
    torch.testing.assert_close(case.parameter.detach(), start + full / 16)


REFUSALS = {
    "always downhill": ([(-1.0, 0.01)], "changes L by -1"),
    "no improvement at all": ([(0.0, 0.01)], "which is no improvement"),
    "always too far": ([(1.0, 0.2)], "still has a KL of 0.2, above 0.1"),
    "nan surrogate": ([(NAN, 0.01)], "changes L by nan"),
    "infinite surrogate": ([(INF, 0.01)], "changes L by inf"),
    "nan kl": ([(1.0, NAN)], "KL of nan"),
    "infinite kl": ([(1.0, INF)], "KL of inf"),
    "minus infinite kl": ([(1.0, -INF)], "KL of -inf"),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_a_refused_step_leaves_every_bit(name: str):
    values, why = REFUSALS[name]
    case = Scripted(values)
    before = bits([case.parameter])
    report = case.run(max_backtracks=3)
    assert not report.accepted
    assert why in report.reason
    assert torch.equal(bits([case.parameter]), before)
    assert math.copysign(1, float(case.parameter.detach()[0])) == -1
    assert report.backtracks == 3
    assert len(case.tried) == 1 + 4
    assert len({tuple(trial.tolist()) for trial in case.tried}) == 5
    assert report.step_scale == 0.5**3


@pytest.mark.parametrize("gradient", [[NAN, 1.0], [INF, 1.0], [0.0, 0.0]])
def test_a_gradient_without_a_direction_is_refused_before_anything_is_asked(gradient: list[float]):
    case = Scripted([(1.0, 0.01)])
    before = bits([case.parameter])
    report = case.run(gradient)
    assert not report.accepted
    assert report.reason.startswith("the gradient's norm is")
    assert report.step_scale == 0
    assert case.products == len(case.tried) == 0
    assert torch.equal(bits([case.parameter]), before)


@pytest.mark.parametrize("start", [(NAN, 0.0), (0.0, NAN), (INF, 0.0)])
def test_a_start_that_is_not_finite_is_refused(start: tuple[float, float]):
    case = Scripted([(1.0, 0.01)], start)
    before = bits([case.parameter])
    report = case.run()
    assert not report.accepted
    assert "before the step" in report.reason
    assert len(case.tried) == 1
    assert torch.equal(bits([case.parameter]), before)


@pytest.mark.parametrize("factor", [NAN, INF, -1.0, 0.0])
@pytest.mark.parametrize("exact", [None, False, True])
def test_a_fisher_matrix_that_is_none_is_refused(factor: float, exact: bool | None):
    case = Scripted([(1.0, 0.01)])
    before = bits([case.parameter])
    arguments = [case.parameter], torch.ones(2).double(), lambda v: factor * v, case.evaluate
    if exact is None:
        report = trust_region_step(*arguments, TrustRegion(damping=0.1))
    else:
        report = natural_gradient_step(*arguments, NaturalGradient(exact=exact, damping=0.1))
    assert not report.accepted
    assert report.reason
    assert torch.equal(bits([case.parameter]), before)
    assert case.tried == []


def test_an_error_during_the_search_puts_the_parameters_back():
    case = Scripted([])
    before = bits([case.parameter])

    def evaluate() -> tuple[float, float]:
        case.tried.append(case.parameter.detach().clone())
        if len(case.tried) == 2:
            raise MemoryError("too long a sequence")
        return 0.0, 0.0

    with pytest.raises(MemoryError):
        trust_region_step([case.parameter], torch.ones(2).double(), case.product, evaluate, TrustRegion())
    assert not torch.equal(case.tried[1], case.tried[0])
    assert torch.equal(bits([case.parameter]), before)


def test_a_nan_parameter_keeps_its_bits():
    parameter = torch.tensor([NAN, -0.0, 5e-324], dtype=torch.float64, requires_grad=True)
    before = bits([parameter])
    report = trust_region_step(
        [parameter], torch.ones(3).double(), lambda v: v, lambda: (float(parameter.sum()), 0.0), TrustRegion()
    )
    assert not report.accepted
    assert torch.equal(bits([parameter]), before)


@given(st.integers(0, 10_000), st.floats(1e-4, 1.0), st.floats(-3, 3))
@settings(max_examples=30)
def test_a_step_keeps_its_promise_or_changes_nothing(seed: int, max_kl: float, curl: float):
    """A surrogate that may contradict its own gradient: accepted steps hold both conditions, others leave no trace."""
    logits = draw(4, 3, seed=seed).requires_grad_()
    old, advantage = logits.detach().clone(), draw(4, 3, seed=seed + 1)
    before = bits([logits])

    def shares() -> tuple[Tensor, Tensor]:
        change = logits.softmax(-1) - old.softmax(-1)
        return (change * advantage).sum() - 10 * curl * change.square().sum(), exact_kl(old, logits).mean()

    gradient = flat_gradient([lambda: shares()[0]], [logits])
    product = kl_fisher_product([lambda: shares()[1]], [logits])
    report = trust_region_step([logits], gradient, product, shares, TrustRegion(max_kl, max_backtracks=4))
    value, kl = (float(x.detach()) for x in shares())
    if report.accepted:
        assert (value, kl) == (pytest.approx(report.improvement), pytest.approx(report.kl))
        assert value > 0
        assert kl <= max_kl
    else:
        assert torch.equal(bits([logits]), before)


# --- the plain natural gradient


def test_the_natural_step_is_taken_without_a_search():
    """Downhill and too far, and yet taken: there is no line search to stop it."""
    case = Scripted([(-1.0, 9.0)])
    rule = NaturalGradient(max_kl=0.1, exact=True, damping=0.0)
    report = natural_gradient_step(
        [case.parameter], torch.tensor([4.0, 1.0]).double(), case.product, case.evaluate, rule
    )
    assert report.accepted
    assert (report.improvement, report.kl, report.backtracks) == (-1.0, 9.0, 0)
    assert float(case.parameter.detach()[1]) > 1.5


@pytest.mark.parametrize("after", [(NAN, 0.1), (1.0, INF)])
def test_a_natural_step_into_nowhere_is_put_back(after: tuple[float, float]):
    case = Scripted([after])
    before = bits([case.parameter])
    report = natural_gradient_step(
        [case.parameter], torch.ones(2).double(), case.product, case.evaluate, NaturalGradient()
    )
    assert not report.accepted
    assert torch.equal(bits([case.parameter]), before)


def test_truncated_and_exact_differ_where_conjugate_gradient_is_cut_short():
    changes = {}
    for rule in (
        NaturalGradient(exact=True, damping=0.01),
        NaturalGradient(cg_iterations=200, damping=0.01),
        NaturalGradient(cg_iterations=2, damping=0.01),
    ):
        task = Task(Policy(width=16))
        task.parameters = [task.policy.head]
        start = task.policy.head.detach().clone()
        report = task.step(rule)
        changes[rule.exact, rule.cg_iterations] = task.policy.head.detach() - start
        assert report.accepted
    exact, long, short = changes.values()
    torch.testing.assert_close(long, exact, rtol=1e-6, atol=1e-9)
    assert not torch.allclose(short, exact, rtol=1e-2)


def test_a_singular_fisher_matrix_gets_the_step_of_least_norm():
    """Adding a constant to all logits changes nothing: the step has no such part."""
    logits = draw(3, 4).requires_grad_()
    old = logits.detach().clone()
    product = kl_fisher_product([lambda: exact_kl(old, logits).mean()], [logits])
    gradient = flat_gradient([lambda: logits.softmax(-1)[:, 0].sum()], [logits])

    def evaluate() -> tuple[Tensor, Tensor]:
        return logits.softmax(-1)[:, 0].sum(), exact_kl(old, logits).mean()

    report = natural_gradient_step(
        [logits], gradient, product, evaluate, NaturalGradient(1e-4, exact=True, damping=0.0)
    )
    assert report.accepted
    assert report.kl == pytest.approx(1e-4, rel=0.05)
    drift = (logits.detach() - old).sum(-1)
    torch.testing.assert_close(drift, torch.zeros(3).double(), rtol=0, atol=1e-10)


# --- several processes, and what is refused


def test_two_processes_with_half_the_batch_each_take_the_step_of_one():
    whole = Task(Policy())
    expected = whole.step(TrustRegion())
    barrier, slots, results = threading.Barrier(2), [torch.empty(0), torch.empty(0)], {}
    # The choice of attention kernel belongs to a whole process, so threads that play processes take turns.
    turn = threading.Lock()

    def wait() -> None:
        turn.release()
        barrier.wait(timeout=60)
        turn.acquire()

    def worker(rank: int) -> None:
        with turn:
            step(rank)

    def step(rank: int) -> None:
        def reduce(share: Tensor) -> Tensor:
            slots[rank] = share
            wait()
            total = slots[0] + slots[1]
            wait()
            return total

        task = Task(Policy(), cut=3)
        mine = task.rows()[rank::2]
        product = kl_fisher_product([lambda r=r: task.shares(r)[1] for r in mine], task.parameters)
        gradient = reduce(flat_gradient([lambda r=r: task.shares(r)[0] for r in mine], task.parameters))
        evaluate = sum_of_parts([lambda r=r: task.shares(r) for r in mine])
        results[rank] = (
            trust_region_step(task.parameters, gradient, product, evaluate, TrustRegion(), reduce=reduce),
            task.parameters,
        )

    threads = [threading.Thread(target=worker, args=(rank,)) for rank in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert results[0][0] == results[1][0]
    assert torch.equal(bits(results[0][1]), bits(results[1][1]))
    torch.testing.assert_close(flatten(results[0][1]), flatten(whole.parameters), rtol=1e-9, atol=1e-10)
    assert results[0][0].kl == pytest.approx(expected.kl, rel=1e-8)


def test_a_gradient_as_one_tensor_per_parameter_is_the_same():
    def run(shape: Callable[[Tensor, list[Tensor]], Tensor | list[Tensor]]) -> Tensor:
        parameters = [torch.zeros(2, 2).double().requires_grad_(), torch.zeros(3).double().requires_grad_()]
        trust_region_step(
            parameters,
            shape(torch.arange(7).double(), parameters),
            lambda v: v,
            lambda: (float(flatten(parameters).sum()), 0.0),
            TrustRegion(),
        )
        return flatten(parameters).detach()

    pieces = run(lambda vector, parameters: [vector[:4].view(2, 2), vector[4:]])
    assert torch.equal(run(lambda vector, parameters: vector), pieces)
    assert float(pieces.abs().sum()) > 0


def test_half_precision_parameters_are_stepped_with_single_precision_algebra():
    parameter = torch.ones(4, dtype=torch.bfloat16, requires_grad=True)
    seen = []

    def product(vector: Tensor) -> Tensor:
        seen.append(vector.dtype)
        return vector

    gradient = torch.ones(4, dtype=torch.bfloat16)
    report = trust_region_step(
        [parameter], gradient, product, lambda: (parameter.float().sum(), torch.zeros(())), TrustRegion(0.5)
    )
    assert report.accepted
    assert set(seen) == {torch.float32}
    assert parameter.dtype == torch.bfloat16


def test_what_cannot_be_stepped_is_refused_with_a_remedy():
    case = Scripted([(1.0, 0.01)])
    rule = TrustRegion()
    with pytest.raises(UsageError, match="no parameters"):
        trust_region_step([], torch.zeros(0), case.product, case.evaluate, rule)
    with pytest.raises(LinealError, match=r"shape \(3,\), the parameters that move hold 2"):
        trust_region_step([case.parameter], torch.ones(3), case.product, case.evaluate, rule)
    large = torch.zeros(5000, requires_grad=True)
    with pytest.raises(UsageError, match="exact=False"):
        natural_gradient_step(
            [large], torch.ones(5000), lambda v: v, case.evaluate, NaturalGradient(exact=True)
        )
    sharded = nn.Parameter(torch.zeros(2))
    sharded.device_mesh = "a mesh"  # type: ignore[attr-defined]
    with pytest.raises(UsageError, match="sharded"):
        trust_region_step([sharded], torch.ones(2), case.product, case.evaluate, rule)
