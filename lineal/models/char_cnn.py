"""Words from their characters: convolutions of several widths, the largest of each, highway layers (Kim et al. 2016)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from lineal.errors import UsageError

CHARACTERS = 262
"""Ids of characters: 0 pads where there is no word; 1 to 256 are bytes; then the five marks."""
BEGIN_SENTENCE, END_SENTENCE, BEGIN_WORD, END_WORD, PAD = (1 + 256 + i for i in range(5))
"""The ids of the published models, each one more than in bilm-tf, where 0 does not stand for an absent word."""
BOS, EOS = "<S>", "</S>"


def character_ids(words: Sequence[str], most: int = 50) -> Int[Tensor, "N C"]:
    """The UTF-8 bytes of each word between two marks, padded to `most`; what is longer is cut. BOS and EOS are marks."""
    found = np.full((len(words), most), PAD, dtype=np.int64)
    found[:, 0] = BEGIN_WORD
    for row, word in zip(found, words, strict=True):
        if word in (BOS, EOS):
            row[1:3] = (BEGIN_SENTENCE if word == BOS else END_SENTENCE), END_WORD
            continue
        data = np.frombuffer(word.encode("utf-8", "ignore")[: most - 2], dtype=np.uint8)
        row[1 : 1 + len(data)] = data.astype(np.int64) + 1
        row[1 + len(data)] = END_WORD
    return torch.from_numpy(found)


@dataclass(frozen=True)
class CharacterConfig:
    """The shape of the character reader; the names are those of the published options.json.

    filters: (width in characters, how many). n_highway: highway layers. dim: of a character's vector. projection: of the
    word's. activation: relu or tanh, of the convolutions.
    """

    filters: tuple[tuple[int, int], ...] = (
        (1, 32),
        (2, 32),
        (3, 64),
        (4, 128),
        (5, 256),
        (6, 512),
        (7, 1024),
    )
    n_highway: int = 2
    dim: int = 16
    projection: int = 512
    activation: str = "relu"
    max_characters: int = 50

    def __post_init__(self) -> None:
        if not self.filters or min(min(pair) for pair in self.filters) < 1:
            raise UsageError(f"filters {self.filters}: each is a width and a number, at least 1.")
        if min(self.dim, self.projection, self.n_highway + 1) < 1:
            raise UsageError(
                f"dim {self.dim} and projection {self.projection} must be at least 1, n_highway {self.n_highway} at least 0."
            )
        if self.max_characters < 3:
            raise UsageError(
                f"max_characters {self.max_characters}: a word has at least 3, two of them its marks."
            )
        if self.activation not in ("relu", "tanh"):
            raise UsageError(f"activation {self.activation!r} is neither relu nor tanh.")
        if max(width for width, _ in self.filters) > self.max_characters:
            raise UsageError(f"filters {self.filters} are wider than {self.max_characters} characters.")

    @property
    def width(self) -> int:
        """Of what the highway layers carry."""
        return sum(count for _, count in self.filters)


class CharacterReader(nn.Module):
    """A word's vector from its characters.

    u = f(max over places of conv(c) + b), all widths side by side; then, layer by layer, u <- g * relu(W u + b) + (1 - g) * u
    with g = sigmoid(V u + c) (Srivastava et al. 2015); then a projection. Paddings are characters like others, as published.
    """

    def __init__(self, config: CharacterConfig):
        super().__init__()
        self.config = config
        self.characters = nn.Embedding(CHARACTERS, config.dim, padding_idx=0)
        self.convolutions = nn.ModuleList(nn.Conv1d(config.dim, n, w) for w, n in config.filters)
        width = config.width
        self.carry = nn.ModuleList(nn.Linear(width, width) for _ in range(config.n_highway))
        self.transform = nn.ModuleList(nn.Linear(width, width) for _ in range(config.n_highway))
        self.projection = nn.Linear(width, config.projection)

    def forward(self, character_NC: Int[Tensor, "N C"]) -> Float[Tensor, "N D"]:
        """The vectors of N words."""
        x_NEC = self.characters(character_NC).transpose(1, 2)
        f = torch.relu if self.config.activation == "relu" else torch.tanh
        u_ND = torch.cat([f(convolve(x_NEC).amax(-1)) for convolve in self.convolutions], -1)
        for carry, transform in zip(self.carry, self.transform, strict=True):
            gate_ND = carry(u_ND).sigmoid()
            u_ND = gate_ND * F.relu(transform(u_ND)) + (1 - gate_ND) * u_ND
        return self.projection(u_ND)

    @torch.no_grad()
    def initialise(self, generator: torch.Generator) -> CharacterReader:
        """Fresh weights as bilm-tf draws them: characters in +-1, convolutions in +-0.05 (tanh: N(0, 1/(width dim))),
        linear layers N(0, 1/inputs) with highway gates at bias -2, so that they begin by passing words on."""

        def draw(parameter: Tensor, spread: float, normal: bool) -> None:
            shape = parameter.shape
            unit = (
                torch.randn(shape, generator=generator)
                if normal
                else 2 * torch.rand(shape, generator=generator) - 1
            )
            parameter.copy_(unit * spread)

        draw(self.characters.weight, 1.0, False)
        self.characters.weight[0] = 0
        for convolve in self.convolutions:
            weight = convolve.weight
            assert isinstance(weight, Tensor) and isinstance(convolve.bias, Tensor)
            narrow = (weight.shape[1] * weight.shape[2]) ** -0.5
            draw(
                weight, 0.05 if self.config.activation == "relu" else narrow, self.config.activation == "tanh"
            )
            convolve.bias.zero_()
        for linear in (*self.carry, *self.transform, self.projection):
            assert isinstance(linear, nn.Linear)
            draw(linear.weight, linear.in_features**-0.5, True)
            linear.bias.zero_()
        for carry in self.carry:
            assert isinstance(carry, nn.Linear)
            carry.bias.fill_(-2.0)
        return self
