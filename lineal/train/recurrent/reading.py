"""What carries a recurrent reader through a text: its state between windows, and figures on held-out text."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor, nn

from lineal.errors import DataError
from lineal.models.awd_lstm import AWDLSTM, State
from lineal.ops.smoothing import smoothed_loss

COLUMNS, STRETCH = 32, 128
"""Columns that an evaluation reads side by side, and tokens that it reads at once."""


class Carried(nn.Module):
    """Models, and the state that each direction carries from one window to the next: all that a checkpoint needs to go on
    within a text."""

    def __init__(self, models: nn.Module, states: Mapping[str, State]):
        super().__init__()
        self.models = models
        self._depth = {direction: len(state) for direction, state in states.items()}
        for direction, state in states.items():
            for index, (output, cell) in enumerate(state):
                self.register_buffer(f"{direction}_{index}_output", output.clone())
                self.register_buffer(f"{direction}_{index}_cell", cell.clone())

    def state(self, direction: str) -> State:
        """The state of a direction."""
        return tuple(
            (getattr(self, f"{direction}_{i}_output"), getattr(self, f"{direction}_{i}_cell"))
            for i in range(self._depth[direction])
        )

    @torch.no_grad()
    def carry(self, direction: str, state: State | None) -> None:
        """Keep a state, cut off from what made it; None, or one that is not finite, is zero."""
        if state is not None and not all(bool(part.isfinite().all()) for pair in state for part in pair):
            state = None
        for index, old in enumerate(self.state(direction)):
            for number, value in enumerate(old):
                if state is None:
                    value.zero_()
                else:
                    value.copy_(state[index][number])


@dataclass(frozen=True)
class Listener:
    """One direction of a language model as an evaluation uses it.

    read: tokens [B, T] and a state to hidden states [B, T, D] and the state after them. weight, bias: the output layer's.
    target: of a token, its number there.
    """

    zero_state: Callable[[int], State]
    read: Callable[[Tensor, State], tuple[Tensor, State]]
    weight: Tensor
    bias: Tensor
    target: Callable[[Tensor], Tensor]


def listener(model: AWDLSTM) -> Listener:
    """An AWD-LSTM as an evaluation uses it."""

    def read(token_BT: Tensor, state: State) -> tuple[Tensor, State]:
        reading = model.read(token_BT.to(model.device), state)
        return reading.raw_BTD, reading.state

    return Listener(
        model.zero_state, read, model.head_weight, model.bias, lambda token_N: token_N.to(model.device)
    )


@torch.no_grad()
def held_out_figures(model: Listener, stream_N: Int[Tensor, " N"], most: int = 0) -> dict[str, float]:
    """Loss in nats per token, perplexity exp(loss) and share of tokens right, on a stream in the order of reading.

    most: read at most so many tokens (0: all). Read in columns, of which each begins with a state of zero.
    """
    stream_N = stream_N.long()[: most + 1 if most else None]
    rows = min(COLUMNS, max(1, (len(stream_N) - 1) // STRETCH))
    length = (len(stream_N) - 1) // rows
    if length < 1:
        raise DataError(
            f"{len(stream_N)} tokens are held out: give more to evaluate on (--held-out, --eval-data)."
        )
    input_BN, target_BN = (stream_N[s : s + rows * length].view(rows, length) for s in (0, 1))
    state, sums_2 = model.zero_state(rows), torch.zeros(2, dtype=torch.float64)
    for start in range(0, length, STRETCH):
        hidden_BTD, state = model.read(input_BN[:, start : start + STRETCH], state)
        target_N = model.target(target_BN[:, start : start + STRETCH].flatten())
        loss, _, right = smoothed_loss(hidden_BTD.flatten(0, 1), model.weight, target_N, bias_V=model.bias)
        sums_2 += torch.stack([loss.double(), right.double()]).cpu()
    loss, right = (sums_2 / (rows * length)).tolist()
    return {"loss": loss, "perplexity": perplexity(loss), "token_accuracy": right}


def perplexity(loss: float) -> float:
    """exp(loss), infinite where it is too large for a number."""
    return math.exp(loss) if loss < 700 else math.inf


def both_directions(found: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """Figures for the log: the means over directions (of perplexities, the perplexity of the mean loss), and each."""
    loss, right = (
        sum(each[name] for each in found.values()) / len(found) for name in ("loss", "token_accuracy")
    )
    mean = {"loss": loss, "perplexity": perplexity(loss), "token_accuracy": right}
    own = {f"eval/{d}_{n}": v for d, each in found.items() for n, v in each.items()}
    return {f"eval/{name}": value for name, value in mean.items()} | (own if len(found) > 1 else {})


def spoken(figures: Mapping[str, float]) -> str:
    """Figures as people read them."""
    return ", ".join(f"{n.removeprefix('eval/').replace('_', ' ')} {v:.4f}" for n, v in figures.items())
