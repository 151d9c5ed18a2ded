"""ELMo: a forward and a backward language model over characters, and mixtures of their layers (Peters et al. 2018)."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from lineal.errors import UsageError
from lineal.models import awd_lstm
from lineal.models.char_cnn import CharacterConfig, CharacterReader
from lineal.models.dropout import drop

State = tuple[tuple[Tensor, Tensor], ...]
"""(output, cell) of each layer of one direction: [B, projection] and [B, cells]."""
DIRECTIONS = ("forward", "backward")
WEIGHTS = (*awd_lstm.WEIGHTS, "weight_hr_l0")
"""Of an LSTM layer with a projection."""


@dataclass(frozen=True)
class ElmoConfig:
    """The shape of a bidirectional language model.

    projection: of every layer's output, and of a word's vector. cells: of an LSTM layer. cell_clip, output_clip: bounds
    of cells and outputs at every step (3 in the published models; None for none, which is much faster on a CPU).
    residual: a layer above the first adds its input. vocab_size: words that the output layer tells apart, 0 for none.
    """

    characters: CharacterConfig = field(default_factory=CharacterConfig)
    cells: int = 4096
    layers: int = 2
    residual: bool = True
    cell_clip: float | None = 3.0
    output_clip: float | None = 3.0
    dropout: float = 0.1
    vocab_size: int = 0
    layout: str = "lineal_elmo"

    def __post_init__(self) -> None:
        for name in ("cells", "layers"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} must be at least 1; {getattr(self, name)} was given.")
        if not 0 <= self.dropout < 1:
            raise UsageError(f"dropout {self.dropout:g}: it must be at least 0 and below 1.")
        for name in ("cell_clip", "output_clip"):
            if (bound := getattr(self, name)) is not None and not bound > 0:
                raise UsageError(f"{name} {bound}: a bound is above 0; without one there is no clipping.")
        if self.cells <= self.projection:
            raise UsageError(
                f"{self.cells} cells cannot be projected to {self.projection}: give more cells than outputs."
            )

    @property
    def projection(self) -> int:
        """The width of every layer's output."""
        return self.characters.projection

    @property
    def width(self) -> int:
        """The width of both directions together: of what a task is given."""
        return 2 * self.projection

    @property
    def inner(self) -> int:
        """The width of its widest product, for the probe of speed."""
        return 4 * self.cells


class BiLM(nn.Module):
    """A word's vector from its characters, and over it an LSTM with projections in each direction.

    The directions share the characters' layers and the output layer: log p(t_k | before; x, s) + log p(t_k | after; x, s).
    """

    def __init__(self, config: ElmoConfig):
        super().__init__()
        self.config = config
        self.words = CharacterReader(config.characters)
        size = config.projection

        def stack() -> nn.ModuleList:
            return nn.ModuleList(
                nn.LSTM(size, config.cells, batch_first=True, proj_size=size) for _ in range(config.layers)
            )

        self.forward_layers, self.backward_layers = stack(), stack()
        self.softmax = nn.Linear(size, config.vocab_size) if config.vocab_size else None

    @property
    def device(self) -> torch.device:
        """Where the parameters live."""
        return self.words.projection.weight.device

    def zero_state(self, rows: int) -> State:
        """The state of a direction before the first word."""
        like, config = self.words.projection.weight, self.config
        pair = (like.new_zeros(rows, config.projection), like.new_zeros(rows, config.cells))
        return (pair,) * config.layers

    def read(
        self, word_BTD: Float[Tensor, "B T D"], direction: str, state: State | None = None
    ) -> tuple[list[Tensor], State]:
        """Each layer's outputs in one direction, words in the order in which it meets them, and the state after them."""
        state = self.zero_state(len(word_BTD)) if state is None else state
        x_BTD, outputs, after = word_BTD, [], []
        layers = self.forward_layers if direction == "forward" else self.backward_layers
        for index, layer in enumerate(layers):
            assert isinstance(layer, nn.LSTM)
            out_BTD, found = _projected_lstm(self._drop(x_BTD), state[index], layer, self.config)
            x_BTD = out_BTD + x_BTD if self.config.residual and index else out_BTD
            outputs.append(x_BTD)
            after.append(found)
        return outputs, tuple(after)

    def _drop(self, x_BTD: Tensor) -> Tensor:
        p = self.config.dropout
        return drop(x_BTD, p) if self.training and p else x_BTD

    def layers_of(
        self, word_BTD: Float[Tensor, "B T D"], mask_BT: Bool[Tensor, "B T"]
    ) -> list[Float[Tensor, "B T W"]]:
        """h_0 .. h_L of each word, [forward; backward] (h_0 is the word's vector twice); mask_BT: True at words.

        Every row is read from its own first word forward and from its own last word backward.
        """
        turned_BT = reversed_places(mask_BT)
        rows_B1 = torch.arange(len(mask_BT), device=mask_BT.device)[:, None]
        forward, _ = self.read(word_BTD, "forward")
        backward, _ = self.read(word_BTD[rows_B1, turned_BT], "backward")
        both = [
            torch.cat([f_BTD, b_BTD[rows_B1, turned_BT]], -1)
            for f_BTD, b_BTD in zip(forward, backward, strict=True)
        ]
        return [torch.cat([word_BTD, word_BTD], -1), *both]

    def output_layer(self) -> tuple[Float[Tensor, "V D"], Float[Tensor, " V"]]:
        """Weight and bias of the output layer. Raises UsageError where there is none."""
        if self.softmax is None:
            raise UsageError(
                "this model has no output layer (published weights have none): it cannot predict words."
            )
        return self.softmax.weight, self.softmax.bias

    def logits(self, hidden: Float[Tensor, "*N D"]) -> Float[Tensor, "*N V"]:
        """Scores of the next word, [..., V]."""
        return F.linear(hidden, *self.output_layer())

    @torch.no_grad()
    def initialise(self, seed: int) -> BiLM:
        """Fresh weights: the characters' as bilm-tf draws them; LSTMs uniform in +-1/sqrt(inputs), forget gates at 1."""
        generator = torch.Generator().manual_seed(seed)
        self.words.initialise(generator)
        for name, parameter in self.named_parameters():
            if name.startswith("words."):
                continue
            if parameter.ndim < 2:
                parameter.zero_()
                if ".bias_ih" in name or "bias_ih" in name:
                    parameter.chunk(4)[1].fill_(1.0)
            else:
                draw = torch.rand(parameter.shape, generator=generator)
                parameter.copy_((2 * draw - 1) * parameter.shape[-1] ** -0.5)
        return self


