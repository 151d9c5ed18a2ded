"""Language models of LSTMs as generation reads them: what they remember is a state of fixed size, not keys and values."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from lineal.errors import ModelError
from lineal.models.awd_lstm import AWDLSTM
from lineal.models.cache import Rows, Slots
from lineal.models.decoder import Decoder
from lineal.models.gating import Routes
from lineal.models.hf import load_model
from lineal.models.hf.awd import is_awd, load_awd
from lineal.models.hf.recurrent import is_recurrent, load_recurrent
from lineal.models.lstm import RecurrentModel

State = tuple[tuple[Tensor, Tensor], ...]
"""(hidden, cell) of each layer, [B, width] each."""


@dataclass(frozen=True)
class Reach:
    """What generation must know of a model: its words, and how many tokens a row may have, which a state does not limit.

    experts: None, for which of them its tokens go to is not told.
    """

    vocab_size: int
    context: int = sys.maxsize
    experts: None = None


class Recurrent(nn.Module):
    """A language model of LSTMs: of `lineal run moe`, or one direction of `lineal run ulmfit`."""

    def __init__(self, model: RecurrentModel | AWDLSTM):
        super().__init__()
        self.model = model
        self.config = Reach(model.config.vocab_size)

    @property
    def device(self) -> torch.device:
        """Where the parameters live."""
        return self.model.device

    @property
    def dtype(self) -> torch.dtype:
        """The parameters' type."""
        return self.model.embedding.weight.dtype

    def forward(
        self, token_BT: Int[Tensor, "B T"], *, routes: Routes | None = None
    ) -> Float[Tensor, "B T D"]:
        """Hidden states, the state being zero before the first token."""
        return self.read(token_BT, None, routes)[0]

    def read(
        self, token_BT: Int[Tensor, "B T"], state: State | None, routes: Routes | None = None
    ) -> tuple[Tensor, State]:
        """Hidden states, and the state after the last token."""
        if isinstance(self.model, AWDLSTM):
            reading = self.model.read(token_BT, state)
            return reading.raw_BTD, reading.state
        before = None if state is None else tuple((h[None], c[None]) for h, c in state)
        hidden_BTD, after = self.model.read(token_BT, before, routes)
        return hidden_BTD, tuple((h[0], c[0]) for h, c in after)

    def read_next(
        self,
        token_N: Int[Tensor, " N"],
        states: States,
        numbers: Sequence[int],
        routes: Routes | None = None,
    ) -> Float[Tensor, "N D"]:
        """Hidden states of one token for each of some slots, whose states go on."""
        hidden_N1D, state = self.read(token_N[:, None], states.state(numbers), routes)
        states.write(numbers, state)
        return hidden_N1D[:, 0]

    def logits(self, hidden: Float[Tensor, "*N D"]) -> Float[Tensor, "*N V"]:
        """Scores of the next token, [..., V]."""
        return self.model.logits(hidden)


class States(Slots):
    """The states of `slots` rows, all of one model, and how many tokens each has read."""

    def __init__(self, slots: int):
        super().__init__(slots, sys.maxsize)
        self._parts: list[Tensor] = []

    def plan(self, rows: Rows, count: int, width: int) -> range | Sequence[int]:
        """The slots of the rows that read next; there is nothing else to plan."""
        return self.row_numbers(rows, count)

    def state(self, numbers: Sequence[int]) -> State:
        """The state of some slots."""
        parts = [part[list(numbers)] for part in self._parts]
        return tuple(zip(parts[::2], parts[1::2], strict=True))

    def write(self, numbers: Sequence[int], state: State) -> None:
        """Put a state into some slots."""
        flat = [part for pair in state for part in pair]
        if not self._parts:
            self._parts = [part.new_zeros(self.slots, part.shape[1]) for part in flat]
        for part, new in zip(self._parts, flat, strict=True):
            part[list(numbers)] = new

    def copy(self, source: int, targets: Sequence[int]) -> None:
        """Copy one row into others."""
        for part in self._parts:
            part[list(targets)] = part[source].clone()
        for target in targets:
            self.lengths[target] = self.lengths[source]

    def adopt(self, other: States, sources: Sequence[int], first: int) -> None:
        """Copy rows of other states (a source may repeat) into the slots from `first` on."""
        self.write(range(first, first + len(sources)), other.state(sources))
        self.lengths[first : first + len(sources)] = [other.lengths[source] for source in sources]

    def reorder(self, order: Sequence[int]) -> None:
        """Slot i gets what slot `order[i]` holds (a source may repeat); the slots beyond are emptied."""
        self.write(range(len(order)), self.state(order))
        self.lengths = [self.lengths[source] for source in order] + [0] * (self.slots - len(order))


def read_all(model: Recurrent, prompts: Sequence[tuple[int, ...]]) -> tuple[States, Tensor]:
    """All prompts, those of equal length in one pass: a slot for each, and the logits of their next tokens [P, V]."""
    states, logits_PV = States(len(prompts)), None
    for length in sorted({len(prompt) for prompt in prompts}):
        numbers = [i for i, prompt in enumerate(prompts) if len(prompt) == length]
        token_BT = torch.tensor([prompts[i] for i in numbers], device=model.device)
        hidden_BTD, state = model.read(token_BT, None)
        logits_BV = model.logits(hidden_BTD[:, -1])
        states.write(numbers, state)
        for number in numbers:
            states.lengths[number] = length
        logits_PV = logits_BV.new_empty(len(prompts), logits_BV.shape[1]) if logits_PV is None else logits_PV
        logits_PV[numbers] = logits_BV
    assert logits_PV is not None
    return states, logits_PV


def load_language(
    folder: str | Path, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu"
) -> Decoder | Recurrent:
    """The language model of a folder, in eval mode: a decoder, an LSTM, or the forward one of stage lm of ulmfit.

    Raises ModelError naming the file and what is wrong with it.
    """
    if is_recurrent(folder):
        return Recurrent(load_recurrent(folder)).to(dtype=dtype, device=device)
    if is_awd(folder):
        model = load_awd(folder).get("forward")
        if model is None:
            raise ModelError(f"{folder} reads backward only: train a forward model to continue texts with.")
        return Recurrent(model).to(dtype=dtype, device=device)
    return load_model(folder, dtype, device)[0]
