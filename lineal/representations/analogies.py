"""Analogies: a is to b as c is to which word? Answered by 3CosAdd and 3CosMul, and scored on a file of questions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Int64

from lineal.errors import DataError, UsageError
from lineal.representations.neighbours import SCORES, Neighbours
from lineal.representations.vectors import Vectors, unit_rows
from lineal.tokenizers.corpus.documents import read_lines

METHODS = ("add", "mul")
EPSILON = 0.001
RESTRICT = 30_000
"""Of how many frequent words the answers come, as word2vec.c's demonstration has it."""


@dataclass(frozen=True)
class Question:
    """a : b = c : answer."""

    a: str
    b: str
    c: str
    answer: str


@dataclass
class Score:
    """Of a section: its questions, those of which all four words have vectors, and those answered right."""

    name: str
    asked: int = 0
    covered: int = 0
    right: int = 0
    unknown: set[str] = field(default_factory=set)

    @property
    def accuracy(self) -> float | None:
        """Right among covered; None where none is covered."""
        return self.right / self.covered if self.covered else None

    @property
    def coverage(self) -> float:
        """Covered among asked."""
        return self.covered / self.asked if self.asked else 0.0


def scores_of(similarity_3V: Float32[np.ndarray, "*N 3 V"], method: str) -> Float32[np.ndarray, "*N V"]:
    """What the answer maximises, from the cosines of every word with a, b and c.

    add (3CosAdd, Mikolov et al. 2013): cos(x, b) - cos(x, a) + cos(x, c). mul (3CosMul, Levy and Goldberg 2014, eq. 4):
    p(x, b) p(x, c) / (p(x, a) + .001), p = (cos + 1) / 2.
    """
    if method == "add":
        return similarity_3V[..., 1, :] - similarity_3V[..., 0, :] + similarity_3V[..., 2, :]
    if method != "mul":
        raise UsageError(f"method={method!r} can't be: choose add (3CosAdd) or mul (3CosMul).")
    a, b, c = (np.clip((similarity_3V[..., i, :] + 1) / 2, 0, None) for i in range(3))
    return b * c / (a + np.float32(EPSILON))


def analogy(vectors: Vectors, a: str, b: str, c: str, *, count: int = 5, method: str = "add") -> Neighbours:
    """The words that answer a : b = c : ?, the best first, with their scores; a, b and c are not among them.

    Raises DataError for a word without a vector.
    """
    if count < 1:
        raise UsageError(f"{count} answers can't be: ask for at least 1.")
    rows = vectors.rows([a, b, c])
    unit_3D = unit_rows(vectors.matrix[rows])
    similarity_3V = np.concatenate([unit_3D @ unit_SD.T for _, unit_SD in vectors.unit_blocks()], axis=1)
    score_V = scores_of(similarity_3V, method)
    score_V[rows] = -np.inf
    best = np.argsort(-score_V, kind="stable")[:count]
    return [(vectors.words[row], float(score_V[row])) for row in best if np.isfinite(score_V[row])]


def read_questions(path: str | Path) -> dict[str, list[Question]]:
    """Sections of a file of questions: `: name`, then four words a line; plain or .gz.

    Raises DataError, with file and line, for a line of more or fewer words, or before the first section.
    """
    found: dict[str, list[Question]] = {}
    section: list[Question] | None = None
    for number, line in read_lines(path):
        words = line.removeprefix("\ufeff").split()
        if not words:
            continue
        if words[0].startswith(":"):
            section = found.setdefault(" ".join([words[0][1:], *words[1:]]).strip(), [])
        elif section is None:
            raise DataError(
                f"{path}:{number}: a question before the first section: start with a line like ': capitals'."
            )
        elif len(words) != 4:
            raise DataError(f"{path}:{number}: {len(words)} words, where a question has four: a b c answer.")
        else:
            section.append(Question(*words))
    if not any(found.values()):
        raise DataError(f"{path}: there is no question in it.")
    return found


def evaluate_analogies(
    vectors: Vectors,
    sections: dict[str, list[Question]],
    *,
    method: str = "add",
    restrict: int | None = RESTRICT,
    fold: bool = True,
) -> list[Score]:
    """The score of each section; one whose words have no vectors is there too, with what is unknown.

    restrict: answers and questions are among so many first words of the file. fold: capitals and small letters are the same: of
    words that differ in nothing else the first stands in the question, and no other is an answer to it. As gensim counts.
    """
    known = vectors if restrict is None else vectors.first(restrict)
    rows: dict[str, int] = {}
    for row, word in enumerate(known.words):
        rows.setdefault(word.upper() if fold else word, row)
    same_V = np.array([rows[word.upper() if fold else word] for word in known.words], dtype=np.int64)
    found = []
    for name, questions in sections.items():
        score = Score(name, asked=len(questions))
        asked = list(_covered(questions, rows, fold, score.unknown))
        score.covered = len(asked)
        if asked:
            answer_N = _answers(known.unit, np.array(asked), same_V, method)
            score.right = int((same_V[answer_N] == np.array(asked)[:, 3]).sum())
        found.append(score)
    return found


def totals(scores: Sequence[Score]) -> list[Score]:
    """Of all sections: semantic, syntactic (those named gram...), total; only the total where there is one kind."""
    kinds = {
        "semantic": [s for s in scores if not s.name.startswith("gram")],
        "syntactic": [s for s in scores if s.name.startswith("gram")],
    }
    chosen = kinds if all(kinds.values()) else {}
    return [_sum(name, part) for name, part in {**chosen, "total": list(scores)}.items()]


def _sum(name: str, scores: Iterable[Score]) -> Score:
    whole = Score(name)
    for score in scores:
        whole.asked += score.asked
        whole.covered += score.covered
        whole.right += score.right
        whole.unknown |= score.unknown
    return whole


def _covered(
    questions: Sequence[Question], rows: dict[str, int], fold: bool, unknown: set[str]
) -> Iterator[tuple[int, ...]]:
    for question in questions:
        words = (question.a, question.b, question.c, question.answer)
        found = tuple(rows.get(word.upper() if fold else word, -1) for word in words)
        unknown.update(word for word, row in zip(words, found) if row < 0)
        if min(found) >= 0:
            yield found


def _answers(
    unit_VD: Float32[np.ndarray, "V D"],
    row_N4: Int64[np.ndarray, "N 4"],
    same_V: Int64[np.ndarray, " V"],
    method: str,
) -> Int64[np.ndarray, " N"]:
    """The best word for each question, a, b and c left out in all their spellings; same: the first spelling of each word."""
    step = max(1, SCORES // (4 * len(unit_VD)))
    others = np.flatnonzero(same_V != np.arange(len(same_V)))
    answers = []
    for at in range(0, len(row_N4), step):
        row_N3 = row_N4[at : at + step, :3]
        # The words of neighbouring questions are few, so each one's cosines are made once.
        words, place_N3 = np.unique(row_N3, return_inverse=True)
        similarity_UV = unit_VD[words] @ unit_VD.T
        score_NV = scores_of(similarity_UV[place_N3.reshape(row_N3.shape)], method)
        np.put_along_axis(score_NV, row_N3, -np.inf, axis=1)
        hidden_NS = (same_V[others] == row_N3[..., None]).any(axis=1)
        score_NV[:, others] = np.where(hidden_NS, -np.inf, score_NV[:, others])
        answers.append(score_NV.argmax(axis=1))
    return np.concatenate(answers)
