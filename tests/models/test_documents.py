"""Pooling over documents: padding counts for nothing, and pieces make the whole."""

from __future__ import annotations

import pytest
import torch

from lineal.models.awd_lstm import AWDLSTM, AWDConfig
from lineal.models.documents import POOLINGS, DocumentReader, Pieces, TwoLayerHead
from lineal.models.dropout import Masks

CONFIG = AWDConfig(13, width=8, hidden=6, layers=2)
TOKEN_BT = torch.tensor([[1, 2, 3, 4, 5, 6, 7], [8, 9, 10, 0, 0, 0, 0]])
LENGTH_B = torch.tensor([7, 3])


def reader_of(pooling: str = "concat") -> DocumentReader:
    """A reader in float64."""
    width = 24 if pooling == "concat" else 8
    return DocumentReader(AWDLSTM(CONFIG).initialise(0).double(), TwoLayerHead(width, 5, 3).double(), pooling)


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("chunk", [2, 3, 100])
def test_padding_counts_for_nothing(pooling: str, chunk: int) -> None:
    reader, pieces = reader_of(pooling), Pieces(chunk, 0)
    both_BD = reader.pooled(TOKEN_BT, LENGTH_B, pieces)
    alone_BD = reader.pooled(TOKEN_BT[1:, :3], LENGTH_B[1:], pieces)
    torch.testing.assert_close(both_BD[1:], alone_BD)
    changed_BT = TOKEN_BT.clone()
    changed_BT[1, 3:] = 11
    torch.testing.assert_close(reader.pooled(changed_BT, LENGTH_B, pieces), both_BD)


def test_pooling_is_the_last_the_largest_and_the_mean_output() -> None:
    reader = reader_of()
    output_BTD = reader.reader(TOKEN_BT)
    short_TD = output_BTD[1, :3]
    wanted_D = torch.cat([short_TD[-1], short_TD.amax(0), short_TD.mean(0)])
    torch.testing.assert_close(reader.pooled(TOKEN_BT, LENGTH_B, Pieces(2, 0))[1], wanted_D)


def gradients(reader: DocumentReader, pieces: Pieces) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Pooled outputs under dropout, and the gradients of their squares."""
    reader.zero_grad()
    noise = reader.reader.train().draw(Masks(0, 1), 2)
    pooled_BD = reader.pooled(TOKEN_BT, LENGTH_B, pieces, noise)
    pooled_BD.square().sum().backward()
    return pooled_BD.detach(), {
        n: p.grad.clone() for n, p in reader.reader.named_parameters() if p.grad is not None
    }


@pytest.mark.parametrize("chunk", [1, 2, 5])
def test_reading_in_pieces_is_reading_in_one_pass(chunk: int) -> None:
    """BPT3C with gradients through all pieces, dropout included."""
    reader = reader_of()
    whole, its = gradients(reader, Pieces(100, 0))
    pieces, theirs = gradients(reader, Pieces(chunk, 0))
    torch.testing.assert_close(pieces, whole)
    torch.testing.assert_close(theirs, its)


def test_gradients_stop_before_the_last_tokens() -> None:
    reader = reader_of()
    whole, its = gradients(reader, Pieces(2, 0))
    cut, theirs = gradients(reader, Pieces(2, 3))
    torch.testing.assert_close(cut, whole)
    # Pieces begin at 0, 2, 4 and 6; those from token 4 on have gradients.
    table = theirs["embedding.weight"]
    assert (table[[1, 2, 3, 4, 8, 9, 10]] == 0).all() and (table[[5, 6, 7]] != 0).any()
    assert (its["embedding.weight"][[1, 2]] != 0).any()


def test_the_head_normalises_over_the_batch_and_drops_by_masks() -> None:
    head = TwoLayerHead(4, 5, 3).double()
    x_BD = torch.randn(6, 4, dtype=torch.float64)
    first, second = head.norms[0](x_BD), head.linears[0]
    hidden = head.norms[1](torch.relu(second(first)))
    head.zero_grad()
    torch.testing.assert_close(head(x_BD), head.linears[1](hidden))
    assert not torch.equal(head(x_BD, Masks(0), 0.5), head(x_BD, Masks(1), 0.5))
    assert torch.equal(head(x_BD, Masks(0), 0.5), head(x_BD, Masks(0), 0.5))


def test_groups_are_the_layers_and_the_head() -> None:
    groups = reader_of().groups()
    assert len(groups) == 4 and "linears.1.weight" in groups[-1] and "bias" not in groups[-1]
