"""Attention over a flat run of prompts and completions is attention over each sequence by itself."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from lineal.models.ragged import SMALLEST, Ragged, attend_ragged, lay_out

Case = tuple[list[int], list[int], list[int]]


@st.composite
def cases(draw: st.DrawFn, longest: int = 9) -> Case:
    """Prompt lengths, completion lengths (0 allowed), and the prompt of each completion."""
    prompts = draw(st.lists(st.integers(1, 6), min_size=1, max_size=4))
    rows = draw(
        st.lists(
            st.tuples(st.integers(0, longest), st.integers(0, len(prompts) - 1)), min_size=1, max_size=30
        )
    )
    return prompts, [length for length, _ in rows], [group for _, group in rows]


def sequences(case: Case) -> list[tuple[list[int], list[int]]]:
    """For each completion the flat places of its prompt and of its own tokens."""
    prompts, lengths, groups = case
    ends = torch.tensor([0, *prompts]).cumsum(0).tolist()
    starts = torch.tensor([ends[-1], *lengths]).cumsum(0).tolist()
    spans = [list(range(a, b)) for a, b in pairwise(ends)]
    return [(spans[g], list(range(a, b))) for g, (a, b) in zip(groups, pairwise(starts), strict=True)]


def naive(query_NHD: Tensor, key_NKD: Tensor, value_NKD: Tensor, case: Case) -> Tensor:
    """One sequence after another."""
    repeat = query_NHD.shape[1] // key_NKD.shape[1]
    key_NHD, value_NHD = (x.repeat_interleave(repeat, 1) for x in (key_NKD, value_NKD))
    mixed_ND = torch.zeros(len(query_NHD), query_NHD[0].numel(), dtype=query_NHD.dtype)
    ends = torch.tensor([0, *case[0]]).cumsum(0).tolist()
    alone = [(list(range(a, b)), list[int]()) for a, b in pairwise(ends)]
    for before, own in [*alone, *sequences(case)]:
        place = torch.tensor(before + own)
        query, key, value = (x[place].transpose(0, 1)[None] for x in (query_NHD, key_NHD, value_NHD))
        out = F.scaled_dot_product_attention(query, key, value, is_causal=True)[0].transpose(0, 1).flatten(1)
        mixed_ND[place] = out
    return mixed_ND


@given(cases(), st.booleans())
def test_each_sequence_is_by_itself(case: Case, grouped: bool) -> None:
    ragged = lay_out(*case)
    count = sum(case[0]) + sum(case[1])
    generator = torch.Generator().manual_seed(count)
    heads = (4, 2, 2) if grouped else (4, 4, 4)
    parts = [torch.randn(count, h, 6, generator=generator, dtype=torch.float64) for h in heads]
    found_ND = attend_ragged(parts[0], parts[1], parts[2], ragged)
    torch.testing.assert_close(found_ND, naive(parts[0], parts[1], parts[2], case), rtol=0, atol=1e-12)


@given(cases())
def test_positions_go_on_after_the_prompt(case: Case) -> None:
    ragged = lay_out(*case)
    position_N = ragged.position_1N[0]
    assert len(position_N) == sum(case[0]) + sum(case[1])
    for before, own in sequences(case):
        assert position_N[torch.tensor(before + own)].tolist() == list(range(len(before) + len(own)))


@given(cases(longest=40))
def test_buckets_hold_every_row_once_and_little_padding(case: Case) -> None:
    prompts, lengths, _ = case
    ragged = lay_out(*case)
    there = sum(1 for length in lengths if length)
    assert sum(len(bucket.prompt_B) for bucket in ragged.buckets) == there
    for bucket in ragged.buckets:
        assert bucket.mask_B1TK.shape == (
            len(bucket.prompt_B),
            1,
            bucket.token_BT.shape[1],
            max(prompts) + bucket.token_BT.shape[1],
        )
        assert bucket.mask_B1TK.any(-1).all(), "a token that sees nothing would be nan"
    assert all(len(bucket.prompt_B) >= min(SMALLEST, there) for bucket in ragged.buckets)
    slots = ragged.prompt_PT.numel() + sum(bucket.token_BT.numel() for bucket in ragged.buckets)
    assert (
        sorted(ragged.back_N.tolist()) == sorted(set(ragged.back_N.tolist()))
        and int(ragged.back_N.max()) < slots
    )


def test_long_and_short_rows_are_kept_apart() -> None:
    lengths = [100] * 10 + [5] * 10
    ragged = lay_out([3], lengths, [0] * 20)
    assert [tuple(bucket.token_BT.shape) for bucket in ragged.buckets] == [(10, 100), (10, 5)]


def test_a_prompt_s_work_is_done_once() -> None:
    """S + G T tokens, not G (S + T)."""
    ragged = lay_out([50], [4] * 8, [0] * 8)
    assert ragged.position_1N.shape == (1, 50 + 8 * 4)


def test_gradients_reach_the_prompt_from_all_its_completions() -> None:
    case: Case = ([3], [2, 4, 1], [0, 0, 0])
    ragged: Ragged = lay_out(*case)
    parts = [torch.randn(10, 2, 4, dtype=torch.float64, requires_grad=True) for _ in range(3)]
    weight = torch.randn(10, 8, dtype=torch.float64)
    found = torch.autograd.grad((attend_ragged(parts[0], parts[1], parts[2], ragged) * weight).sum(), parts)
    expected = torch.autograd.grad((naive(parts[0], parts[1], parts[2], case) * weight).sum(), parts)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-12)


@pytest.mark.parametrize("lengths", [[0], [0, 0, 0]])
def test_completions_may_be_empty(lengths: list[int]) -> None:
    ragged = lay_out([4], lengths, [0] * len(lengths))
    assert ragged.buckets == () and ragged.back_N.tolist() == [0, 1, 2, 3]


def test_bfloat16_on_a_cpu_attends_in_float32() -> None:
    ragged = lay_out([3, 2], [4, 0, 2], [0, 0, 1])
    draw = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(11, 2, 8, generator=draw).bfloat16() for _ in range(3))
    with torch.autocast("cpu", torch.bfloat16):
        found = attend_ragged(query, key, value, ragged)
    exact = attend_ragged(query.float(), key.float(), value.float(), ragged)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found, exact.bfloat16(), rtol=0, atol=0)
