"""AWD-LSTM: a language model of LSTM layers under five kinds of dropout (Merity, Keskar and Socher 2018)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from lineal.errors import UsageError
from lineal.models.dropout import Masks

State = tuple[tuple[Tensor, Tensor], ...]
"""(hidden, cell) of each layer, [B, H] each."""


@dataclass(frozen=True)
class AWDConfig:
    """The shape of an AWD-LSTM and its dropout.

    width: of the embedding and of the last layer's output, so that the output layer can be the embedding (`tied`).
    hidden: of the other layers' outputs. embedding_dropout: whole words; input_dropout: of the embedded text;
    weight_dropout: single recurrent weights; hidden_dropout: between layers; output_dropout: of the last output.
    """

    vocab_size: int
    width: int = 400
    hidden: int = 1150
    layers: int = 3
    tied: bool = True
    embedding_dropout: float = 0.05
    input_dropout: float = 0.4
    weight_dropout: float = 0.5
    hidden_dropout: float = 0.3
    output_dropout: float = 0.4
    layout: str = "lineal_awd_lstm"

    def __post_init__(self) -> None:
        for name in ("vocab_size", "width", "hidden", "layers"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} must be at least 1; {getattr(self, name)} was given.")
        for name in DROPOUTS:
            if not 0 <= getattr(self, name) < 1:
                raise UsageError(f"{name} {getattr(self, name)}: a dropout is at least 0 and below 1.")
        if self.layout != "lineal_awd_lstm":
            raise UsageError(f"layout {self.layout!r} is no AWD-LSTM's: it is lineal_awd_lstm.")

    @property
    def inner(self) -> int:
        """The width of its widest product, for the probe of speed."""
        return 4 * self.hidden

    @property
    def widths(self) -> list[int]:
        """The width of each layer's output."""
        return [self.hidden] * (self.layers - 1) + [self.width]


WEIGHTS = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")
"""Of an LSTM layer, in the order in which torch's kernel takes them."""
DROPOUTS = ("embedding_dropout", "input_dropout", "weight_dropout", "hidden_dropout", "output_dropout")


class Directions(nn.Module):
    """A module for each direction of reading, "forward" or "backward"; each has weights of its own."""

    def __init__(self, modules: Mapping[str, nn.Module]):
        super().__init__()
        self.names = tuple(modules)
        self.each = nn.ModuleList(modules.values())

    def items(self) -> list[tuple[str, Any]]:
        """(direction, module) of each."""
        return list(zip(self.names, self.each, strict=True))


@dataclass(frozen=True)
class Noise:
    """The dropout masks of one training step; whoever reads several pieces under the same masks reads as in one pass.

    word_V: kept words. input_B1D, output_B1D, hidden_B1D: of sequences, the same at every token (Gal and Ghahramani 2016).
    weight: of each layer's recurrent matrix. None where nothing is dropped; every mask holds 0 or 1/(1 - p).
    """

    word_V: Tensor | None
    input_B1D: Tensor | None
    hidden_B1D: list[Tensor | None]
    output_B1D: Tensor | None
    weight: list[Tensor | None]


@dataclass(frozen=True)
class Reading:
    """The last layer's output before dropout (what TAR looks at) and after it, and the state after the last token."""

    raw_BTD: Tensor
    dropped_BTD: Tensor
    state: State


