from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from lineal.ops.returns import continues, discounted, full_return, gae, next_counted, reverse_scan


@st.composite
def episodes(draw):
    """Rows of steps, some masked, cut into episodes; all as plain lists beside the tensors."""
    rows, width = draw(st.integers(1, 3)), draw(st.integers(1, 7))
    seed = draw(st.integers(0, 10_000))
    generator = torch.Generator().manual_seed(seed)

    def random() -> torch.Tensor:
        return torch.randn(rows, width, generator=generator, dtype=torch.float64)

    mask_BT = torch.rand(rows, width, generator=generator) < 0.75
    segment_BT = (torch.rand(rows, width, generator=generator) < 0.3).long().cumsum(1).clamp(max=width - 1)
    return mask_BT, segment_BT, random(), random(), random()


def counted(mask_T, segment_T) -> list[list[int]]:
    """The counted steps of each episode, in order."""
    steps: dict[int, list[int]] = {}
    for t, (counts, segment) in enumerate(zip(mask_T.tolist(), segment_T.tolist())):
        if counts:
            steps.setdefault(segment, []).append(t)
    return list(steps.values())


@given(episodes(), st.floats(0, 1))
def test_discounted_and_full_return_are_the_double_sum(case, discount):
    mask_BT, segment_BT, reward_BT, _, _ = case
    to_go_BT, whole_BT = torch.zeros_like(reward_BT), torch.zeros_like(reward_BT)
    for row in range(len(mask_BT)):
        for steps in counted(mask_BT[row], segment_BT[row]):
            for i, t in enumerate(steps):
                to_go_BT[row, t] = sum(discount**k * reward_BT[row, s] for k, s in enumerate(steps[i:]))
                whole_BT[row, t] = sum(discount**k * reward_BT[row, s] for k, s in enumerate(steps))
    assert torch.allclose(discounted(reward_BT, mask_BT, discount, segment_BT), to_go_BT, atol=1e-12)
    assert torch.allclose(full_return(reward_BT, mask_BT, discount, segment_BT), whole_BT, atol=1e-12)


@given(episodes(), st.floats(0, 1), st.floats(0, 1))
def test_gae_of_text_is_the_double_sum(case, discount, decay):
    """A_t = Σ_k (discount·decay)^k δ_{t+k}, V = 0 after an episode's last counted step."""
    mask_BT, segment_BT, reward_BT, value_BT, _ = case
    wanted_BT = torch.zeros_like(reward_BT)
    for row in range(len(mask_BT)):
        for steps in counted(mask_BT[row], segment_BT[row]):
            after = [value_BT[row, t] for t in steps[1:]] + [torch.zeros((), dtype=torch.float64)]
            delta = [reward_BT[row, t] + discount * v - value_BT[row, t] for t, v in zip(steps, after)]
            for i, t in enumerate(steps):
                wanted_BT[row, t] = sum((discount * decay) ** k * d for k, d in enumerate(delta[i:]))
    found_BT = gae(reward_BT, value_BT, mask_BT, discount, decay, segment_BT=segment_BT)
    assert torch.allclose(found_BT, wanted_BT, atol=1e-10)


@given(episodes(), st.floats(0, 1), st.floats(0, 1))
def test_gae_of_environments_bootstraps_from_the_value_it_is_given(case, discount, decay):
    """Every episode but the row's last ended; the last one is cut by the end of the rollout and bootstraps too."""
    mask_BT, segment_BT, reward_BT, value_BT, after_BT = case
    ended_BT = torch.zeros_like(mask_BT)
    wanted_BT = torch.zeros_like(reward_BT)
    for row in range(len(mask_BT)):
        for steps in counted(mask_BT[row], segment_BT[row]):
            ended_BT[row, steps[-1]] = True
            delta = [reward_BT[row, t] + discount * after_BT[row, t] - value_BT[row, t] for t in steps]
            for i, t in enumerate(steps):
                wanted_BT[row, t] = sum((discount * decay) ** k * d for k, d in enumerate(delta[i:]))
    settings = {"next_value_BT": after_BT, "segment_BT": segment_BT}
    with_ends = gae(reward_BT, value_BT, mask_BT, discount, decay, ended_BT=ended_BT, **settings)
    assert torch.allclose(with_ends, wanted_BT, atol=1e-10)
    assert torch.allclose(
        gae(reward_BT, value_BT, mask_BT, discount, decay, **settings), wanted_BT, atol=1e-10
    )


@given(episodes(), st.floats(0, 1))
def test_the_ends_of_trace_decay(case, discount):
    mask_BT, segment_BT, reward_BT, value_BT, _ = case
    whole_BT = gae(reward_BT, value_BT, mask_BT, discount, 1.0, segment_BT=segment_BT)
    to_go_BT = discounted(reward_BT, mask_BT, discount, segment_BT)
    assert torch.allclose(whole_BT, torch.where(mask_BT, to_go_BT - value_BT, 0.0), atol=1e-10)
    error_BT = gae(reward_BT, value_BT, mask_BT, discount, 0.0, segment_BT=segment_BT)
    after_BT, _ = next_counted(mask_BT)
    next_BT = torch.where(continues(mask_BT, segment_BT), value_BT.gather(1, after_BT), 0.0)
    assert torch.allclose(error_BT, torch.where(mask_BT, reward_BT + discount * next_BT - value_BT, 0.0))


def test_a_terminated_step_stops_the_trace_within_one_segment():
    """Episodes told apart by `ended` alone, as vectorised environments do."""
    ones = torch.ones(1, 4, dtype=torch.float64)
    mask, ended = torch.ones(1, 4, dtype=torch.bool), torch.tensor([[False, True, False, False]])
    found = gae(ones, 0 * ones, mask, 1.0, 1.0, next_value_BT=0 * ones, ended_BT=ended)
    assert found.tolist() == [[2, 1, 2, 1]]


def test_masked_steps_are_skipped_not_waited_for():
    """Tokens of a tool between two of the policy's do not discount what follows."""
    reward = torch.tensor([[0.0, 9.0, 9.0, 1.0]], dtype=torch.float64)
    mask = torch.tensor([[True, False, False, True]])
    assert discounted(reward, mask, 0.5).tolist() == [[0.5, 0, 0, 1]]


def test_reverse_scan_of_nothing_and_of_one():
    empty = torch.zeros(2, 0)
    assert reverse_scan(empty, empty).shape == (2, 0)
    assert reverse_scan(torch.tensor([[3.0]]), torch.tensor([[9.0]])).item() == 3


def test_padding_on_the_right_changes_nothing():
    generator = torch.Generator().manual_seed(0)
    reward, value = (torch.randn(2, 5, generator=generator, dtype=torch.float64) for _ in range(2))
    mask = torch.tensor([[True] * 5, [True] * 2 + [False] * 3])
    wide = [torch.cat([x, torch.full((2, 3), 7.0, dtype=x.dtype)], 1) for x in (reward, value)]
    wide_mask = torch.cat([mask, torch.zeros(2, 3, dtype=torch.bool)], 1)
    found = gae(wide[0], wide[1], wide_mask, 0.9, 0.8)
    assert torch.equal(found[:, :5], gae(reward, value, mask, 0.9, 0.8))
    assert found[:, 5:].abs().sum() == 0
