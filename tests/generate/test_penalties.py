"""What the penalties remember, against counting the tokens again at every step."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lineal.generate.penalties import Memory, truncate
from lineal.generate.sampling import Sampling
from lineal.ops import filters

KINDS = {
    "power": Sampling(repetition_penalty=1.3),
    "huggingface": Sampling(repetition_penalty=1.3, repetition_mode="huggingface"),
    "frequency": Sampling(frequency_penalty=0.4),
    "presence": Sampling(presence_penalty=0.4),
    "ngram": Sampling(no_repeat_ngram=2),
    "all": Sampling(
        repetition_penalty=1.3,
        repetition_mode="huggingface",
        frequency_penalty=0.4,
        presence_penalty=0.2,
        no_repeat_ngram=3,
    ),
}


def counted(ids: list[int]) -> torch.Tensor:
    return torch.bincount(torch.tensor(ids, dtype=torch.int64), minlength=5)[None]


def again(s: Sampling, x_1V: torch.Tensor, prompt: tuple[int, ...], ids: list[int]) -> torch.Tensor:
    """One row's penalised logits from its whole text."""
    whole = [*prompt, *ids]
    if s.repetition_mode == "huggingface":
        x_1V = filters.repetition_huggingface(x_1V, counted(whole) > 0, s.repetition_penalty)
    else:
        x_1V = filters.repetition(x_1V, counted(ids), s.repetition_penalty)
    x_1V = filters.frequency(x_1V, counted(ids), s.frequency_penalty)
    x_1V = filters.presence(x_1V, counted(ids), s.presence_penalty)
    if s.no_repeat_ngram:
        x_1V = filters.no_repeat_ngram(
            x_1V, torch.tensor([whole]), torch.tensor([len(whole)]), s.no_repeat_ngram
        )
    return x_1V


@pytest.mark.parametrize("kind", list(KINDS))
@given(data=st.data())
def test_memory_is_what_counting_again_gives(kind: str, data: st.DataObject) -> None:
    memory, rows = Memory(KINDS[kind], 4, 5), []
    prompt = st.lists(st.integers(0, 4), min_size=1, max_size=6).map(tuple)
    for _ in range(data.draw(st.integers(1, 8))):
        joining = data.draw(st.lists(prompt, min_size=0 if rows else 1, max_size=4 - len(rows)))
        memory.join(len(rows), joining)
        rows += [(one, []) for one in joining]
        x_NV = torch.randn(len(rows), 5, generator=torch.Generator().manual_seed(len(rows))).double()
        expected = [again(memory.settings, x[None], p, ids) for x, (p, ids) in zip(x_NV, rows, strict=True)]
        torch.testing.assert_close(memory.penalise(x_NV), torch.cat(expected))
        tokens = data.draw(st.lists(st.integers(0, 4), min_size=len(rows), max_size=len(rows)))
        for (_, ids), token in zip(rows, tokens, strict=True):
            ids.append(token)
        memory.push(torch.tensor(tokens), max(len(p) + len(ids) for p, ids in rows))
        if len(rows) > 1 and data.draw(st.booleans()):
            memory.move(torch.tensor([len(rows) - 1]), torch.tensor([0]))
            rows[0] = rows.pop()


def test_only_what_a_penalty_reads_is_kept() -> None:
    assert Memory(KINDS["ngram"], 2, 5).count_BV is None
    assert Memory(KINDS["frequency"], 2, 5).token_BT is None
    assert Memory(KINDS["frequency"], 2, 5).seen_BV is None
    assert Memory(KINDS["huggingface"], 2, 5).count_BV is None


def test_truncations_come_one_after_the_other() -> None:
    x = torch.tensor([[0.4, 0.3, 0.15, 0.1, 0.05]]).log()
    both = Sampling(top_k=3, top_p=0.5)
    # Among the three that top-k keeps, .4 and .3 are .47 and .35: two reach one half, one does not.
    assert (truncate(x, both) > -torch.inf).tolist() == [[True, True, False, False, False]]
    with_min = dataclasses.replace(both, top_p=1.0, min_p=0.5)
    assert (truncate(x, with_min) > -torch.inf).tolist() == [[True, True, False, False, False]]
    assert torch.equal(truncate(x, Sampling()), x)