class AWDLSTM(nn.Module):
    """Embedding, LSTM layers, softmax; without noise it reads as a plain LSTM language model.

    Each recurrent matrix U of a layer is used as U * m / (1 - p), one mask m for all tokens of a step (DropConnect, Wan et
    al. 2013): i, f, g, o = W x_t + (U * m / (1 - p)) h_{t-1} + b. The output layer is the embedding with a bias.
    """

    def __init__(self, config: AWDConfig):
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocab_size, config.width)
        inputs = [config.width, *config.widths[:-1]]
        self.layers = nn.ModuleList(
            nn.LSTM(i, o, batch_first=True) for i, o in zip(inputs, config.widths, strict=True)
        )
        self.head = None if config.tied else nn.Linear(config.width, config.vocab_size, bias=False)
        self.bias = nn.Parameter(torch.zeros(config.vocab_size))

    @property
    def device(self) -> torch.device:
        """Where the parameters live."""
        return self.embedding.weight.device

    def zero_state(self, rows: int) -> State:
        """The state before the first token."""
        like = self.embedding.weight
        return tuple((like.new_zeros(rows, w), like.new_zeros(rows, w)) for w in self.config.widths)

    def draw(self, masks: Masks, rows: int) -> Noise:
        """The dropout masks for `rows` sequences, from a stream that is a function of (seed, step)."""
        config, like = self.config, self.embedding.weight.detach()

        def ones(p: float, *shape: int) -> Tensor | None:
            return masks(like.new_ones(shape), p) if p else None

        return Noise(
            ones(config.embedding_dropout, config.vocab_size),
            ones(config.input_dropout, rows, 1, config.width),
            [ones(config.hidden_dropout, rows, 1, width) for width in config.widths[:-1]] + [None],
            ones(config.output_dropout, rows, 1, config.width),
            [ones(config.weight_dropout, 4 * width, width) for width in config.widths],
        )

    def read(
        self, token_BT: Int[Tensor, "B T"], state: State | None = None, noise: Noise | None = None
    ) -> Reading:
        """What the layers make of the tokens, going on from a state (zero where none is given)."""
        state = self.zero_state(len(token_BT)) if state is None else state
        x_BTD, after = self.embedding(token_BT), []
        if noise is not None and noise.word_V is not None:
            x_BTD = x_BTD * noise.word_V[token_BT][..., None]
        x_BTD = _times(x_BTD, noise and noise.input_B1D)
        raw_BTD = x_BTD
        for index, layer in enumerate(self.layers):
            weights: list[Tensor] = [layer.get_parameter(name) for name in WEIGHTS]
            weights[1] = _times(weights[1], noise and noise.weight[index])
            raw_BTD, found = _lstm(x_BTD, state[index], weights, self.training)
            after.append(found)
            x_BTD = _times(raw_BTD, noise and noise.hidden_B1D[index])
        return Reading(raw_BTD, _times(raw_BTD, noise and noise.output_B1D), tuple(after))

    def forward(self, token_BT: Int[Tensor, "B T"]) -> Float[Tensor, "B T D"]:
        """The last layer's output [B, T, D], without dropout, the state being zero before the first token."""
        return self.read(token_BT).raw_BTD

    @property
    def head_weight(self) -> Tensor:
        """The output layer's weight [V, D]; the embedding when they are tied."""
        return self.embedding.weight if self.head is None else self.head.weight

    def logits(self, hidden: Float[Tensor, "*N D"]) -> Float[Tensor, "*N V"]:
        """Scores of the next token, [..., V]."""
        return F.linear(hidden, self.head_weight, self.bias)

    def groups(self) -> list[dict[str, nn.Parameter]]:
        """Parameters by layer, the lowest first: the embedding, then each LSTM; the output layer's own come last."""
        named = dict(self.named_parameters())
        prefixes = ["embedding.", *(f"layers.{i}." for i in range(len(self.layers)))]
        found = [{n: p for n, p in named.items() if n.startswith(prefix)} for prefix in prefixes]
        return [*found, {n: p for n, p in named.items() if n.startswith(("head.", "bias"))}]

    @torch.no_grad()
    def initialise(self, seed: int) -> AWDLSTM:
        """Draw fresh weights: embeddings uniform in +-0.1, LSTMs in +-1/sqrt(hidden), the output's bias 0 (the authors')."""
        generator = torch.Generator().manual_seed(seed)
        for name, parameter in self.named_parameters():
            if name == "bias":
                parameter.zero_()
                continue
            table = name in ("embedding.weight", "head.weight")
            bound = 0.1 if table else (parameter.shape[0] // 4) ** -0.5
            draw = torch.rand(parameter.shape, generator=generator, dtype=torch.float32)
            parameter.copy_((2 * draw - 1) * bound)
        return self


def _times(x: Tensor, mask: Tensor | None) -> Tensor:
    return x if mask is None else x * mask


def _lstm(
    x_BTD: Tensor, state: tuple[Tensor, Tensor], weights: list[Tensor], training: bool
) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """One layer by torch's fused kernel, whose weights need not be parameters: that is where weight drop comes in."""
    hidden_1BD, cell_1BD = (part[None].contiguous() for part in state)
    out_BTD, hidden_1BD, cell_1BD = torch._VF.lstm(  # type: ignore[attr-defined]
        x_BTD, (hidden_1BD, cell_1BD), weights, True, 1, 0.0, training, False, True
    )
    return out_BTD, (hidden_1BD[0], cell_1BD[0])


@torch.no_grad()
def with_vocabulary(model: AWDLSTM, config: AWDConfig, origin_V: list[int | None]) -> AWDLSTM:
    """The model for another vocabulary: token i takes the rows of the old token origin_V[i]; a new one takes the mean of
    all old rows (Howard and Ruder's code)."""
    other = AWDLSTM(config).to(model.embedding.weight)
    present = dict(model.named_parameters())
    known = torch.tensor([i for i, old in enumerate(origin_V) if old is not None])
    old_of = torch.tensor([old for old in origin_V if old is not None])
    for name, parameter in other.named_parameters():
        old = present[name]
        if name in ("embedding.weight", "head.weight", "bias"):
            parameter.copy_(old.mean(0).expand_as(parameter))
            parameter[known] = old[old_of]
        else:
            parameter.copy_(old)
    return other


def activation_penalties(
    reading: Reading, activation: float, temporal: float
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """(AR, TAR): a mean(dropped h_t^2) and b mean((h_t - h_{t-1})^2) of the last layer  (Merity et al. 2018, section 4.3).

    Means are over all numbers of the batch, as in the authors' code; the paper writes norms.
    """
    raw_BTD, zero = reading.raw_BTD, reading.raw_BTD.new_zeros(())
    small = activation * reading.dropped_BTD.square().mean() if activation else zero
    # A window of one token has no step in time.
    moving = temporal and raw_BTD.shape[1] > 1
    slow = temporal * (raw_BTD[:, 1:] - raw_BTD[:, :-1]).square().mean() if moving else zero
    return small, slow
