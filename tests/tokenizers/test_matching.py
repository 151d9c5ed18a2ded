"""The tree of tokens as the core reads it, and what its threads remember."""

from __future__ import annotations

import threading
from array import array

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lineal.tokenizers.matching import ROOM, Matcher, grow, matching_core

WORDS = st.lists(st.text("ab#é", max_size=6).map(str.encode), max_size=20)


@pytest.fixture(autouse=True)
def compiled() -> None:
    """All of this needs the core."""
    if matching_core() is None:
        pytest.skip("nothing was compiled at install")


def ways(edges: array[int]) -> dict[tuple[int, int], int]:
    """Each edge once: (node, byte) -> node."""
    found: dict[tuple[int, int], int] = {}
    for at in range(0, len(edges), 2):
        if edges[at]:
            key = divmod(edges[at] - 1, 256)
            assert key not in found
            found[key] = edges[at + 1]
    return found


@given(WORDS, st.sampled_from([b"##", b"", b"#", "é".encode()]))
@example([b"", b"##", b"##a", b"a", b"a"], b"##")
@example([bytes(range(256))], b"\0")
def test_the_tree_says_every_token_and_no_other(tokens: list[bytes], prefix: bytes):
    core = matching_core()
    assert core is not None
    edges, ids = grow(core, tokens, prefix)
    steps, said = ways(edges), {}
    # From node 0 whole tokens, from node 1 those inside words; the rest is found by following each edge.
    reached = [(start, start, b"") for start in (0, 1)]
    for start, node, text in reached:
        if ids[node] >= 0:
            said[start, text] = ids[node]
        reached += [(start, to, text + bytes([byte])) for (at, byte), to in steps.items() if at == node]
    inside = {
        token[len(prefix) :]: i
        for i, token in enumerate(tokens)
        if token.startswith(prefix) and len(token) > len(prefix)
    }
    whole = {token: i for i, token in enumerate(tokens) if token}
    assert said == {(0, text): i for text, i in whole.items()} | {(1, text): i for text, i in inside.items()}
    assert len(ids) == len(reached) == len(steps) + 2


@given(WORDS)
def test_ids_are_the_same_however_much_was_encoded_before(words: list[bytes]):
    matcher = Matcher.of([b"?", b"a", b"##a", b"ab", b"##b", "é".encode()], b"##")
    assert matcher is not None
    spans, data = array("i"), b"".join(words)
    for word in words:
        start = spans[-1] if spans else 0
        spans.extend((start, start + len(word)))
    first = matcher.encode(data, spans, 100, 0)
    assert [matcher.encode(data, spans, 100, 0) for _ in range(2)] == [first, first]
    assert len(matcher._rooms) == 1


def test_pieces_may_leave_gaps_and_stand_at_either_end():
    matcher = Matcher.of([b"?", b"a", b"##b", b"ab"], b"##")
    assert matcher is not None
    assert matcher.encode(b" ab  a b", array("i", [1, 3, 5, 6, 7, 8]), 100, 0) == [3, 1, 0]
    assert matcher.encode(b"ab", array("i", [0, 2]), 100, 0) == [3]
    assert matcher.encode(b"ab", array("i", []), 100, 0) == []
    assert matcher.encode(b"ab", array("i", [1, 1]), 100, 0) == []


def test_room_for_a_great_text_is_given_back():
    matcher = Matcher.of([b"?", b"a", b"##a"], b"##")
    assert matcher is not None
    text = b"a" * (ROOM + 1)
    assert len(matcher.encode(text, array("i", [0, len(text)]), len(text), 0)) == len(text)
    assert len(matcher._rooms[0][1]) == 0
    assert matcher.encode(b"aa", array("i", [0, 2]), 100, 0) == [1, 2]
    assert 0 < len(matcher._rooms[0][1]) < ROOM


def test_threads_have_rooms_of_their_own():
    names = [b"%d" % i for i in range(500)]
    matcher = Matcher.of([b"?", *names], b"#####")
    assert matcher is not None
    wrong: list[int] = []

    def work(seed: int) -> None:
        order = [(seed * 31 + i * 7) % 500 for i in range(2000)]
        spans, parts = array("i"), [names[i] for i in order]
        for part in parts:
            start = spans[-1] if spans else 0
            spans.extend((start, start + len(part)))
        for _ in range(10):
            if matcher.encode(b"".join(parts), spans, 100, 0) != [1 + i for i in order]:
                wrong.append(seed)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert 1 <= len(matcher._rooms) <= 4
