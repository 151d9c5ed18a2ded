"""The planes of drawn tokens: rows that join, move and leave, and planes that grow, against plain lists."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from lineal.generate.random import reference_uniform
from lineal.generate.timeline import Timeline

EVENTS = st.lists(
    st.tuples(st.integers(0, 3), st.lists(st.integers(0, 5), max_size=3)), min_size=1, max_size=40
)


@given(EVENTS, st.integers(1, 8))
def test_every_row_keeps_its_tokens_and_its_uniforms(
    events: list[tuple[int, list[int]]], instants: int
) -> None:
    slots, timeline = 6, Timeline(6, instants)
    rows: list[tuple[int, list[int], list[float]]] = []
    next_key = 1
    for joining, leaving in events:
        joining = max(1 if not rows else 0, min(joining, slots - len(rows)))
        if joining:
            timeline.join(len(rows), torch.arange(next_key, next_key + joining))
            rows += [(next_key + i, [], []) for i in range(joining)]
            next_key += joining
        expected = [reference_uniform(key, len(ids)) for key, ids, _ in rows]
        uniform_N = timeline.uniform(len(rows))
        assert uniform_N.tolist() == expected
        token_N, logp_N = uniform_N % 97, uniform_N.double() / 3
        timeline.record(token_N, logp_N)
        for (_, ids, logp), token, value in zip(rows, token_N.tolist(), logp_N.tolist(), strict=True):
            ids.append(token)
            logp.append(value)
        gone = sorted({slot for slot in leaving if slot < len(rows)})
        if gone:
            assert timeline.take(gone) == [(tuple(rows[s][1]), tuple(rows[s][2])) for s in gone]
            stay = [slot for slot in range(len(rows)) if slot not in gone]
            holes = [slot for slot in gone if slot < len(stay)]
            tail = [slot for slot in stay if slot >= len(stay)]
            timeline.move(tail, holes)
            for hole, source in zip(holes, tail, strict=True):
                rows[hole] = rows[source]
            del rows[len(stay) :]
        for slot, (_, ids, _logp) in enumerate(rows):
            assert timeline.ids(slot) == ids


def test_planes_hold_what_the_oldest_row_needs_and_no_more() -> None:
    timeline = Timeline(2, 4)
    for _ in range(50):
        timeline.join(0, torch.tensor([1]))
        for _ in range(3):
            timeline.uniform(1)
            timeline.record(torch.tensor([5]), torch.tensor([0.0]).double())
    assert timeline.now == 150
    assert len(timeline._id_SB) <= 8
    assert timeline.ids(0) == [5, 5, 5]
