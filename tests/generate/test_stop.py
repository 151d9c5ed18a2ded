"""Stop ids and stop strings, against looking at the whole text after every token."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lineal.errors import UsageError
from lineal.generate.sampling import Sampling
from lineal.generate.stop import Stop, cut

PIECES = ["", "<end>", "a", "b", "\n", "ab", "ba", " ", "a b", "STOP", "ST", "OP", "P", "\n\n", "."]


def decode(ids: list[int]) -> str:
    return "".join(PIECES[i] for i in ids)


def first_stop(stop: Stop, ids: list[int]) -> int | None:
    """The number of tokens after which a row that draws `ids` ends."""
    for count in range(1, len(ids) + 1):
        if stop(torch.tensor([ids[count - 1]]), lambda row, count=count: ids[:count]):
            return count
    return None


@given(
    st.lists(st.integers(0, len(PIECES) - 1), max_size=40),
    st.lists(st.sampled_from(["STOP", "\n\n", "ab", "b.", " ", "a b ", "."]), min_size=1, max_size=3),
)
def test_a_stop_string_is_seen_with_the_token_that_completes_it(ids: list[int], strings: list[str]) -> None:
    stop = Stop(Sampling(stop=tuple(strings)), len(PIECES), None, decode)
    expected = next(
        (n for n in range(1, len(ids) + 1) if any(text in decode(ids[:n]) for text in strings)), None
    )
    assert first_stop(stop, ids) == expected


def test_tokens_without_text_do_not_hide_a_stop_string() -> None:
    ids = [9 + 1] + [0] * 30 + [11]
    assert first_stop(Stop(Sampling(stop=("STOP",)), len(PIECES), None, decode), ids) == len(ids)


def test_a_space_that_appears_only_in_context_is_seen() -> None:
    # As sentencepiece tokenizers do, the first token loses its leading space.
    def spaced(ids: list[int]) -> str:
        return " ".join(PIECES[i] for i in ids)

    assert first_stop(Stop(Sampling(stop=("a ",)), len(PIECES), None, spaced), [2, 3]) == 2


def test_characters_cut_into_bytes_are_put_together() -> None:
    letters = "né\n".encode()

    def from_bytes(ids: list[int]) -> str:
        return bytes(letters[i] for i in ids).decode(errors="replace")

    assert first_stop(Stop(Sampling(stop=("é",)), len(letters), None, from_bytes), [0, 1, 2, 3]) == 3


def test_rows_are_judged_one_by_one() -> None:
    stop = Stop(Sampling(stop=("b",), stop_ids=(2,)), len(PIECES), 1, decode)
    rows = [[4], [1], [2], [3], [12]]
    for _ in range(2):
        assert stop(torch.tensor([row[-1] for row in rows]), lambda row: rows[row]) == [1, 2, 3]


def test_text_is_decoded_only_where_it_may_matter() -> None:
    asked = []

    def counting(ids: list[int]) -> str:
        asked.append(list(ids))
        return decode(ids)

    stop = Stop(Sampling(stop=("\n",)), len(PIECES), 1, counting)
    for _ in range(50):
        assert stop(torch.tensor([2, 3]), lambda row: [2, 2, 3] if row else [3, 2]) == []
    assert asked == [[2], [3]]


def test_without_any_rule_nothing_is_looked_up() -> None:
    stop = Stop(Sampling(), 5, None, None)
    assert stop(torch.tensor([0, 1]), lambda row: pytest.fail("asked for ids")) == []


def test_ids_outside_the_vocabulary_and_missing_decoders_are_refused() -> None:
    with pytest.raises(UsageError, match=r"stop id 5 .* 0\.\.4"):
        Stop(Sampling(stop_ids=(5,)), 5, None, None)
    with pytest.raises(UsageError, match="stop id -1"):
        Stop(Sampling(), 5, -1, None)
    with pytest.raises(UsageError, match="no decode was given"):
        Stop(Sampling(stop=("x",)), 5, None, None)


def test_cut_ends_before_the_first_stop_string() -> None:
    assert cut("one STOP two\n", ("\n", "STOP")) == "one "
    assert cut("one", ("\n",)) == "one"
    assert cut("one", ()) == "one"
