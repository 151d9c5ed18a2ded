"""Training a Unigram model: many seeds, expectation and maximisation, and the least useful pieces pruned, in turn.

T. Kudo 2018, "Subword Regularization", sections 3.2 and 3.3, with the numbers that SentencePiece chose: up to a million seeds,
two rounds of expectation and maximisation before each pruning. Only that a pruning leaves nine tenths of the pieces, not
three quarters: it takes half as long again and gives better and shorter cuts.

The functions from `seeds` to `prune` are the obvious form, on words as text. `lineal.tokenizers.unigram_lattice` does the
same with compiled cores on arrays.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lineal.errors import DataError, UsageError
from lineal.tokenizers.unigram import Unigram
from lineal.tokenizers.unigram_lattice import Lattice, lattice_cores

Words = Mapping[str, int]
Pieces = dict[str, float]
"""Pieces and their log-probabilities."""
LEAST = 0.5
"""A piece that is expected less often than this goes; a single character stays, and counts as so many."""
BYTES = tuple(f"<0x{byte:02X}>" for byte in range(256))


@dataclass(frozen=True)
class UnigramTraining:
    """The numbers of training. longest: of a piece, in characters. seeds: how many to begin with at most.

    steps: rounds of expectation and maximisation before each pruning. shrink: the share that a pruning leaves. slack:
    pruning stops at so many times the size asked for; the rest goes by probability. mixed: a piece may mix scripts,
    digits and signs. coverage: the share of the corpus's characters that single characters must cover.
    Raises UsageError for numbers that can't work.
    """

    longest: int = 16
    seeds: int = 1_000_000
    steps: int = 2
    shrink: float = 0.9
    slack: float = 1.1
    mixed: bool = False
    coverage: float = 1.0

    def __post_init__(self) -> None:
        for name, low, high in (
            ("longest", 1, 250),
            ("seeds", 1, 1 << 30),
            ("steps", 1, 100),
            ("shrink", 0.1, 0.99),
            ("slack", 1, 10),
            ("coverage", 0.5, 1),
        ):
            if not low <= getattr(self, name) <= high:
                raise UsageError(
                    f"{name}={getattr(self, name)} is outside {low} to {high}: give a number among them."
                )


def seeds(words: Words, alphabet: Sequence[str], training: UnigramTraining) -> Pieces:
    """Each character, and substrings that occur twice or more and less often with any character added, the largest by
    count * length; with log-probabilities as if each occurred count * length times.
    """
    counts: Counter[str] = Counter()
    for word, count in words.items():
        for start in range(len(word)):
            for end in range(start + 1, min(len(word), start + training.longest + 1) + 1):
                counts[word[start:end]] += count
    longer: dict[str, int] = {}
    for text, count in counts.items():
        longer[text[:-1]] = max(longer.get(text[:-1], 0), count)
    found = [
        (count * len(text), text)
        for text, count in counts.items()
        if 1 < len(text) <= training.longest and count > 1 and count > longer.get(text, 0)
    ]
    found = sorted(found, key=lambda entry: (-entry[0], entry[1]))[: training.seeds]
    weights = {character: counts[character] for character in alphabet} | {
        text: weight for weight, text in found
    }
    total = math.log(sum(weights.values()))
    return {text: math.log(weight) - total for text, weight in weights.items()}


def cuts(word: str, pieces: Pieces) -> list[list[tuple[int, str]]]:
    """For each place of a word, where a piece that begins there ends, and the piece."""
    longest = max(map(len, pieces))
    ends = range(len(word) + 1)
    return [
        [(end, word[start:end]) for end in ends[start + 1 : start + longest + 1] if word[start:end] in pieces]
        for start in range(len(word))
    ]


def expect(words: Words, pieces: Pieces) -> tuple[dict[str, float], float]:
    """How often each piece is expected, over all cuts by their probability, and the log-likelihood of the words.

    alpha[j] = sum over pieces i..j of alpha[i] p; beta the same from the end; a piece i..j of a word counts
    alpha[i] p beta[j] / alpha[end].
    """
    expected, likelihood = dict.fromkeys(pieces, 0.0), 0.0
    for word, count in words.items():
        lattice = cuts(word, pieces)
        alpha, beta = [1.0] + [0.0] * len(word), [0.0] * len(word) + [1.0]
        for start, edges in enumerate(lattice):
            for end, piece in edges:
                alpha[end] += alpha[start] * math.exp(pieces[piece])
        for start in reversed(range(len(word))):
            for end, piece in lattice[start]:
                share = math.exp(pieces[piece]) * beta[end]
                beta[start] += share
                expected[piece] += count * alpha[start] * share / alpha[-1]
        likelihood += count * math.log(alpha[-1])
    return expected, likelihood


def maximise(expected: Mapping[str, float]) -> Pieces:
    """Log-probabilities digamma(count) - digamma(total), which keeps rare pieces below their share; the rarest go.

    (P. Liang, D. Klein 2007, "Structured Bayesian nonparametric models with variational inference", in which this is the
    mean of log p under a Dirichlet posterior.)
    """
    kept = {text: max(count, LEAST) for text, count in expected.items() if count >= LEAST or len(text) == 1}
    total = digamma(sum(kept.values()))
    return {text: digamma(count) - total for text, count in kept.items()}


def digamma(x: float) -> float:
    """The derivative of log gamma: digamma(x) = digamma(x + 1) - 1 / x up to 7, then its asymptotic series."""
    result = 0.0
    while x < 7:
        result -= 1 / x
        x += 1
    y = 1 / (x - 0.5) ** 2
    return result + math.log(x - 0.5) + y * (1 / 24 - y * (7 / 960 - y * (31 / 8064 - y * 127 / 30720)))


def best_cut(word: str, pieces: Pieces, without: str | None = None) -> tuple[list[str], float]:
    """The best cut of a word and its score, -inf where there is none; of equal ones that whose last piece is longest.

    without: a piece that may not be used.
    """
    best: list[tuple[float, int]] = [(0.0, 0)] + [(-math.inf, 0)] * len(word)
    for start, edges in enumerate(cuts(word, pieces)):
        for end, piece in edges:
            score = best[start][0] + pieces[piece]
            if piece != without and score > best[end][0]:
                best[end] = score, start
    found: list[str] = []
    end = len(word)
    while end > 0 and best[-1][0] > -math.inf:
        found.append(word[best[end][1] : end])
        end = best[end][1]
    return found[::-1], best[-1][0]


def loss(words: Words, pieces: Pieces) -> float:
    """What the best cuts of all words cost: the sum of count * -log p over their pieces."""
    return -sum(count * best_cut(word, pieces)[1] for word, count in words.items())


def losses(words: Words, pieces: Pieces) -> dict[str, float]:
    """What the words lose in log-likelihood, about, when each piece goes: its occurrences fall to its best other cut.

    inf for characters; -1 for a piece that no best cut uses, or that is cut better itself.
    """
    used: Counter[str] = Counter()
    for word, count in words.items():
        for piece in best_cut(word, pieces)[0]:
            used[piece] += count
    total, found = sum(used.values()), {}
    for piece, score in pieces.items():
        parts, other = best_cut(piece, pieces, without=piece)
        if not parts:
            found[piece] = math.inf
        elif not used[piece] or other > score:
            found[piece] = -1.0
        else:
            count, grown = used[piece], math.log(total + used[piece] * (len(parts) - 1))
            after = sum(math.log(used[part] + count) - grown for part in parts)
            found[piece] = count * (math.log(count) - math.log(total) - after)
    return found


def prune(words: Words, pieces: Pieces, size: int) -> Pieces:
    """The `size` pieces whose loss would be largest; of equal ones the first. Pieces that are of no use go in any case."""
    found = losses(words, pieces)
    useful = [piece for piece in pieces if found[piece] >= 0]
    kept = set(sorted(useful, key=lambda piece: -found[piece])[:size])
    return {piece: score for piece, score in pieces.items() if piece in kept}


class PlainLearner:
    """Pieces while they are learned, in the obvious form; `unigram_lattice.Lattice` is the compiled one."""

    def __init__(self, words: Words, alphabet: Sequence[str], training: UnigramTraining):
        self._words, self._pieces = words, seeds(words, alphabet, training)

    def __len__(self) -> int:
        return len(self._pieces)

    def improve(self) -> float:
        """One round of expectation and maximisation; the log-likelihood before it."""
        expected, likelihood = expect(self._words, self._pieces)
        self._pieces = maximise(expected)
        return likelihood

    def prune(self, size: int) -> None:
        """Leave the `size` pieces that are worth most."""
        self._pieces = prune(self._words, self._pieces, size)

    def pieces(self) -> Pieces:
        """The pieces and their log-probabilities."""
        return self._pieces


def learn(
    learner: PlainLearner | Lattice, size: int, training: UnigramTraining, report: Callable[[int, int], Any]
) -> Pieces:
    """Rounds and prunings in turn until about `size` pieces are left; then the likeliest, and every character."""
    wanted = int(size * training.slack)
    begun = len(learner)
    while True:
        for _ in range(training.steps):
            learner.improve()
        report(max(0, begun - len(learner)), max(1, begun - wanted))
        if len(learner) <= wanted:
            break
        before = len(learner)
        learner.prune(max(wanted, int(training.shrink * before)))
        if len(learner) == before:
            break
    pieces = learner.pieces()
    ordered = sorted(pieces, key=lambda piece: (len(piece) > 1, -pieces[piece], piece))
    return {piece: pieces[piece] for piece in ordered[:size]}


def train_unigram(
    counts: Any,
    vocab_size: int,
    *,
    special: Sequence[str] = ("<unk>", "<s>", "</s>"),
    unknown: str | None = "<unk>",
    byte_fallback: bool = False,
    training: UnigramTraining | None = None,
    progress: Callable[[int, int], Any] | None = None,
) -> Unigram:
    """A Unigram model of `vocab_size` ids from words and how often each occurs ({bytes: int} or PieceCounts).

    special: tokens that text never gives, which come first. unknown: which of them stands for unknown characters.
    byte_fallback: 256 byte tokens after them. Then pieces by falling probability. progress: called with how many pieces
    of those to prune are pruned. The model is smaller where the corpus has not enough to give.
    Departures from SentencePiece: characters are never dropped between rounds; a word's end makes a substring a seed.
    Raises UsageError when vocab_size has no room for special tokens and alphabet, DataError when there are no words or
    one is no UTF-8.
    """
    training = training or UnigramTraining()
    if unknown is not None and unknown not in special:
        raise UsageError(
            f"unknown={unknown!r} is none of the special tokens {list(special)}: add it to them."
        )
    words, alphabet = runs(counts, training)
    fixed = [*special, *(BYTES if byte_fallback else ())]
    size = vocab_size - len(fixed)
    if size < len(alphabet):
        raise UsageError(
            f"vocab_size={vocab_size} has no room for {len(fixed)} special tokens and {len(alphabet)} characters: "
            f"give at least {len(fixed) + len(alphabet)}, or a smaller coverage."
        )
    cores = lattice_cores()
    learner = Lattice(words, alphabet, training, cores) if cores else PlainLearner(words, alphabet, training)
    pieces = learn(learner, size, training, progress or _silent)
    ordered = sorted(pieces.items(), key=lambda entry: (-entry[1], entry[0]))
    return Unigram(
        [(name.encode(), 0.0) for name in fixed] + [(text.encode(), score) for text, score in ordered],
        unknown=None if unknown is None else list(special).index(unknown),
        byte_fallback=range(len(special), len(fixed)) if byte_fallback else None,
        silent=range(len(fixed)),
    )


def _silent(done: int, total: int) -> None:
    """Say nothing."""


def runs(counts: Any, training: UnigramTraining) -> tuple[dict[str, int], list[str]]:
    """Words cut where no piece may reach, with their counts, and the alphabet, the most frequent character first.

    That is before ▁, at characters beyond the alphabet, which are left out, and unless they may mix, between scripts,
    digits and other signs.
    """
    words: Counter[str] = Counter()
    seen: Counter[str] = Counter()
    for data, count in counts.items():
        try:
            text = data.decode()
        except UnicodeDecodeError as error:
            raise DataError(
                f"the word {data!r} is no UTF-8 ({error.reason}): count text, or train on bytes."
            ) from error
        if count > 0:
            words[text] += count
            for character in text:
                seen[character] += count
    alphabet = covering(seen, training.coverage)
    if not alphabet:
        raise DataError("there are no words to learn from: give texts that are not empty.")
    found: Counter[str] = Counter()
    cut = _pattern(alphabet, training.mixed).findall
    for word, count in words.items():
        for part in cut(word):
            found[part] += count
    return dict(found), alphabet


def covering(seen: Mapping[str, int], coverage: float) -> list[str]:
    """The most frequent characters that together make up so large a share, the most frequent first; never a zero."""
    ordered = sorted((item for item in seen.items() if item[0] != "\0"), key=lambda item: (-item[1], item[0]))
    total, had, chosen = sum(seen.values()), 0, []
    for character, count in ordered:
        if had >= coverage * total:
            break
        had += count
        chosen.append(character)
    return chosen


def _pattern(alphabet: Iterable[str], mixed: bool) -> re.Pattern[str]:
    """What finds the runs of a word: ▁ and characters of one kind, or ▁ alone."""
    kinds: dict[str, list[str]] = {}
    for character in alphabet:
        if character != "▁":
            kinds.setdefault("" if mixed else kind(character), []).append(re.escape(character))
    runs_of = "|".join(f"[{''.join(characters)}]+" for characters in kinds.values())
    return re.compile(f"▁?(?:{runs_of})|▁" if runs_of else "▁")


def kind(character: str) -> str:
    """The script of a letter or mark by the first word of its name (Han and kana are one), DIGIT, or OTHER."""
    category = unicodedata.category(character)
    if category[0] not in "LM":
        return "DIGIT" if category[0] == "N" else "OTHER"
    name = unicodedata.name(character, "OTHER").split(maxsplit=1)[0]
    return {
        "HIRAGANA": "CJK",
        "KATAKANA": "CJK",
        "KATAKANA-HIRAGANA": "CJK",
        "IDEOGRAPHIC": "CJK",
        "COMBINING": "LATIN",
    }.get(name, name)
