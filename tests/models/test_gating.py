"""Gating against its definitions in plain Python: what is refused, scores, noise, choices, weights, replay."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from lineal.errors import UsageError
from lineal.models.gating import ExpertsConfig, Gate, Routes, choose, weights

Score = st.floats(-30, 30, allow_nan=False)


def softmax(score: list[float]) -> list[float]:
    """exp(s_i) / sum exp(s_j)."""
    high = max(score)
    power = [math.exp(s - high) for s in score]
    return [p / sum(power) for p in power]


def softplus(x: float) -> float:
    """log(1 + exp x)."""
    return math.log1p(math.exp(x))


def dot(a: list[float], b: list[float]) -> float:
    """sum a_i b_i."""
    return sum(x * y for x, y in zip(a, b, strict=True))


def wide(rows: list) -> Tensor:
    """Rows in float64."""
    return torch.tensor(rows, dtype=torch.float64)


def drawn(*shape: int, seed: int = 0) -> Tensor:
    """Normal numbers of a seed."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def gate(width: int, count: int, noisy: bool, groups: int = 1) -> Gate:
    """A gate in float64 whose weights are not zero."""
    built = Gate(width, count, noisy, groups).double()
    with torch.no_grad():
        for seed, parameter in enumerate(built.parameters()):
            parameter.copy_(drawn(*parameter.shape, seed=seed))
    return built


def never() -> Tensor:
    """Noise that nobody should ask for."""
    raise AssertionError("noise was drawn where none is wanted")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"count": -1}, "count of experts must be at least 1; -1 was given."),
        ({"count": 4, "chosen": 0}, "chosen of experts must be at least 1; 0 was given."),
        ({"count": 4, "inner": 0}, "inner of experts must be at least 1; 0 was given."),
        ({"count": 4, "groups": 0}, "groups of experts must be at least 1; 0 was given."),
        ({"count": 4, "activation": "gelu"}, "activation 'gelu' is not one of swiglu, relu."),
        ({"count": 4, "gate": "hash"}, "gate 'hash' is not one of noisy_top_k, top_k, softmax."),
        ({"count": 4, "overflow": ""}, "overflow '' is not one of next, around."),
        ({"count": 9, "groups": 2}, "9 experts cannot be dealt evenly to 2 groups."),
        (
            {"count": 1},
            "each token should go to 2 of 1 experts: choose at most 1 (k is the number chosen), or make more.",
        ),
        (
            {"count": 12, "chosen": 4, "groups": 3},
            "each token should go to 4 of 3 groups of experts: choose at most 3 (k is the number chosen), "
            "or make more.",
        ),
        (
            {"count": 12, "chosen": 3, "groups": 6},
            "each token should go to 3 of 2 experts of a group: choose at most 2 (k is the number chosen), "
            "or make more.",
        ),
        (
            {"count": 4, "capacity": -0.5},
            "a capacity factor of -0.5 leaves the experts no room: it must be above 0 (1 is just enough when "
            "all are chosen equally often; None takes all tokens).",
        ),
        (
            {"count": 4, "gate": "softmax", "groups": 2},
            "a softmax gate uses every expert, so groups would save nothing: use groups=1.",
        ),
    ],
)
def test_a_refusal_says_what_to_do(options: dict, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        ExpertsConfig(**options)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("options", "active", "per_group", "levels"),
    [
        ({"count": 8}, 2, 8, ((8, "experts"),)),
        ({"count": 1, "chosen": 1}, 1, 1, ((1, "experts"),)),
        ({"count": 3, "chosen": 9, "gate": "softmax"}, 3, 3, ((3, "experts"),)),
        ({"count": 12, "groups": 3}, 4, 4, ((3, "groups of experts"), (4, "experts of a group"))),
        ({"count": 4, "groups": 2}, 4, 2, ((2, "groups of experts"), (2, "experts of a group"))),
    ],
)
def test_how_many_experts_compute_for_a_token(
    options: dict, active: int, per_group: int, levels: tuple
) -> None:
    config = ExpertsConfig(**options)
    assert (config.active, config.per_group, config.levels) == (active, per_group, levels)


def test_only_the_noisy_gate_is_noisy() -> None:
    names = ("noisy_top_k", "top_k", "softmax")
    assert [ExpertsConfig(4, gate=name).noisy for name in names] == [True, False, False]


def test_scores_are_x_times_the_weights() -> None:
    built, x_ND = gate(3, 4, noisy=False), drawn(5, 3, seed=7)
    assert built.noise is None
    clean_NE, noisy_NE, scale_NE = built(x_ND, never)
    expected = [[dot(w, x) for w in built.weight.tolist()] for x in x_ND.tolist()]
    torch.testing.assert_close(clean_NE, wide(expected))
    assert noisy_NE is clean_NE and scale_NE is None


