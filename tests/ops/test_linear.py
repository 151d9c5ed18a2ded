"""Flat vectors, conjugate gradient, and the two Fisher products against each other."""

from __future__ import annotations

import gc
import weakref

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from lineal.errors import LinealError
from lineal.models.decoder import PRESETS, Decoder
from lineal.ops.linear import (
    conjugate_gradient,
    dense_matrix,
    flat_gradient,
    flatten,
    gauss_newton_product,
    gaussian_metric,
    head_metric,
    kl_fisher_product,
    softmax_metric,
    unflatten_like,
)
from lineal.ops.logprob import exact_kl

seeds = st.integers(0, 2**31)


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def positive_definite(size: int, seed: int) -> Tensor:
    root = draw(size, size, seed=seed)
    return root @ root.T / size + 0.1 * torch.eye(size, dtype=torch.float64)


class Policy(nn.Module):
    """One causal attention layer over tokens, on the default (fused) kernel, with an untied output layer."""

    def __init__(self, vocabulary: int = 5, width: int = 8, seed: int = 0):
        super().__init__()
        self.embedding = nn.Parameter(draw(vocabulary, width, seed=seed))
        self.qkv = nn.Parameter(draw(3 * width, width, seed=seed + 1) / width**0.5)
        self.head = nn.Parameter(draw(vocabulary, width, seed=seed + 2))
        self.unused = nn.Parameter(draw(3, seed=seed + 3))

    def hidden(self, token_BT: Tensor) -> Tensor:
        x_BTD = self.embedding[token_BT]
        query, key, value = (x_BTD @ self.qkv.T).unsqueeze(1).chunk(3, -1)
        mixed = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        return torch.tanh(x_BTD + mixed[:, 0]).flatten(0, 1)

    def forward(self, token_BT: Tensor) -> Tensor:
        return self.hidden(token_BT) @ self.head.T


@pytest.fixture
def policy() -> Policy:
    return Policy()


TOKENS = torch.randint(5, (6, 4), generator=torch.Generator().manual_seed(7))
STEPS = TOKENS.numel()


def self_kl(policy: nn.Module, rows: Tensor, steps: int = STEPS) -> Tensor:
    logits = policy(rows)
    return exact_kl(logits.detach(), logits).sum() / steps


def kl_parts(policy: nn.Module, cut: int = 6):
    return [lambda rows=rows: self_kl(policy, rows) for rows in TOKENS.split(cut)]


def logit_parts(policy: Policy, cut: int = 6):
    def part(rows: Tensor):
        logits = policy(rows)
        return [logits], softmax_metric(logits, logits.new_full((len(logits),), 1 / STEPS))

    return [lambda rows=rows: part(rows) for rows in TOKENS.split(cut)]


# --- flat vectors


@given(st.lists(st.lists(st.integers(0, 3), max_size=3), min_size=1, max_size=5), seeds)
def test_unflatten_is_the_inverse_of_flatten(shapes: list[list[int]], seed: int):
    tensors = [
        draw(*shape, seed=seed + i) if shape else draw(1, seed=seed)[0] for i, shape in enumerate(shapes)
    ]
    vector = flatten(tensors)
    back = unflatten_like(vector, tensors)
    assert [t.shape for t in back] == [t.shape for t in tensors]
    assert all(torch.equal(a, b) for a, b in zip(back, tensors))
    assert vector.numel() == sum(t.numel() for t in tensors)


def test_unflatten_gives_each_tensor_its_own_dtype():
    tensors = [torch.zeros(2), torch.zeros(3, dtype=torch.bfloat16)]
    assert [piece.dtype for piece in unflatten_like(torch.ones(5), tensors)] == [
        torch.float32,
        torch.bfloat16,
    ]


def test_unflatten_refuses_a_vector_of_another_length():
    with pytest.raises(LinealError, match="5 numbers cannot fill tensors of 4"):
        unflatten_like(torch.zeros(5), [torch.zeros(2, 2)])


def test_flat_gradient_adds_up_micro_batches_and_leaves_grad_alone(policy: Policy):
    parameters = list(policy.parameters())
    parts = [lambda rows=rows: policy(rows).square().sum() for rows in TOKENS.split(2)]
    vector = flat_gradient(parts, parameters)
    whole = torch.autograd.grad(policy(TOKENS).square().sum(), parameters, materialize_grads=True)
    torch.testing.assert_close(vector, flatten(whole), rtol=1e-12, atol=1e-12)
    assert all(parameter.grad is None for parameter in parameters)
    assert not vector.requires_grad


# --- conjugate gradient


