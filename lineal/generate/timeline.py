"""What every row drew, and the random numbers it will draw with, laid out by time."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lineal.generate.random import uniform_int


class Timeline:
    """Planes [time, slot] of ids, log-probabilities and uniforms: one row of a plane is one step of the batch.

    All rows of the batch draw at the same instant, whatever their positions, so that a step reads and writes plain
    slices. A row's completion is the part of its column between the instant it joined and now. Planes grow by what
    the oldest row needs; instants count from the beginning and never restart.
    """

    def __init__(self, slots: int, instants: int, device: torch.device | str = "cpu"):
        self.now = 0
        self.start = [0] * slots
        self._base, self._slots = 0, slots
        self._key_B = torch.zeros(slots, dtype=torch.int64, device=device)
        self._id_SB = torch.zeros(instants, slots, dtype=torch.int64, device=device)
        self._logp_SB = torch.zeros(instants, slots, dtype=torch.float64, device=device)
        self._uniform_SB = torch.zeros(instants, slots, dtype=torch.int64, device=device)

    def join(self, first: int, key_N: Int[Tensor, " N"]) -> None:
        """Rows with these keys take the slots from `first` on; their first token is drawn now."""
        last = first + len(key_N)
        self._key_B[first:last] = key_N
        self.start[first:last] = [self.now] * len(key_N)
        position_S1 = torch.arange(len(self._id_SB) - (self.now - self._base), device=key_N.device)[:, None]
        self._uniform_SB[self.now - self._base :, first:last] = uniform_int(key_N[None], position_S1)

    def uniform(self, rows: int) -> Int[Tensor, " N"]:
        """The uniforms with which the first `rows` slots draw now."""
        if self.now - self._base == len(self._id_SB):
            self._make_room(rows)
        return self._uniform_SB[self.now - self._base, :rows]

    def record(self, token_N: Int[Tensor, " N"], logp_N: Float[Tensor, " N"]) -> None:
        """The first N slots drew these tokens; the next instant begins."""
        at, rows = self.now - self._base, len(token_N)
        self._id_SB[at, :rows] = token_N
        self._logp_SB[at, :rows] = logp_N
        self.now += 1

    def ids(self, slot: int) -> list[int]:
        """The completion in a slot so far."""
        return self._id_SB[self.start[slot] - self._base : self.now - self._base, slot].tolist()

    def take(self, slots: list[int]) -> list[tuple[tuple[int, ...], tuple[float, ...]]]:
        """ids and log-probabilities of the completions in these slots, in one transfer each."""
        first = min(self.start[slot] for slot in slots)
        span = slice(first - self._base, self.now - self._base)
        ids, logp = self._id_SB[span, slots].T.tolist(), self._logp_SB[span, slots].T.tolist()
        begin = [self.start[slot] - first for slot in slots]
        return [(tuple(i[at:]), tuple(lp[at:])) for i, lp, at in zip(ids, logp, begin, strict=True)]

    def move(self, sources: list[int], targets: list[int]) -> None:
        """The rows in slots `sources` move to slots `targets`."""
        for plane in (self._id_SB, self._logp_SB, self._uniform_SB):
            plane[:, targets] = plane[:, sources]
        self._key_B[targets] = self._key_B[sources]
        for source, target in zip(sources, targets, strict=True):
            self.start[target] = self.start[source]

    def _make_room(self, rows: int) -> None:
        oldest = min(self.start[:rows])
        live = self.now - oldest
        instants = max(len(self._id_SB), 2 * live)
        for name in ("_id_SB", "_logp_SB", "_uniform_SB"):
            plane = getattr(self, name)
            wider = plane.new_zeros(instants, self._slots)
            wider[:live] = plane[oldest - self._base : self.now - self._base]
            setattr(self, name, wider)
        self._base = oldest
        start_B = torch.tensor(self.start, device=self._key_B.device)
        instant_S1 = torch.arange(self.now, oldest + instants, device=self._key_B.device)[:, None]
        self._uniform_SB[live:] = uniform_int(self._key_B[None], instant_S1 - start_B)
