"""Counter-based randomness: the tensor hash is the reference hash, and its numbers look uniform."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from lineal.generate.random import BITS, keys, reference_uniform, row_key, uniform_int

NUMBERS = st.integers(-(2**63), 2**63 - 1)


@given(NUMBERS, NUMBERS, NUMBERS, st.integers(0, 2**40))
def test_the_tensor_hash_is_the_reference_hash(seed: int, step: int, sample: int, position: int) -> None:
    key = row_key(seed, step, sample)
    assert -(2**63) <= key < 2**63
    found = uniform_int(torch.tensor([key]), torch.tensor([position])).item()
    assert found == reference_uniform(key, position)
    assert 0 <= found < 2**BITS


def test_splitmix64_is_the_published_one() -> None:
    # The generator's first outputs from state 0 and 1234567 (Vigna's splitmix64.c, Rosetta Code), upper 52 bits.
    assert reference_uniform(0, 0) == 0xE220A8397B1DCDAF >> 12
    assert [reference_uniform(1234567, i) for i in range(2)] == [
        6457827717110365317 >> 12,
        3203168211198807973 >> 12,
    ]


def test_each_of_the_three_numbers_matters_and_they_do_not_commute() -> None:
    rows = [(1, 2, 3), (2, 2, 3), (1, 3, 3), (1, 2, 4), (2, 1, 3), (3, 2, 1), (1, 3, 2), (0, 0, 0)]
    assert len({row_key(*row) for row in rows}) == len(rows)
    assert keys(rows).tolist() == [row_key(*row) for row in rows]


def test_broadcasting_lays_out_rows_by_positions() -> None:
    key_B, position_S1 = keys([(7, 0, i) for i in range(5)]), torch.arange(4)[:, None]
    table_SB = uniform_int(key_B[None], position_S1)
    assert table_SB.shape == (4, 5)
    assert table_SB[3, 2] == reference_uniform(row_key(7, 0, 2), 3)


def test_the_numbers_are_uniform_and_uncorrelated() -> None:
    key_B = keys([(0, step, sample) for step in range(40) for sample in range(50)])
    uniform_SB = uniform_int(key_B[None], torch.arange(50)[:, None]).double() / 2**BITS
    cells = torch.histc(uniform_SB.flatten(), 64, 0, 1)
    expected = uniform_SB.numel() / 64
    # Chi-squared with 63 degrees of freedom: mean 63, standard deviation 11.2.
    assert ((cells - expected) ** 2 / expected).sum() < 63 + 5 * 11.2
    noise_SB = (uniform_SB - 0.5) * 12**0.5
    for neighbours in (noise_SB[1:] * noise_SB[:-1], noise_SB[:, 1:] * noise_SB[:, :-1]):
        assert abs(neighbours.mean()) < 5 / neighbours.numel() ** 0.5
    assert len(uniform_SB.unique()) == uniform_SB.numel()