@given(st.integers(1, 12), seeds)
def test_conjugate_gradient_is_the_direct_solution_after_as_many_steps_as_unknowns(size: int, seed: int):
    matrix, b = positive_definite(size, seed), draw(size, seed=seed + 1)
    x, residual = conjugate_gradient(lambda v: matrix @ v, b, iterations=3 * size, tolerance=1e-14)
    torch.testing.assert_close(x, torch.linalg.solve(matrix, b), rtol=1e-9, atol=1e-9)
    assert residual <= 1e-9


@given(st.integers(2, 12), st.integers(1, 6), seeds)
def test_the_residual_is_the_true_one(size: int, iterations: int, seed: int):
    matrix, b = positive_definite(size, seed), draw(size, seed=seed + 1)
    x, residual = conjugate_gradient(lambda v: matrix @ v, b, iterations)
    assert residual == pytest.approx(float((b - matrix @ x).norm() / b.norm()), abs=1e-9)


def test_the_error_shrinks_with_every_iteration_in_the_norm_of_the_matrix():
    matrix, b = positive_definite(30, 3), draw(30, seed=4)
    exact = torch.linalg.solve(matrix, b)
    errors = []
    for iterations in range(1, 12):
        gap = conjugate_gradient(lambda v: matrix @ v, b, iterations)[0] - exact
        errors.append(float(gap @ matrix @ gap))
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.1 * errors[0]


def test_it_stops_at_the_tolerance_and_takes_no_more_products():
    products = []

    def matvec(v: Tensor) -> Tensor:
        products.append(v)
        return 2 * v

    x, residual = conjugate_gradient(matvec, draw(7), iterations=50)
    assert len(products) == 1
    assert residual < 1e-15
    torch.testing.assert_close(x, draw(7) / 2)


def test_nothing_to_solve_gives_zero_without_a_product():
    def matvec(v: Tensor) -> Tensor:
        raise AssertionError("asked for a product")

    x, residual = conjugate_gradient(matvec, torch.zeros(4))
    assert torch.equal(x, torch.zeros(4))
    assert residual == 0


@pytest.mark.parametrize("bad", [-1.0, float("nan"), float("inf"), 0.0])
def test_a_direction_without_positive_curvature_ends_it_with_what_was_reached(bad: float):
    diagonal = torch.tensor([1.0, 2.0, bad], dtype=torch.float64)
    x, _ = conjugate_gradient(lambda v: diagonal * v, torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64))
    assert torch.equal(x, torch.zeros(3, dtype=torch.float64))
    b = torch.tensor([5.0, 5.0, 1e-3], dtype=torch.float64)
    if bad < 0:
        partial, residual = conjugate_gradient(lambda v: diagonal * v, b, iterations=10)
        assert torch.isfinite(partial).all()
        assert float(partial @ b) > 0
        assert residual > 0


def test_a_right_hand_side_that_is_not_finite_moves_nothing():
    x, residual = conjugate_gradient(lambda v: v, torch.tensor([1.0, float("nan")]))
    assert torch.equal(x, torch.zeros(2))
    assert residual != residual or residual == 0


def test_dense_matrix_is_the_matrix():
    matrix = positive_definite(6, 1)
    torch.testing.assert_close(dense_matrix(lambda v: matrix @ v, draw(6)), matrix)


# --- Fisher products


