"""The tagger: both directions, features, and padding that changes nothing."""

from __future__ import annotations

import torch

from lineal.models.tagger import Tagger

WORD_BT = torch.tensor([[1, 2, 3, 4], [4, 3, 0, 0]])
MASK_BT = torch.tensor([[True] * 4, [True, True, False, False]])


def tagger_of(features: int = 0) -> Tagger:
    """A small tagger in float64, without dropout."""
    return Tagger(5, 3, 4, 6, features, 0.5).initialise(0).double().eval()


def test_padding_changes_nothing() -> None:
    tagger = tagger_of()
    both = tagger(WORD_BT, MASK_BT)
    assert both.shape == (2, 4, 3)
    torch.testing.assert_close(both[1:, :2], tagger(WORD_BT[1:, :2], MASK_BT[1:, :2]))
    changed = WORD_BT.clone()
    changed[1, 2:] = 2
    torch.testing.assert_close(tagger(changed, MASK_BT)[1, :2], both[1, :2])


def test_every_word_sees_the_whole_sentence() -> None:
    tagger = tagger_of()
    before = tagger(WORD_BT, MASK_BT)
    for place in range(4):
        changed = WORD_BT.clone()
        changed[0, place] = 0
        moved = (tagger(changed, MASK_BT)[0] - before[0]).abs().sum(-1)
        assert (moved > 0).all()


def test_features_stand_beside_the_word_s_own_vector() -> None:
    tagger = tagger_of(2)
    feature = torch.randn(2, 4, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    one, other = tagger(WORD_BT, MASK_BT, feature), tagger(WORD_BT, MASK_BT, 2 * feature)
    assert tagger.ahead.input_size == 6 and not torch.equal(one, other)


def test_fresh_weights_are_a_function_of_the_seed() -> None:
    one, same, other = (Tagger(5, 3, 4, 6, 0, 0.5).initialise(seed) for seed in (0, 0, 1))
    for (name, a), b, c in zip(one.named_parameters(), same.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)
        assert a.ndim < 2 or not torch.equal(a, c), name
    assert torch.equal(one.ahead.get_parameter("bias_ih_l0").chunk(4)[1], torch.ones(6))