def reversed_places(mask_BT: Bool[Tensor, "B T"]) -> Int[Tensor, "B T"]:
    """Where each place of a row goes when its words are turned round and its padding stays."""
    length_B1 = mask_BT.sum(1, keepdim=True)
    place_1T = torch.arange(mask_BT.shape[1], device=mask_BT.device)[None]
    return torch.where(mask_BT, length_B1 - 1 - place_1T, place_1T)


def _projected_lstm(
    x_BTD: Tensor, state: tuple[Tensor, Tensor], layer: nn.LSTM, config: ElmoConfig
) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """One layer: i, f, g, o = W x_t + U r_{t-1} + b; c = clip(f c + i g); r = clip(P (o tanh(c)))."""
    if config.cell_clip is None and config.output_clip is None:
        with warnings.catch_warnings():
            # That oneDNN has no projections is nothing a user can change.
            warnings.filterwarnings("ignore", message="LSTM with projections")
            out_BTD, (r_1BD, c_1BH) = layer(x_BTD, tuple(part[None].contiguous() for part in state))
        return out_BTD, (r_1BD[0], c_1BH[0])
    r_BD, c_BH = state
    inner, across, biases, more, projection = (layer.get_parameter(name) for name in WEIGHTS)
    gates_BTG = F.linear(x_BTD, inner, biases + more)
    found = []
    for gates_BG in gates_BTG.unbind(1):
        i, f, g, o = (gates_BG + F.linear(r_BD, across)).chunk(4, -1)
        c_BH = _clip(f.sigmoid() * c_BH + i.sigmoid() * g.tanh(), config.cell_clip)
        r_BD = _clip(F.linear(o.sigmoid() * c_BH.tanh(), projection), config.output_clip)
        found.append(r_BD)
    return torch.stack(found, 1), (r_BD, c_BH)


def _clip(x: Tensor, bound: float | None) -> Tensor:
    return x if bound is None else x.clamp(-bound, bound)


class ScalarMix(nn.Module):
    """gamma * sum_j softmax(s)_j h_j over a model's layers  (Peters et al. 2018, eq. 1); s = 0 and gamma = 1 at the start.

    normalise: each h_j first has mean 0 and variance 1 over its own numbers (layer norm without gain).
    """

    def __init__(self, layers: int, normalise: bool = False):
        super().__init__()
        self.score = nn.Parameter(torch.zeros(layers))
        self.gamma = nn.Parameter(torch.ones(()))
        self.normalise = normalise

    @property
    def weights(self) -> Float[Tensor, " L"]:
        """softmax(s): each layer's share."""
        return self.score.softmax(0)

    def forward(self, layers: list[Float[Tensor, "*N D"]]) -> Float[Tensor, "*N D"]:
        """The mixture of the layers."""
        if len(layers) != len(self.score):
            raise UsageError(f"{len(layers)} layers were given to a mixture of {len(self.score)}.")
        if self.normalise:
            layers = [F.layer_norm(h, h.shape[-1:]) for h in layers]
        mixed = sum(weight * h for weight, h in zip(self.weights, layers, strict=True))
        assert isinstance(mixed, Tensor)
        return self.gamma * mixed
