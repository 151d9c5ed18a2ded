"""Windows of truncated back-propagation: all of a text, in order, at places that are functions of the seed."""

from __future__ import annotations

import statistics

import pytest
import torch

from lineal.errors import DataError
from lineal.train.recurrent.windows import Columns, lengths


def documents(*sizes: int) -> list[torch.Tensor]:
    """Documents whose tokens are all different."""
    start, found = 0, []
    for size in sizes:
        found.append(torch.arange(start, start + size, dtype=torch.int32))
        start += size
    return found


def test_lengths_are_as_the_paper_draws_them() -> None:
    drawn = lengths(20_000, 70, 0, 0)
    short = [n for n in drawn if n < 52]
    assert len(short) / len(drawn) == pytest.approx(0.05, abs=0.01)
    assert statistics.mean(n for n in drawn if n >= 52) == pytest.approx(69.5, abs=0.3)
    assert statistics.stdev(n for n in drawn if n >= 52) == pytest.approx(5, abs=0.3)
    assert min(lengths(20_000, 8, 0, 0)) == 5


def test_lengths_depend_on_seed_and_epoch_only() -> None:
    assert lengths(50, 70, 0, 1) == lengths(80, 70, 0, 1)[:50]
    assert lengths(50, 70, 0, 1) != lengths(50, 70, 0, 2) != lengths(50, 70, 1, 2)


@pytest.mark.parametrize("vary", [True, False])
def test_an_epoch_reads_every_column_once_and_in_order(vary: bool) -> None:
    columns = Columns(documents(101), 4, 10, 0, vary)
    count = len(columns.windows(0))
    found = [columns.window(step) for step in range(count)]
    whole_BN = torch.cat([w.input_BT for w in found], 1)
    assert torch.equal(whole_BN, torch.arange(100).view(4, 25)[:, :24])
    for window in found:
        assert torch.equal(window.target_BT, window.input_BT + 1)
    assert [w.first for w in found] == [True] + [False] * (count - 1)
    assert columns.window(count).first


def test_a_backward_column_is_the_text_from_its_end() -> None:
    columns = Columns(documents(40), 2, 10, 0, False, reverse=True)
    assert columns.window(0).input_BT[0, :3].tolist() == [39, 38, 37]


def test_each_epoch_has_its_own_order_of_documents() -> None:
    columns = Columns(documents(*[7] * 20), 1, 1000, 0, False)
    first, second = (columns.window(step).input_BT[0] for step in range(2))
    assert not torch.equal(first, second)
    # Documents stay whole: where one begins, six more of its tokens follow.
    assert (second[1:] - second[:-1] == 1).sum() >= 20 * 6 - 1


def test_a_step_says_its_epoch_and_how_many_there_are() -> None:
    columns = Columns(documents(500), 2, 20, 3)
    sizes = [len(columns.windows(epoch)) for epoch in range(3)]
    assert columns.place(sizes[0]) == (1, 0) and columns.place(sum(sizes[:2]) + 1) == (2, 1)
    assert columns.steps(2.0) == sum(sizes[:2]) and columns.steps(0.01) == 1
    assert columns.steps(1.5) == sizes[0] + round(sizes[1] / 2)


def test_a_resumed_run_reads_the_same() -> None:
    one, two = (Columns(documents(90, 50, 70), 3, 12, 5) for _ in range(2))
    for step in range(30):
        one.window(step)
    for step in (29, 4, 17):
        assert torch.equal(one.window(step).input_BT, two.window(step).input_BT)


def test_too_little_text_is_refused() -> None:
    with pytest.raises(DataError, match="7 tokens"):
        Columns(documents(7), 4, 10, 0)
