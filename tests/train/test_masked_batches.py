"""Batches: the texts of their pairs between the special tokens, what is hidden and where it stood, little padding."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lineal.models.bert import Bert, BertConfig
from lineal.train.length_order import parts_of
from lineal.train.masked import held_out, losses_of, micro_batches
from lineal.train.masked_batches import PairOrder, Pairs, like_lengths, padding
from lineal.train.masking import Masking, Vocabulary
from lineal.train.sentence_pairs import Documents

WORDS = Vocabulary(pad=0, cls=2, sep=3, mask=4, inside=np.zeros(100, dtype=bool), ordinary=np.arange(5, 100))


def made(count: int = 80, block: int = 24, duplicates: int = 0, seed: int = 0) -> Pairs:
    """Pairs of documents of random segments."""
    draw = np.random.default_rng(1)
    sizes = draw.integers(2, 9, (count, 6))
    at = np.concatenate(([0], np.cumsum(sizes)))
    token_N = draw.integers(5, 100, at[-1]).astype(np.int32)
    return Pairs(
        Documents(token_N, at, np.arange(count + 1) * 6),
        WORDS,
        Masking(0.15, 99),
        block,
        0.3,
        seed,
        duplicates,
    )


def test_a_batch_is_its_pairs_between_special_tokens() -> None:
    pairs = made()
    row_B = np.array([3, 0, 11])
    batch, place = pairs.batch(0, row_B), pairs.of(0).place_N4[row_B]
    restored = batch.token_BT.clone().flatten()
    restored[batch.at_M] = batch.word_M
    restored = restored.view(batch.token_BT.shape)
    source = pairs.data.token_N
    for row, (a, b, c, d) in enumerate(place.tolist()):
        expected = [2, *source[a:b], 3, *source[c:d], 3]
        count = len(expected)
        assert restored[row, :count].tolist() == expected
        assert restored[row, count:].tolist() == [0] * (restored.shape[1] - count)
        assert batch.mask_BT[row].tolist() == [True] * count + [False] * (restored.shape[1] - count)
        second = [0] * (b - a + 2) + [1] * (d - c + 1)
        assert batch.segment_BT[row].tolist() == second + [0] * (restored.shape[1] - count)
    assert batch.random_B.tolist() == pairs.of(0).random_N[row_B].astype(int).tolist()
    assert not set(batch.word_M.tolist()) & {0, 2, 3, 4}


def test_an_epoch_has_every_pair_once_and_little_padding() -> None:
    pairs = made(count=400)
    order = PairOrder(pairs, 16)
    length_N = pairs.of(0).lengths()
    batches = order.epoch(0)
    assert sorted(np.concatenate(batches).tolist()) == list(range(len(length_N)))
    shuffled = np.array_split(np.random.default_rng(0).permutation(len(length_N)), len(batches))
    assert padding(batches, length_N + 3) < 0.1 < padding(shuffled, length_N + 3)


def test_a_step_is_found_again_without_those_before_it() -> None:
    order = PairOrder(made(), 16)
    whole = [order.drawn(step) for step in range(3 * len(order.epoch(0)))]
    for step in (0, 7, len(whole) - 1):
        variant, row_B = PairOrder(made(), 16).drawn(step)
        assert variant == whole[step][0] and (row_B == whole[step][1]).all()
    assert {variant for variant, _ in whole} >= {0, 1, 2}
    assert {PairOrder(made(duplicates=2), 16).drawn(step)[0] for step in range(len(whole))} == {0, 1}


def test_micro_batches_hold_every_row_within_the_budget() -> None:
    length_B = np.array([5, 9, 7, 9, 3])
    parts = list(parts_of(np.arange(5), int(length_B.max()), 20))
    assert np.concatenate(parts).tolist() == [0, 1, 2, 3, 4] and all(len(part) <= 2 for part in parts)
    assert [len(part) for part in parts_of(np.arange(5), int(length_B.max()), 1)] == [1] * 5
    assert [part.tolist() for part in like_lengths(np.arange(5), length_B, 2)] == [[4, 0], [2, 1], [3]]


def tiny() -> Bert:
    model = Bert(BertConfig(100, width=16, inner=32, heads=2, layers=2, context=24)).initialise(0).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn(
                parameter.shape, generator=torch.Generator().manual_seed(parameter.numel())
            )
    return model.eval()


def test_losses_are_of_the_hidden_places_alone() -> None:
    pairs, model = made(), tiny()
    batch = pairs.batch(0, np.arange(5))
    found = losses_of(model, batch)
    logits_BTV = model.words(model(batch.token_BT, batch.segment_BT, batch.mask_BT))
    logp_MV = logits_BTV.flatten(0, 1).log_softmax(-1)[batch.at_M]
    expected = -sum(logp_MV[i, word].item() for i, word in enumerate(batch.word_M.tolist()))
    assert found.words.item() == pytest.approx(expected, rel=1e-9)
    assert (found.hidden, found.rows) == (len(batch.word_M), 5)


def test_padding_and_neighbours_change_nothing() -> None:
    pairs, model = made(), tiny()
    together = losses_of(model, pairs.batch(0, np.arange(6)))
    alone = [losses_of(model, pairs.batch(0, np.array([row]))) for row in range(6)]
    for name in ("words", "follows"):
        assert sum(getattr(x, name).item() for x in alone) == pytest.approx(
            getattr(together, name).item(), rel=1e-9
        )
    parts = micro_batches(pairs, 0, np.arange(6), 40)
    assert len(parts) > 1
    assert sum(losses_of(model, part).words.item() for part in parts) == pytest.approx(
        together.words.item(), rel=1e-9
    )
    assert micro_batches(pairs, 0, np.arange(0), 40) == []


def test_held_out_figures_are_means_over_all_pairs() -> None:
    pairs, model = made(count=30, duplicates=1), tiny()
    found = held_out(model, pairs)
    rows = np.arange(len(pairs.of(0)))
    whole = losses_of(model, pairs.batch(0, rows))
    assert found.pairs == len(rows)
    assert found.words == pytest.approx(whole.words.item() / whole.hidden)
    assert found.next_accuracy == pytest.approx(whole.follows_right.item() / len(rows))
    assert found.metrics()["eval/masked_perplexity"] == pytest.approx(np.exp(found.words))
    assert held_out(model, pairs, most=7).pairs == 7
    share = pairs.of(0).random_N.mean()
    assert found.usual == pytest.approx(max(share, 1 - share))
