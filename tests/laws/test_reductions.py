"""Reductions: each is its formula, they agree where they must, and padding is not seen."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lineal.errors import UsageError
from lineal.objectives.reduction import PerBudget, PerPromptToken, PerSequence, PerToken, PlainSum

ALL = [PerSequence(), PerToken(), PerPromptToken(), PerBudget(7), PlainSum()]
names = [type(reduction).__name__ for reduction in ALL]


@st.composite
def batches(draw, least: int = 1):
    """Lengths of completions and the group of each, groups neither contiguous nor of equal size."""
    groups = draw(st.lists(st.integers(0, 4), min_size=1, max_size=8))
    lengths = draw(st.lists(st.integers(least, 6), min_size=len(groups), max_size=len(groups)))
    return lengths, [3 * group + 1 for group in groups]


def tensors(lengths: list[int], groups: list[int], width: int = 6):
    mask_BT = torch.arange(width) < torch.tensor(lengths)[:, None]
    return mask_BT, torch.tensor(groups)


def by_formula(name: str, lengths: list[int], groups: list[int]) -> list[float]:
    """The weight of one token of each completion, written as the papers write it."""
    alive = [(length, group) for length, group in zip(lengths, groups) if length]
    prompts = len({group for _, group in alive})

    def weight(length: int, group: int) -> float:
        size = sum(g == group for _, g in alive)
        tokens = sum(n for n, g in alive if g == group)
        return {
            "PerSequence": 1 / prompts / size / length,
            "PerToken": 1 / sum(n for n, _ in alive),
            "PerPromptToken": 1 / prompts / tokens,
            "PerBudget": 1 / prompts / size / 7,
            "PlainSum": 1 / len(alive),
        }[name]

    return [weight(length, group) if length else 0.0 for length, group in zip(lengths, groups)]


@pytest.mark.parametrize("reduction", ALL, ids=names)
@given(batches(least=0))
def test_weights_are_the_formula(reduction, batch):
    lengths, groups = batch
    mask_BT, group_B = tensors(lengths, groups)
    weight_BT = reduction(mask_BT, group_B, torch.float64)
    wanted = torch.tensor(by_formula(type(reduction).__name__, lengths, groups), dtype=torch.float64)
    assert torch.allclose(weight_BT, mask_BT * wanted[:, None], rtol=0, atol=1e-14)


@given(batches())
def test_means_have_total_weight_one(batch):
    mask_BT, group_B = tensors(*batch)
    for reduction in (PerSequence(), PerToken(), PerPromptToken()):
        assert abs(reduction(mask_BT, group_B, torch.float64).sum() - 1) <= 1e-12


@given(st.integers(1, 6), st.integers(1, 5), st.integers(1, 4))
def test_all_agree_at_equal_lengths_up_to_their_constant(length, prompts, size):
    mask_BT, group_B = tensors([length] * (prompts * size), list(range(prompts)) * size)
    weights = {n: r(mask_BT, group_B, torch.float64) for n, r in zip(names, ALL)}
    for name, constant in (
        ("PerToken", 1),
        ("PerPromptToken", 1),
        ("PerBudget", 7 / length),
        ("PlainSum", 1 / length),
    ):
        assert torch.allclose(weights["PerSequence"], constant * weights[name], rtol=0, atol=1e-14), name


def test_they_differ_at_unequal_lengths():
    mask_BT, group_B = tensors([1, 3, 2, 6], [0, 0, 1, 1])
    weights = [reduction(mask_BT, group_B, torch.float64) for reduction in ALL]
    for i, one in enumerate(weights):
        for other in weights[i + 1 :]:
            assert not torch.allclose(one, other)


@pytest.mark.parametrize("reduction", ALL, ids=names)
@given(batches(), st.integers(0, 3), st.integers(0, 3))
def test_padding_by_columns_and_by_rows_changes_nothing(reduction, batch, columns, rows):
    mask_BT, group_B = tensors(*batch)
    wide_BT = torch.zeros(mask_BT.shape[0] + rows, mask_BT.shape[1] + columns, dtype=torch.bool)
    wide_BT[: mask_BT.shape[0], : mask_BT.shape[1]] = mask_BT
    # Padded rows may claim any group, one that exists or not.
    group = torch.cat([group_B, torch.tensor([1, 99, 4])[:rows]])
    padded_BT = reduction(wide_BT, group, torch.float64)
    assert torch.equal(
        padded_BT[: mask_BT.shape[0], : mask_BT.shape[1]], reduction(mask_BT, group_B, torch.float64)
    )
    assert padded_BT[~wide_BT].abs().sum() == 0


@pytest.mark.parametrize("reduction", ALL, ids=names)
@given(batches(), st.randoms(use_true_random=False))
def test_the_order_of_rows_changes_nothing(reduction, batch, random):
    mask_BT, group_B = tensors(*batch)
    order = list(range(len(group_B)))
    random.shuffle(order)
    index = torch.tensor(order)
    weight_BT = reduction(mask_BT, group_B, torch.float64)
    assert torch.allclose(
        reduction(mask_BT[index], group_B[index], torch.float64), weight_BT[index], rtol=1e-14
    )


@pytest.mark.parametrize("reduction", ALL, ids=names)
def test_nothing_counted_weighs_nothing(reduction):
    weight_BT = reduction(torch.zeros(2, 3, dtype=torch.bool), torch.tensor([0, 0]), torch.float64)
    assert weight_BT.abs().sum() == 0


def test_an_open_budget_is_refused_with_the_remedy():
    with pytest.raises(UsageError, match="max_new_tokens"):
        PerBudget()(torch.ones(1, 2, dtype=torch.bool), torch.tensor([0]))
    with pytest.raises(UsageError, match="above 0"):
        PerBudget(0)
