"""What the penalties remember, against counting the tokens again at every step; and the filters in their order."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lineal.generate.penalties import Memory, shape
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
        torch.testing.assert_close(shape(x_NV, memory.settings, memory), torch.cat(expected))
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
    assert (shape(x, both, None) > -torch.inf).tolist() == [[True, True, False, False, False]]
    with_min = dataclasses.replace(both, top_p=1.0, min_p=0.5)
    assert (shape(x, with_min, None) > -torch.inf).tolist() == [[True, True, False, False, False]]
    assert torch.equal(shape(x, Sampling(), None), x)


def test_the_order_of_filters_is_the_one_that_is_named() -> None:
    x = torch.tensor([[0.4, 0.3, 0.15, 0.1, 0.05]]).log()
    # Halving the temperature first sharpens .4 and .3 to .56 and .32: two of them reach .8; by the model's own
    # probabilities it takes .4, .3 and .15.
    usual = Sampling(temperature=0.5, top_p=0.8)
    other = dataclasses.replace(usual, filter_order=("top_p", "temperature"))
    assert (shape(x, usual, None) > -torch.inf).sum() == 2
    assert (shape(x, other, None) > -torch.inf).sum() == 3


def test_the_whole_chain_is_what_transformers_computes() -> None:
    process = pytest.importorskip("transformers").generation.logits_process
    theirs = {
        "repetition": process.RepetitionPenaltyLogitsProcessor(1.3),
        "no_repeat_ngram": process.NoRepeatNGramLogitsProcessor(2),
        "temperature": process.TemperatureLogitsWarper(0.8),
        "top_k": process.TopKLogitsWarper(6),
        "top_p": process.TopPLogitsWarper(0.9),
        "min_p": process.MinPLogitsWarper(0.05),
    }
    forward = tuple(theirs)
    for order in (
        forward,
        forward[::-1],
        ("top_p", "repetition", "top_k", "temperature", "no_repeat_ngram", "min_p"),
    ):
        settings = Sampling(
            repetition_penalty=1.3, repetition_mode="huggingface", no_repeat_ngram=2, temperature=0.8, top_k=6,
            top_p=0.9, min_p=0.05, filter_order=order,
        )  # fmt: skip
        for seed in range(10):
            generator = torch.Generator().manual_seed(seed)
            x_BV = 3 * torch.randn(3, 11, generator=generator, dtype=torch.float64)
            token_BT = torch.randint(4, (3, 9), generator=generator)
            memory, expected_BV = Memory(settings, 3, 11), x_BV.clone()
            memory.join(0, [tuple(row) for row in token_BT.tolist()])
            for name in order:
                expected_BV = theirs[name](token_BT, expected_BV)
            torch.testing.assert_close(shape(x_BV, settings, memory), expected_BV)