def test_noise_is_added_only_where_it_is_asked_for() -> None:
    built, x_ND = gate(3, 4, noisy=True), drawn(5, 3, seed=7)
    assert built.noise is not None
    quiet_NE, same_NE, none = built(x_ND)
    assert same_NE is quiet_NE and none is None
    normal_NE = drawn(5, 4, seed=8)
    clean_NE, noisy_NE, scale_NE = built(x_ND, lambda: normal_NE)
    assert torch.equal(clean_NE, quiet_NE)
    scale = [[softplus(dot(w, x)) for w in built.noise.tolist()] for x in x_ND.tolist()]
    torch.testing.assert_close(scale_NE, wide(scale))
    torch.testing.assert_close(noisy_NE, quiet_NE + normal_NE * wide(scale))


def test_the_slope_of_the_noise_is_a_sigmoid() -> None:
    """d/dw of n softplus(w x) is n x sigmoid(w x); the quiet pass leaves the noise's weights alone."""
    built, x_ND, normal_NE = gate(2, 3, noisy=True), drawn(1, 2, seed=3), drawn(1, 3, seed=4)
    assert built.noise is not None
    (slope_ED,) = torch.autograd.grad(built(x_ND, lambda: normal_NE)[1].sum(), built.noise)
    (x,), (normal,) = x_ND.tolist(), normal_NE.tolist()
    raw = [dot(w, x) for w in built.noise.tolist()]
    expected = [[n / (1 + math.exp(-r)) * value for value in x] for n, r in zip(normal, raw, strict=True)]
    torch.testing.assert_close(slope_ED, wide(expected))
    (none,) = torch.autograd.grad(built(x_ND)[1].sum(), [built.noise], allow_unused=True)
    assert none is None


def test_a_fresh_noisy_gate_has_no_signal_and_noise_of_log_2() -> None:
    clean_NE, noisy_NE, scale_NE = Gate(3, 4, noisy=True)(torch.ones(2, 3), lambda: torch.full((2, 4), 2.0))
    assert clean_NE.tolist() == [[0.0] * 4] * 2
    assert scale_NE is not None
    assert scale_NE.flatten().tolist() == pytest.approx([math.log(2)] * 8)
    assert noisy_NE.flatten().tolist() == pytest.approx([2 * math.log(2)] * 8)


def test_rows_sorted_by_group_meet_the_gate_of_their_group() -> None:
    built, x_MD, sizes = gate(3, 2, noisy=True, groups=3), drawn(5, 3, seed=5), [3, 0, 2]
    assert built.noise is not None
    group_M = [0, 0, 0, 2, 2]
    clean_ME, _, scale_ME = built(x_MD, lambda: torch.zeros(5, 2), sizes)
    weight, noise = built.weight.tolist(), built.noise.tolist()
    rows = list(zip(x_MD.tolist(), group_M, strict=True))
    torch.testing.assert_close(clean_ME, wide([[dot(w, x) for w in weight[g]] for x, g in rows]))
    torch.testing.assert_close(scale_ME, wide([[softplus(dot(w, x)) for w in noise[g]] for x, g in rows]))


def test_scores_are_float32_whatever_the_precision_around_them() -> None:
    built, x_ND = gate(8, 4, noisy=False).float(), drawn(6, 8).float()
    expected = built(x_ND)[0]
    with torch.autocast("cpu", torch.bfloat16):
        found = built(x_ND)[0]
    assert found.dtype == torch.float32 and torch.equal(found, expected)
    assert built(x_ND.bfloat16())[0].dtype == torch.float32
    assert built.bfloat16()(x_ND)[0].dtype == torch.float32


@given(st.lists(st.lists(Score, min_size=4, max_size=4), min_size=1, max_size=4))
def test_softmax_gating_takes_every_expert(rows: list[list[float]]) -> None:
    score_NE = wide(rows)
    gating, expert_NK, weight_NK = choose((score_NE, score_NE, None), None)
    assert expert_NK.tolist() == [[0, 1, 2, 3]] * len(rows)
    torch.testing.assert_close(weight_NK, wide([softmax(row) for row in rows]))
    assert gating.chosen_NK is expert_NK and gating.gate_NK is weight_NK


@given(
    st.lists(st.lists(Score, min_size=5, max_size=5, unique=True), min_size=1, max_size=4),
    st.integers(1, 5),
    st.booleans(),
)
def test_the_k_greatest_are_chosen_best_first(rows: list[list[float]], k: int, renormalise: bool) -> None:
    score_NE = wide(rows)
    _, expert_NK, weight_NK = choose((score_NE, score_NE, None), k, renormalise)
    for row, experts, found in zip(rows, expert_NK.tolist(), weight_NK.tolist(), strict=True):
        assert experts == sorted(range(5), key=lambda e: -row[e])[:k]
        everyone = softmax(row)
        expected = softmax([row[e] for e in experts]) if renormalise else [everyone[e] for e in experts]
        assert found == pytest.approx(expected, abs=1e-12)


