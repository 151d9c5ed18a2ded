"""When a completion ends by its own doing: the end-of-text token, stop ids, stop strings."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Int
from torch import Tensor

from lineal.errors import UsageError
from lineal.generate.sampling import Sampling

_PLAIN, _ENDS, _SUSPECT, _UNKNOWN = range(4)


class Stop:
    """Decides which of the tokens just drawn end their completions.

    Each token of the vocabulary has a kind: it ends a completion, it cannot, or it may end a stop string. So a
    step costs one lookup and one transfer to the host, and text is decoded only for rows whose token may matter.
    The text of a token is looked at when it is first drawn.
    """

    def __init__(
        self,
        settings: Sampling,
        vocabulary: int,
        eos_id: int | None,
        decode: Callable[[list[int]], str] | None,
        device: torch.device | str = "cpu",
    ):
        if settings.stop and decode is None:
            raise UsageError(
                f"stop is {settings.stop!r}, but no decode was given: stop strings need the tokenizer's."
            )
        ends = [*settings.stop_ids] if eos_id is None else [eos_id, *settings.stop_ids]
        for token in ends:
            if not 0 <= token < vocabulary:
                raise UsageError(
                    f"stop id {token} is not in the vocabulary of {vocabulary} tokens: 0..{vocabulary - 1}."
                )
        self._strings, self._decode = settings.stop, decode
        # A tokenizer may write a token's leading space only when another token stands before it.
        self._all_suspect = any(text[-1] in " \u2581" for text in settings.stop)
        self._last = {text[-1] for text in settings.stop}
        self._longest = max(map(len, settings.stop), default=0)
        first = _PLAIN if not settings.stop else _SUSPECT if self._all_suspect else _UNKNOWN
        self._kind_V = torch.full((vocabulary,), first, dtype=torch.uint8, device=device)
        self._kind_V[ends] = _ENDS
        self._never = not (ends or settings.stop)

    def __call__(self, token_N: Int[Tensor, " N"], ids: Callable[[int], list[int]]) -> list[int]:
        """The rows, in order, whose completion ends with the token just drawn.

        token_N: each row's newest token. ids: gives a row's completion so far, that token included.
        """
        if self._never:
            return []
        kind_N = self._kind_V[token_N].tolist()
        if not any(kind_N):
            return []
        return [
            row for row, kind in enumerate(kind_N) if kind == _ENDS or (kind and self._text_ends(ids(row)))
        ]

    def _text_ends(self, ids: list[int]) -> bool:
        assert self._decode is not None
        piece = self._decode(ids[-1:])
        if not self._all_suspect:
            # An empty or broken piece is part of something larger: only the text around it can tell.
            suspect = not piece or "\ufffd" in piece or not self._last.isdisjoint(piece)
            self._kind_V[ids[-1]] = _SUSPECT if suspect else _PLAIN
            if not suspect:
                return False
        # A stop string that this token completes lies within the last `needed` characters. The slack covers what
        # decoding from the middle may change at the front: a dropped space, a character cut in two.
        needed, tokens = self._longest + len(piece) + 8, self._longest + 8
        text = self._decode(ids[-tokens:])
        while len(text) < needed and tokens < len(ids):
            tokens *= 2
            text = self._decode(ids[-tokens:])
        return any(stop in text[-needed:] for stop in self._strings)


def cut(text: str, stop: Sequence[str]) -> str:
    """The text before the first stop string in it; completions keep the tokens of the stop string itself."""
    places = [place for place in (text.find(end) for end in stop) if place >= 0]
    return text[: min(places)] if places else text