def test_both_products_agree_on_attention_under_the_default_kernel(policy: Policy):
    parameters = list(policy.parameters())
    vector = draw(len(flatten(parameters)), seed=9)
    doubled = kl_fisher_product(kl_parts(policy), parameters)(vector)
    gauss_newton = gauss_newton_product(logit_parts(policy), parameters)(vector)
    assert float(doubled.norm()) > 1e-3
    torch.testing.assert_close(doubled, gauss_newton, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("layout", sorted(PRESETS))
def test_both_products_agree_on_every_decoder_layout(layout: str):
    grouped = {} if layout in ("gpt2", "openai-gpt") else {"kv_heads": 1}
    config = PRESETS[layout](vocab_size=5, width=8, layers=2, heads=2, inner=32, context=8, **grouped)
    decoder = Decoder(config).initialise(0).double().eval()
    with torch.no_grad():
        for parameter in decoder.parameters():
            parameter.add_(0.3 * draw(*parameter.shape, seed=parameter.numel()))
    parameters = list(decoder.parameters())

    def hidden() -> Tensor:
        return decoder(TOKENS).flatten(0, 1)

    def kl() -> Tensor:
        logits = decoder.logits(hidden())
        return exact_kl(logits.detach(), logits).mean()

    def part():
        outputs = [hidden(), decoder.head_weight]
        share = torch.full((STEPS,), 1 / STEPS, dtype=torch.float64)
        return outputs, head_metric(outputs[0], outputs[1], share, chunk=5)

    vector = draw(len(flatten(parameters)), seed=9)
    doubled = kl_fisher_product([kl], parameters)(vector)
    torch.testing.assert_close(
        doubled, gauss_newton_product([part], parameters)(vector), rtol=1e-9, atol=1e-11
    )


@pytest.mark.parametrize("keep_bytes", [0, 3000, 1 << 30])
@pytest.mark.parametrize("cut", [1, 2, 6])
def test_neither_the_cut_nor_what_is_kept_changes_a_product(policy: Policy, cut: int, keep_bytes: int):
    parameters = list(policy.parameters())
    vector = draw(len(flatten(parameters)), seed=9)
    expected = gauss_newton_product(logit_parts(policy), parameters)(vector)
    products = (
        kl_fisher_product(kl_parts(policy, cut), parameters, keep_bytes=keep_bytes),
        gauss_newton_product(logit_parts(policy, cut), parameters, keep_bytes=keep_bytes),
    )
    for product in products:
        for _ in range(2):
            torch.testing.assert_close(product(vector), expected, rtol=1e-10, atol=1e-12)


def test_graphs_are_kept_within_the_bytes_allowed_and_the_rest_recomputed(policy: Policy):
    parameters = list(policy.parameters())
    vector = draw(len(flatten(parameters)), seed=9)

    def calls(keep_bytes: int, products: int = 3) -> list[int]:
        counts = [0] * 6

        def counted(index: int, rows: Tensor) -> Tensor:
            counts[index] += 1
            return self_kl(policy, rows)

        kls = [lambda i=i, rows=rows: counted(i, rows) for i, rows in enumerate(TOKENS.split(1))]
        product = kl_fisher_product(kls, parameters, keep_bytes=keep_bytes)
        for _ in range(products):
            product(vector)
        return counts

    assert calls(0) == calls(1) == [3] * 6
    assert calls(1 << 30) == [1] * 6
    some = calls(20_000)
    assert some[0] == 1
    assert some[-1] == 3
    assert sorted(some) == some


class Witness:
    """Lives as long as the graph that it is tied to."""


class Tied(torch.autograd.Function):
    """The identity, whose node in the graph holds a witness."""

    @staticmethod
    def forward(ctx, x: Tensor, witness: Witness) -> Tensor:
        ctx.witness = witness
        return x.clone()

    @staticmethod
    def backward(ctx, *slopes: Tensor):
        return slopes[0], None


@pytest.mark.parametrize("kept", [True, False])
def test_kept_graphs_live_and_die_with_their_product(policy: Policy, kept: bool):
    alive: list[weakref.ref] = []

    def kl() -> Tensor:
        witness = Witness()
        alive.append(weakref.ref(witness))
        hidden: Tensor = Tied.apply(policy.hidden(TOKENS), witness)  # type: ignore[assignment]
        # tanh saves its own output, which must not keep the graph alive by itself.
        logits = torch.tanh(hidden) @ policy.head.T
        return exact_kl(logits.detach(), logits).mean()

    product = kl_fisher_product([kl], list(policy.parameters()), keep_bytes=(1 << 30) * kept)
    product(draw(len(flatten(list(policy.parameters())))))
    gc.collect()
    assert (alive[0]() is not None) == kept
    del product
    gc.collect()
    assert alive[0]() is None


def test_a_checkpointed_and_chunked_kl_gives_the_same_product(policy: Policy):
    parameters = list(policy.parameters())

    def head(hidden: Tensor) -> Tensor:
        logits = hidden @ policy.head.T
        return exact_kl(logits.detach(), logits).sum()

    def kl() -> Tensor:
        pieces = policy.hidden(TOKENS).split(5)
        return torch.stack([checkpoint(head, piece, use_reentrant=False) for piece in pieces]).sum() / STEPS

    vector = draw(len(flatten(parameters)), seed=9)
    expected = kl_fisher_product(kl_parts(policy), parameters)(vector)
    for keep_bytes in (0, 1 << 30):
        product = kl_fisher_product([kl], parameters, keep_bytes=keep_bytes)
        torch.testing.assert_close(product(vector), expected, rtol=1e-10, atol=1e-12)


def test_the_product_is_symmetric_positive_and_zero_where_a_parameter_has_no_say(policy: Policy):
    parameters = list(policy.parameters())
    product = gauss_newton_product(logit_parts(policy), parameters)
    u, v = (draw(len(flatten(parameters)), seed=s) for s in (1, 2))
    assert float(u @ product(v)) == pytest.approx(float(v @ product(u)), rel=1e-10)
    assert float(u @ product(u)) > 0
    unused = unflatten_like(product(v), parameters)[-1]
    assert torch.equal(unused, torch.zeros_like(unused))


def test_a_product_is_refused_once_its_parameters_have_moved(policy: Policy):
    product = gauss_newton_product(logit_parts(policy), [policy.qkv])
    vector = draw(policy.qkv.numel())
    product(vector)
    with torch.no_grad():
        policy.qkv.mul_(2)
    with pytest.raises(LinealError, match="make a new product"):
        product(vector)


def test_over_unused_parameters_alone_both_products_are_zero(policy: Policy):
    for product in (
        kl_fisher_product(kl_parts(policy), [policy.unused]),
        gauss_newton_product(logit_parts(policy), [policy.unused]),
    ):
        assert torch.equal(product(draw(3)), torch.zeros(3, dtype=torch.float64))


def test_a_subset_of_parameters_has_its_own_block_of_the_matrix(policy: Policy):
    parameters = list(policy.parameters())
    whole = dense_matrix(kl_fisher_product(kl_parts(policy), parameters), flatten(parameters).detach())
    start = policy.embedding.numel()
    block = slice(start, start + policy.qkv.numel())
    for product in (
        kl_fisher_product(kl_parts(policy), [policy.qkv]),
        gauss_newton_product(logit_parts(policy), [policy.qkv]),
    ):
        part = dense_matrix(product, policy.qkv.detach().flatten())
        torch.testing.assert_close(part, whole[block, block], rtol=1e-10, atol=1e-12)


# --- metrics


@given(st.integers(1, 7), st.floats(0.3, 3.0), seeds)
def test_the_heads_metric_is_the_logits_metric_pulled_back(chunk: int, temperature: float, seed: int):
    hidden, weight, share = draw(6, 4, seed=seed), draw(5, 4, seed=seed + 1), draw(6, seed=seed + 2).exp()
    parameters = [hidden.requires_grad_(), weight.requires_grad_()]

    def by_logits():
        logits = hidden @ weight.T / temperature
        return [logits], softmax_metric(logits, share)

    def by_head():
        return [hidden, weight], head_metric(hidden, weight, share, temperature, chunk)

    def by_hidden():
        return [hidden], head_metric(hidden, weight, share, temperature, chunk)

    vector = draw(44, seed=seed + 3)
    expected = gauss_newton_product([by_logits], parameters)(vector)
    actual = gauss_newton_product([by_head], parameters)(vector)
    torch.testing.assert_close(actual, expected, rtol=1e-9, atol=1e-11)
    frozen = gauss_newton_product([by_hidden], [hidden])(vector[:24])
    torch.testing.assert_close(
        frozen, gauss_newton_product([by_logits], [hidden])(vector[:24]), rtol=1e-9, atol=1e-11
    )


def test_the_gaussian_metric_is_the_hessian_of_the_gaussians_kl():
    state, matrix, log_std = draw(5, 3), draw(2, 3, seed=1), 0.3 * draw(2, seed=2)
    parameters = [matrix.requires_grad_(), log_std.requires_grad_()]
    share = torch.full((5,), 0.2, dtype=torch.float64)

    def kl() -> Tensor:
        mean, old_mean, old_std = state @ matrix.T, (state @ matrix.T).detach(), log_std.detach()
        square = (2 * old_std).exp() + (old_mean - mean) ** 2
        return ((log_std - old_std + square / (2 * (2 * log_std).exp()) - 0.5).sum(-1) * share).sum()

    def part():
        outputs = [state @ matrix.T, log_std.expand(5, 2)]
        return outputs, gaussian_metric(outputs[1], share)

    like = flatten(parameters).detach()
    explicit = dense_matrix(gauss_newton_product([part], parameters), like)
    torch.testing.assert_close(dense_matrix(kl_fisher_product([kl], parameters), like), explicit)
    torch.testing.assert_close(explicit[-2:, -2:], 2 * torch.eye(2, dtype=torch.float64))


def test_half_precision_parameters_get_a_product_in_the_vectors_precision():
    weight = draw(3, 2).to(torch.bfloat16).requires_grad_()
    logits = (torch.ones(4, 2, dtype=torch.bfloat16) @ weight.T).float()
    product = gauss_newton_product([lambda: ([logits], softmax_metric(logits, torch.ones(4)))], [weight])
    assert product(torch.ones(6)).dtype == torch.float32
