"""What an encoder-decoder looks at while it translates: the weights of every attention, head by head."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from lineal.generate.prefill import evaluating
from lineal.models.multihead import Pass
from lineal.models.transformer import Transformer


@dataclass(frozen=True)
class Looked:
    """Weights of one pass, by layer: encoder to itself, decoder to itself, decoder to the source; each row sums to 1."""

    encoder_LHSS: Float[Tensor, "L H S S"]
    decoder_LHTT: Float[Tensor, "L H T T"]
    cross_LHTS: Float[Tensor, "L H T S"]


def look(model: Transformer, source: Sequence[int], target: Sequence[int]) -> Looked:
    """The weights for one source and a target (with its start token), both as ids."""
    seen: list[Tensor] = []
    with evaluating(model):
        going = Pass(maps=seen)
        memory_1SD = model.encode(torch.tensor([list(source)], device=model.device), None, going)
        model.decode(torch.tensor([list(target)], device=model.device), memory_1SD, None, going)
    count = model.config.encoder_layers
    both = seen[count:]
    return Looked(*(torch.cat(part) for part in (seen[:count], both[::2], both[1::2])))
