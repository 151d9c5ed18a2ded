from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from lineal.environments.preferences.choosing import PairSampler, _unrank, disagreement
from lineal.environments.preferences.records import Segment
from lineal.errors import UsageError


def segments(count: int) -> list[Segment]:
    return [Segment(np.full((2, 1), i, np.float32), np.zeros(2, np.int64), np.zeros(2)) for i in range(count)]


def test_every_number_is_a_pair_of_its_own():
    assert [_unrank(n) for n in range(10)] == sorted(combinations(range(5), 2), key=lambda p: (p[1], p[0]))
    far = 10**9
    low, high = _unrank(far)
    assert high * (high - 1) // 2 + low == far and low < high


def test_the_greatest_disagreement_is_asked_about():
    """The members agree on all segments but 3 and 7, of which each thinks otherwise."""
    many = segments(10)

    def scores(chosen):
        assert len(chosen) == 10
        score_MS = np.tile(np.linspace(0, 0.1, 10), (3, 1))
        score_MS[:, 3] += [4.0, -4.0, 4.0]
        score_MS[:, 7] += [-4.0, 4.0, -4.0]
        return score_MS

    pairs = PairSampler("disagreement", candidates=45)(many, 1, (0, 0), scores=scores)
    assert {pairs[0].first, pairs[0].second} == {many[3].id, many[7].id}


def test_disagreement_is_the_variance_of_the_predictions():
    score_MS = np.array([[0.0, 1.0, 5.0], [0.0, -1.0, 5.0], [0.0, 2.0, 5.0]])
    p = 1 / (1 + np.exp(-np.array([-1.0, 1.0, -2.0])))
    found = disagreement(score_MS, np.array([0, 2]), np.array([1, 2]))
    assert found == pytest.approx([p.var(), 0.0])


@pytest.mark.parametrize("how", ["uniform", "disagreement"])
def test_pairs_are_distinct_and_never_asked_twice(how):
    many = segments(8)
    random = np.random.default_rng(0)
    scores = lambda chosen: random.normal(size=(3, len(chosen)))  # noqa: E731
    asked: set[str] = set()
    seen = set()
    for turn in range(20):
        pairs = PairSampler(how)(many, 3, (0, turn), scores=scores, asked=asked)
        for pair in pairs:
            assert pair.first != pair.second
            assert frozenset((pair.first, pair.second)) not in seen
            seen.add(frozenset((pair.first, pair.second)))
            asked.add(pair.id)
    assert len(seen) == 28, "all 8 · 7 / 2 pairs were asked, each once"


def test_segments_of_equal_content_are_one():
    assert PairSampler("uniform")(segments(1) * 5, 4, (0,)) == []


def test_a_function_of_its_arguments():
    many = segments(50)
    first = PairSampler("uniform")(many, 10, (1, 2))
    assert first == PairSampler("uniform")(many, 10, (1, 2)) and len(first) == 10
    assert first != PairSampler("uniform")(many, 10, (1, 3))
    sides = [pair.first < pair.second for pair in PairSampler("uniform")(many, 200, (1, 2))]
    assert 60 < sum(sides) < 140, "which of the two comes first is random"


def test_nonsense_is_refused():
    with pytest.raises(UsageError, match="disagreement or uniform"):
        PairSampler("clever")
    with pytest.raises(UsageError, match="at least 1"):
        PairSampler(candidates=0)
