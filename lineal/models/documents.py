"""Whole documents told apart: a recurrent reader whose states are pooled over a document (Howard and Ruder 2018)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from lineal.errors import UsageError
from lineal.models.awd_lstm import AWDLSTM, Noise, State
from lineal.models.dropout import Masks

POOLINGS = ("concat", "last", "max", "mean")


class Pool:
    """Last, largest and mean output of each document, gathered piece by piece; what pads a document counts for nothing."""

    def __init__(self, rows: int, width: int, like: Tensor):
        self.last_BD = like.new_zeros(rows, width)
        self.max_BD = like.new_full((rows, width), -torch.inf)
        self.sum_BD = like.new_zeros(rows, width)
        self.count_B1 = like.new_zeros(rows, 1)

    def add(self, output_BTD: Float[Tensor, "B T D"], mask_BT: Bool[Tensor, "B T"]) -> None:
        """Take the next piece; mask_BT: True at tokens, which stand before all padding."""
        count_B = mask_BT.sum(1)
        row_B = torch.arange(len(mask_BT), device=mask_BT.device)
        last_BD = output_BTD[row_B, (count_B - 1).clamp(min=0)]
        self.last_BD = torch.where(count_B[:, None] > 0, last_BD, self.last_BD)
        hidden_BTD = output_BTD.masked_fill(~mask_BT[..., None], -torch.inf)
        self.max_BD = torch.maximum(self.max_BD, hidden_BTD.amax(1))
        self.sum_BD = self.sum_BD + (output_BTD * mask_BT[..., None]).sum(1)
        self.count_B1 = self.count_B1 + count_B[:, None]

    def result(self, pooling: str) -> Float[Tensor, "B D"]:
        """[last, max, mean] side by side ("concat", [B, 3D]), or one of them."""
        parts = {"last": self.last_BD, "max": self.max_BD, "mean": self.sum_BD / self.count_B1}
        return torch.cat(list(parts.values()), 1) if pooling == "concat" else parts[pooling]


class TwoLayerHead(nn.Module):
    """Two linear layers, each after batch norm and dropout, with ReLU between them: W2 dropout(bn2(relu(W1 dropout(bn1(h))))).

    Batch norm sees the whole batch of a step. Weights are uniform in +-1/sqrt(inputs) by a seed, biases 0.
    """

    def __init__(self, inputs: int, hidden: int, outputs: int, seed: int = 0):
        super().__init__()
        self.norms = nn.ModuleList([nn.BatchNorm1d(inputs), nn.BatchNorm1d(hidden)])
        self.linears = nn.ModuleList([nn.Linear(inputs, hidden), nn.Linear(hidden, outputs)])
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for linear in self.linears:
                assert isinstance(linear, nn.Linear)
                draw = torch.rand(linear.weight.shape, generator=generator)
                linear.weight.copy_((2 * draw - 1) * linear.in_features**-0.5)
                linear.bias.zero_()

    def forward(
        self, pooled_BD: Float[Tensor, "B D"], masks: Masks | None = None, dropout: float = 0.0
    ) -> Float[Tensor, "B C"]:
        """Scores [B, C]; masks: where dropout's come from, None for none."""
        x = pooled_BD
        for index, (norm, linear) in enumerate(zip(self.norms, self.linears, strict=True)):
            x = norm(F.relu(x) if index else x)
            x = linear(x if masks is None else masks(x, dropout))
        return x


@dataclass(frozen=True)
class Pieces:
    """How a document is read: `chunk` tokens at a time, with gradients through its last `backward` tokens (0: all)."""

    chunk: int = 70
    backward: int = 1400

    def __post_init__(self) -> None:
        if self.chunk < 1 or self.backward < 0:
            raise UsageError(
                f"a document is read at least one token at a time; {self.chunk} and {self.backward} were given."
            )


class DocumentReader(nn.Module):
    """A reader with a head on its pooled outputs; one direction of a classifier."""

    def __init__(self, reader: AWDLSTM, head: TwoLayerHead, pooling: str):
        super().__init__()
        self.reader, self.head, self.pooling = reader, head, pooling

    def pooled(
        self,
        token_BT: Int[Tensor, "B T"],
        length_B: Int[Tensor, " B"],
        pieces: Pieces,
        noise: Noise | None = None,
    ) -> Float[Tensor, "B D"]:
        """The pooled outputs of documents, padded on the right, piece by piece with the state carried on (BPT3C).

        The masks of dropout are the same for all pieces, so that with gradients through all of them the result and its
        gradient are those of one pass.
        """
        rows, length = token_BT.shape
        pool = Pool(rows, self.reader.config.width, self.reader.embedding.weight)
        state: State = self.reader.zero_state(rows)
        start_of_gradient = length - pieces.backward if pieces.backward else 0
        for start in range(0, length, pieces.chunk):
            piece_BT = token_BT[:, start : start + pieces.chunk]
            place_T = torch.arange(start, start + piece_BT.shape[1], device=token_BT.device)
            with torch.set_grad_enabled(torch.is_grad_enabled() and start >= start_of_gradient):
                reading = self.reader.read(piece_BT, state, noise)
                pool.add(reading.dropped_BTD, place_T < length_B[:, None])
            state = reading.state
        return pool.result(self.pooling)

    def groups(self) -> list[dict[str, nn.Parameter]]:
        """Parameters by layer, the lowest first and the head last; the reader's output layer is not used."""
        below = self.reader.groups()[:-1]
        return [*below, dict(self.head.named_parameters())]
