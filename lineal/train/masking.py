"""Which words BERT hides from itself, as a function of (seed, variant, row): nothing to store, the same after a resume.

Of each sequence 15 % of its pieces are chosen; of those 80 % become [MASK], 10 % any token, and 10 % stay as they are
(Devlin et al. 2018, section 3.1, task 1).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lineal.errors import ModelError
from lineal.tokenizers import Tokenizer
from lineal.tokenizers.pipeline import Pipeline
from lineal.train.order import hash64

CHOICE, FATE, WORD = 11, 12, 13
"""Set the hashes of what is chosen, of what becomes of it, and of the token it becomes apart."""
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Vocabulary:
    """What masking must know of a vocabulary: its special ids, those of pieces inside words, and its size.

    ordinary: the ids that a hidden word may become: all but the special ones.
    """

    pad: int
    cls: int
    sep: int
    mask: int
    inside: NDArray[np.bool_]
    ordinary: Ints

    @staticmethod
    def of(tokenizer: Tokenizer, where: str = "the tokenizer") -> Vocabulary:
        """Of a WordPiece tokenizer; ModelError where one of BERT's special tokens is missing."""
        names = ("[PAD]", "[CLS]", "[SEP]", "[MASK]")
        if not isinstance(tokenizer, Pipeline):
            raise ModelError(
                f"{where} is a {type(tokenizer).__name__}; BERT needs one with {', '.join(names)}."
            )
        ids = {name: tokenizer.id(name) for name in names}
        missing = [name for name, token in ids.items() if token is None]
        if missing:
            raise ModelError(
                f"{where} has no {', '.join(missing)}: train one with lineal tokenizer train wordpiece, or leave "
                "--tokenizer out."
            )
        inside = np.array([token.startswith(b"##") for token in tokenizer.tokens])
        special = tokenizer.special_ids
        ordinary = np.array([i for i, t in enumerate(tokenizer.tokens) if t and i not in special])
        pad, cls, sep, mask = (int(token or 0) for token in ids.values())
        return Vocabulary(pad, cls, sep, mask, inside, ordinary)


@dataclass(frozen=True)
class Masking:
    """How much is hidden. rate: share of the pieces. most: at most so many of a sequence. whole_words: all pieces of a word
    or none.
    """

    rate: float = 0.15
    most: int = 20
    whole_words: bool = False


def mask_rows(
    token_BT: Ints, maskable_BT: NDArray[np.bool_], row_B: Ints, words: Vocabulary, how: Masking, *draw: int
) -> tuple[Ints, NDArray[np.bool_]]:
    """Rows with words hidden, and where they are.

    maskable_BT: False at special tokens and padding. row_B: the number that each row has among all; the draws are a hash of
    (*draw, row, position), the same whatever rows stand beside it. At least one piece of a row is chosen where there is one.
    """
    rows, width = token_BT.shape
    place_N = (row_B[:, None].astype(np.uint64) << np.uint64(16)) + np.arange(width, dtype=np.uint64)
    flat_N = place_N.reshape(-1)
    chance_BT = hash64(*draw, CHOICE, flat_N).reshape(rows, width)
    available_B = maskable_BT.sum(1)
    wanted_B = np.clip(np.floor(available_B * how.rate + 0.5).astype(np.int64), 1, how.most)
    wanted_B = np.minimum(wanted_B, available_B)
    if how.whole_words:
        chosen_BT = _whole(chance_BT, maskable_BT, words.inside[token_BT], wanted_B)
    else:
        chance_BT = np.where(maskable_BT, chance_BT >> np.uint64(1), np.uint64(2**64 - 1))
        rank_BT = np.argsort(np.argsort(chance_BT, axis=1, kind="stable"), axis=1, kind="stable")
        chosen_BT = rank_BT < wanted_B[:, None]
    fate_BT = (hash64(*draw, FATE, flat_N) >> np.uint64(11)).reshape(rows, width) / float(1 << 53)
    other = words.ordinary[(hash64(*draw, WORD, flat_N) % np.uint64(len(words.ordinary))).astype(np.int64)]
    hidden_BT = np.where(
        fate_BT < 0.8, words.mask, np.where(fate_BT < 0.9, other.reshape(rows, width), token_BT)
    )
    return np.where(chosen_BT, hidden_BT, token_BT), chosen_BT


def _whole(
    chance_BT: NDArray[np.uint64],
    maskable_BT: NDArray[np.bool_],
    inside_BT: NDArray[np.bool_],
    wanted_B: Ints,
) -> NDArray[np.bool_]:
    """Words in the order of their first piece's hash, each whole, passing over those that would make it too many."""
    chosen_BT = np.zeros_like(maskable_BT)
    for row in range(len(chance_BT)):
        words: list[list[int]] = []
        for place in np.flatnonzero(maskable_BT[row]).tolist():
            if words and inside_BT[row, place] and words[-1][-1] == place - 1:
                words[-1].append(place)
            else:
                words.append([place])
        left = int(wanted_B[row])
        for word in sorted(words, key=lambda word: chance_BT[row, word[0]]):
            if len(word) <= left:
                chosen_BT[row, word] = True
                left -= len(word)
        if words and not chosen_BT[row].any():
            # Every word is longer than what may be hidden: one must be.
            chosen_BT[row, min(words, key=len)] = True
    return chosen_BT
