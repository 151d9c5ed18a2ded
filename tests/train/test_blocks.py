"""Blocks hold the stream as it is: every target is the next token, and no document runs into another."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lineal.errors import DataError
from lineal.train.blocks import document_blocks, pack, random_blocks, sequential_blocks, split_stream

END = 99
DOCUMENTS = st.lists(st.lists(st.integers(0, 50), max_size=12), min_size=1, max_size=6)


def test_documents_are_separated():
    assert pack([[1, 2], [], [3]], END).tolist() == [1, 2, END, 3, END]
    assert pack([[1, 2]], None).tolist() == [1, 2]


@pytest.mark.parametrize("documents", [[], [[]], [[], []]])
def test_no_text_is_refused(documents):
    with pytest.raises(DataError, match="no text"):
        pack(documents, END)


def test_documents_without_a_separator_are_refused():
    with pytest.raises(DataError, match="run into each other"):
        pack([[1], [2]], None)
    assert pack([[], [2], []], None).tolist() == [2]


def test_the_last_part_is_held_out():
    train, valid = split_stream(torch.arange(10), 0.1)
    assert train.tolist() == list(range(9)) and valid.tolist() == [9]


@given(size=st.integers(6, 60), length=st.integers(1, 5), rows=st.integers(1, 8), step=st.integers(0, 99))
def test_random_blocks_are_windows_of_the_stream(size, length, rows, step):
    stream = torch.arange(100, 100 + size, dtype=torch.int32)
    blocks = random_blocks(stream, length, range(rows), seed=3, step=step)
    assert blocks.input_BT.shape == blocks.target_BT.shape == blocks.mask_BT.shape == (rows, length)
    assert blocks.input_BT.dtype == torch.int64 and blocks.mask_BT.all()
    assert torch.equal(blocks.target_BT, blocks.input_BT + 1), (
        "the stream counts, so its next token is one more"
    )
    assert blocks.input_BT.min() >= 100 and blocks.target_BT.max() < 100 + size


def test_a_process_makes_the_same_rows_alone():
    stream = torch.arange(1000)
    whole = random_blocks(stream, 8, range(6), seed=1, step=4)
    part = random_blocks(stream, 8, [1, 3, 5], seed=1, step=4)
    assert torch.equal(whole.input_BT[1::2], part.input_BT)
    later = random_blocks(stream, 8, range(6), seed=1, step=5)
    assert not torch.equal(whole.input_BT, later.input_BT)


def test_random_blocks_reach_both_ends():
    stream = torch.arange(12)
    starts = {
        int(row[0])
        for step in range(100)
        for row in random_blocks(stream, 8, range(4), seed=0, step=step).input_BT
    }
    assert starts == {0, 1, 2, 3}


def test_a_text_shorter_than_a_block_is_refused():
    assert len(random_blocks(torch.arange(9), 8, range(2), seed=0, step=0).input_BT) == 2
    with pytest.raises(DataError, match=r"has 8 tokens, and a block of 8 needs 9"):
        random_blocks(torch.arange(8), 8, range(2), seed=0, step=0)


@given(size=st.integers(1, 40), length=st.integers(1, 7), batch=st.integers(1, 4))
def test_sequential_blocks_predict_every_token_but_the_first_once(size, length, batch):
    stream = torch.arange(size)
    targets, inputs = [], []
    for blocks in sequential_blocks(stream, length, batch):
        assert blocks.input_BT.shape[0] <= batch and blocks.input_BT.shape[1] == length
        targets += blocks.target_BT[blocks.mask_BT].tolist()
        inputs += blocks.input_BT[blocks.mask_BT].tolist()
    assert targets == list(range(1, size))
    assert inputs == list(range(size - 1))


@given(documents=DOCUMENTS, length=st.integers(1, 5), batch=st.integers(1, 3))
def test_document_blocks_never_cross_documents(documents, length, batch):
    # Each document gets its own hundred, so a block that crossed one would show.
    marked = [[100 * n + token for token in document] for n, document in enumerate(documents, 1)]
    predicted = []
    for blocks in document_blocks(marked, None, length, batch):
        for row, target, mask in zip(blocks.input_BT, blocks.target_BT, blocks.mask_BT, strict=True):
            seen = torch.cat([row[mask], target[mask]])
            assert len(set((seen // 100).tolist())) == 1
            predicted += target[mask].tolist()
    assert predicted == [token for document in marked for token in document[1:]]


def test_document_blocks_end_with_the_separator():
    (blocks,) = document_blocks([[1, 2], [], [3]], END, 4, 8)
    assert blocks.input_BT.tolist() == [[1, 2, 0, 0], [3, 0, 0, 0]]
    assert blocks.target_BT.tolist() == [[2, END, 0, 0], [END, 0, 0, 0]]
    assert blocks.mask_BT.tolist() == [[True, True, False, False], [True, False, False, False]]