def test_worked_weights_of_two_of_three() -> None:
    score_NE = wide([[math.log(1), math.log(6), math.log(3)]])
    _, expert_NK, weight_NK = choose((score_NE, score_NE, None), 2)
    assert expert_NK.tolist() == [[1, 2]]
    assert weight_NK[0].tolist() == pytest.approx([2 / 3, 1 / 3])
    _, _, share_NK = choose((score_NE, score_NE, None), 2, renormalise=False)
    assert share_NK[0].tolist() == pytest.approx([0.6, 0.3])


def test_the_noisy_scores_choose_and_weigh_and_the_clean_ones_are_kept() -> None:
    clean_NE, noisy_NE, scale_NE = wide([[3.0, 2.0, 1.0]]), wide([[0.0, 5.0, 4.0]]), wide([[1.0, 1.0, 1.0]])
    gating, expert_NK, weight_NK = choose((clean_NE, noisy_NE, scale_NE), 2)
    assert expert_NK.tolist() == [[1, 2]]
    assert weight_NK[0].tolist() == pytest.approx(softmax([5.0, 4.0]))
    assert gating.clean_NE is clean_NE and gating.noisy_NE is noisy_NE and gating.scale_NE is scale_NE


@pytest.mark.parametrize("renormalise", [True, False])
def test_a_replay_is_used_and_the_gates_own_choice_is_still_told(renormalise: bool) -> None:
    score = [0.5, -1.0, 2.0, 0.1]
    score_NE, replay_NK = wide([score, score, score]), torch.tensor([[1, 3], [0, -1], [-1, -1]])
    gating, expert_NK, weight_NK = choose((score_NE, score_NE, None), 2, renormalise, replay_NK)
    assert gating.chosen_NK.tolist() == [[2, 0]] * 3
    # Where nothing was recorded, the gate's own expert of that place.
    assert expert_NK.tolist() == [[1, 3], [0, 0], [2, 0]]
    everyone = softmax(score)
    for experts, found in zip(expert_NK.tolist(), weight_NK.tolist(), strict=True):
        taken = [score[e] for e in experts]
        assert found == pytest.approx(softmax(taken) if renormalise else [everyone[e] for e in experts])
    own = softmax([2.0, 0.5]) if renormalise else [everyone[2], everyone[0]]
    assert gating.gate_NK[0].tolist() == pytest.approx(own)


@given(
    st.lists(Score, min_size=4, max_size=4),
    st.lists(st.integers(-1, 3), min_size=1, max_size=4),
    st.booleans(),
)
def test_a_refused_place_weighs_nothing(score: list[float], experts: list[int], renormalise: bool) -> None:
    (found,) = weights(wide([score]), torch.tensor([experts]), renormalise).tolist()
    taken = [score[e] for e in experts if e >= 0]
    shares = softmax(score)
    for e, weight in zip(experts, found, strict=True):
        if e < 0:
            assert weight == 0.0
        elif renormalise:
            total = sum(math.exp(t - max(taken)) for t in taken)
            assert weight == pytest.approx(math.exp(score[e] - max(taken)) / total)
        else:
            assert weight == pytest.approx(shares[e])
    if renormalise:
        assert sum(found) == pytest.approx(1.0 if taken else 0.0)


@pytest.mark.parametrize("renormalise", [True, False])
def test_the_weights_gradients_are_those_of_finite_differences(renormalise: bool) -> None:
    expert_NK = torch.tensor([[0, 2], [3, -1], [-1, -1]])
    score_NE = drawn(3, 4, seed=2).requires_grad_()
    assert torch.autograd.gradcheck(lambda s: weights(s, expert_NK, renormalise), score_NE)


def test_layers_are_replayed_in_their_order() -> None:
    replay_NLK = torch.arange(12).view(2, 3, 2)
    routes = Routes(replay_NLK=replay_NLK)
    found = [routes.replayed() for _ in range(3)]
    assert [layer.tolist() for layer in found if isinstance(layer, Tensor)] == [
        [[0, 1], [6, 7]],
        [[2, 3], [8, 9]],
        [[4, 5], [10, 11]],
    ]
    free = Routes()
    assert free.replayed() is None and free.replayed() is None and free.seen == 2


def test_tokens_are_numbered_from_0_unless_told_otherwise() -> None:
    assert Routes().positions(3, torch.device("cpu")).tolist() == [0, 1, 2]
    own_N = torch.tensor([7, 4])
    assert Routes(position_N=own_N).positions(2, torch.device("cpu")) is own_N
    first, second = Routes(), Routes()
    assert first.routing == [] and first.routing is not second.routing
