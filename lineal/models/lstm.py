"""A language model of LSTM layers, with a mixture of experts between two of them (Shazeer et al. 2017, appendix C.1)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from lineal.errors import UsageError
from lineal.models.dropout import drop
from lineal.models.gating import ExpertsConfig, Routes
from lineal.models.moe import Mixture

State = tuple[tuple[Tensor, Tensor], ...]
"""(hidden, cell) of each LSTM layer, [1, B, width] each."""


@dataclass(frozen=True)
class LSTMConfig:
    """The shape of a recurrent language model.

    width: of the embedding, of every layer's output and of the stream between them. layers: LSTM layers.
    context: tokens that training reads in one piece; the state starts at zero there.
    hidden: cells of an LSTM layer, projected to `width` when they differ (LSTM-2048-512). tied: the output layer is the
    embedding. experts: the mixture after the first LSTM layer, or None. dropout: of every layer's output but the last.
    """

    vocab_size: int
    width: int
    context: int
    layers: int = 2
    hidden: int | None = None
    experts: ExpertsConfig | None = None
    dropout: float = 0.0
    tied: bool = False
    layout: str = "lineal_lstm"

    def __post_init__(self) -> None:
        for name in ("vocab_size", "width", "context", "layers"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} must be at least 1; {getattr(self, name)} was given.")
        if not 0 <= self.dropout < 1:
            raise UsageError(f"dropout {self.dropout}: it must be at least 0 and below 1.")
        if self.hidden is not None and self.hidden < self.width:
            raise UsageError(f"{self.hidden} cells cannot be projected up to a width of {self.width}.")
        if self.layout != "lineal_lstm":
            raise UsageError(f"layout {self.layout!r} is no recurrent model's: it is lineal_lstm.")

    @property
    def inner(self) -> int:
        """The width of its widest product, for the probe of speed."""
        return self.experts.inner if self.experts is not None else 4 * self.width


class RecurrentModel(nn.Module):
    """Embedding, LSTM, mixture of experts, LSTM, softmax.

    Each layer's output f(x) goes into the stream as x + dropout(f(x)); the mixture's passes a sigmoid before, so it is
    x + dropout(sigmoid(mixture(x))). The embedding is dropped out as well. `model(token_BT)` gives the hidden states
    before the softmax, `model.logits(hidden)` the scores of the next token. The state is zero before the first token,
    unless one is given.
    """

    def __init__(self, config: LSTMConfig):
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocab_size, config.width)
        hidden = config.hidden or config.width
        projected = config.width if hidden != config.width else 0
        self.layers = nn.ModuleList(
            nn.LSTM(config.width, hidden, batch_first=True, proj_size=projected) for _ in range(config.layers)
        )
        self.mixture = None if config.experts is None else Mixture(config.experts, config.width)
        self.head = None if config.tied else nn.Linear(config.width, config.vocab_size, bias=False)

    @property
    def head_weight(self) -> Tensor:
        """The output layer's weight [V, D]; the embedding when they are tied."""
        return self.embedding.weight if self.head is None else self.head.weight

    @property
    def device(self) -> torch.device:
        """Where the parameters live."""
        return self.embedding.weight.device

    @property
    def dtype(self) -> torch.dtype:
        """The parameters' type."""
        return self.embedding.weight.dtype

    def forward(
        self, token_BT: Int[Tensor, "B T"], *, routes: Routes | None = None
    ) -> Float[Tensor, "B T D"]:
        """Hidden states [B, T, D], the state being zero before the first token."""
        return self.read(token_BT, None, routes)[0]

    def read(
        self, token_BT: Int[Tensor, "B T"], state: State | None = None, routes: Routes | None = None
    ) -> tuple[Tensor, State]:
        """Hidden states, and the state after the last token, from which reading can go on."""
        x_BTD = self._drop(self.embedding(token_BT))
        states = []
        for index, layer in enumerate(self.layers):
            found_BTD, after = layer(x_BTD, None if state is None else state[index])
            states.append(after)
            x_BTD = x_BTD + self._drop(found_BTD)
            if index == 0 and self.mixture is not None:
                x_BTD = x_BTD + self._drop(self.mixture(x_BTD, routes, 0).sigmoid())
        return x_BTD, tuple(states)

    def _drop(self, x_BTD: Tensor) -> Tensor:
        dropout = self.config.dropout
        return drop(x_BTD, dropout) if self.training and dropout else x_BTD

    def logits(self, hidden: Float[Tensor, "*N D"]) -> Float[Tensor, "*N V"]:
        """Scores of the next token, [..., V]."""
        return F.linear(hidden, self.head_weight)

    @torch.no_grad()
    def initialise(self, seed: int) -> RecurrentModel:
        """Draw fresh weights: uniform within 1/sqrt(inputs), biases 0 but for the forget gates' 1, noisy gates zero.

        The draw depends on the seed and the configuration only.
        """
        generator = torch.Generator().manual_seed(seed)
        noisy = self.config.experts is not None and self.config.experts.noisy
        for name, parameter in self.named_parameters():
            if parameter.ndim < 2:
                parameter.zero_()
                if ".bias_ih" in name:
                    parameter.chunk(4)[1].fill_(1.0)
            elif noisy and "gate." in name:
                parameter.zero_()
            else:
                inputs = self.config.width if name == "embedding.weight" else parameter.shape[-1]
                draw = torch.rand(parameter.shape, generator=generator, dtype=torch.float32)
                parameter.copy_((2 * draw - 1) / inputs**0.5)
        return self


def recurrent_parameters(config: LSTMConfig) -> tuple[int, int]:
    """All parameters, and those that one token meets; nothing is allocated."""
    with torch.device("meta"):
        whole = sum(parameter.numel() for parameter in RecurrentModel(config).parameters())
    experts = config.experts
    if experts is None:
        return whole, whole
    one = config.width * experts.inner * (3 if experts.activation == "swiglu" else 2)
    return whole, whole - (experts.count - experts.active) * one
