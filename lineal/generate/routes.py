"""Which experts each token of a batch went to while it was sampled: kept beside the timeline, so that training can use
the same ones (routing replay)."""

from __future__ import annotations

import torch
from torch import Tensor

from lineal.models.gating import Routes


def chosen(routes: Routes) -> Tensor:
    """The experts of a pass [tokens, mixture layers, k], in 16 bits: no mixture has more than 32,767 experts."""
    return torch.stack([routing.expert_NK for routing in routes.routing], 1).to("cpu", torch.int16)


class RouteLog:
    """Planes [time, slot, layers, k]: what the rows of a batch read at each instant, by the timeline's count of time."""

    def __init__(self, slots: int) -> None:
        self._slots, self._base = slots, 0
        self._plane: Tensor | None = None
        self._prompt: dict[int, Tensor] = {}

    def join(self, first: int, prompts: list[Tensor]) -> None:
        """Rows take the slots from `first` on; prompts: what their prompts' tokens went to, [tokens, layers, k]."""
        self._prompt.update(enumerate(prompts, first))

    def record(self, now: int, routes: Routes, oldest: int) -> None:
        """What the rows in front went to at an instant; nobody asks any more for instants before `oldest`."""
        found_NLK = chosen(routes)
        if self._plane is None or now - self._base >= len(self._plane):
            self._make_room(now, oldest, found_NLK)
        assert self._plane is not None
        self._plane[now - self._base, : len(found_NLK)] = found_NLK

    def take(self, slot: int, start: int, now: int) -> Tensor:
        """Of the row in a slot that joined at `start`: its prompt's tokens and its own but the last, which nobody read."""
        if self._plane is None or now - start < 2:
            return self._prompt[slot]
        return torch.cat((self._prompt[slot], self._plane[start + 1 - self._base : now - self._base, slot]))

    def move(self, sources: list[int], targets: list[int]) -> None:
        """The rows in slots `sources` move to slots `targets`."""
        if self._plane is not None:
            self._plane[:, targets] = self._plane[:, sources]
        self._prompt.update(zip(targets, [self._prompt[source] for source in sources], strict=True))

    def _make_room(self, now: int, oldest: int, like_NLK: Tensor) -> None:
        live = 0 if self._plane is None else max(0, now - oldest)
        wider = like_NLK.new_zeros(max(64, 2 * live), self._slots, *like_NLK.shape[1:])
        if self._plane is not None and live:
            wider[:live] = self._plane[oldest - self._base : now - self._base]
        self._plane, self._base = wider, now - live
