"""The bidirectional language model: directions, residuals, clips, padding, and the mixture of its layers."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from lineal.errors import UsageError
from lineal.models.char_cnn import CharacterConfig
from lineal.models.elmo import BiLM, ElmoConfig, ScalarMix, reversed_places

CONFIG = ElmoConfig(
    CharacterConfig(((1, 3), (2, 4)), 1, 5, 4, max_characters=8),
    cells=6,
    cell_clip=None,
    output_clip=None,
    vocab_size=9,
)
WORD_BTD = torch.randn(2, 5, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def model_of(config: ElmoConfig = CONFIG) -> BiLM:
    """A model in float64, without dropout."""
    return BiLM(config).initialise(0).double().eval()


def test_the_layer_above_adds_its_input() -> None:
    model = model_of()
    outputs, _ = model.read(WORD_BTD, "forward")
    first, _ = model.forward_layers[0](WORD_BTD)
    second, _ = model.forward_layers[1](first)
    torch.testing.assert_close(outputs[0], first)
    torch.testing.assert_close(outputs[1], second + first)
    plain, _ = model_of(replace(CONFIG, residual=False)).read(WORD_BTD, "forward")
    torch.testing.assert_close(plain[1], second)


def test_the_written_out_step_is_the_fused_one_where_no_clip_bites() -> None:
    fused, written = model_of(), model_of(replace(CONFIG, cell_clip=1e6, output_clip=1e6))
    for direction in ("forward", "backward"):
        for a, b in zip(fused.read(WORD_BTD, direction), written.read(WORD_BTD, direction), strict=True):
            torch.testing.assert_close(tuple(a), tuple(b))


def test_clips_bound_cells_and_outputs() -> None:
    model = model_of(replace(CONFIG, cell_clip=0.05, output_clip=0.02))
    outputs, state = model.read(10 * WORD_BTD, "forward")
    assert outputs[0].abs().max().item() == pytest.approx(0.02)
    assert state[0][1].abs().max().item() == pytest.approx(0.05)


def test_a_text_in_two_windows_is_the_text() -> None:
    model = model_of()
    whole, end = model.read(WORD_BTD, "backward")
    first, state = model.read(WORD_BTD[:, :2], "backward")
    second, after = model.read(WORD_BTD[:, 2:], "backward", state)
    for layer in range(2):
        torch.testing.assert_close(torch.cat([first[layer], second[layer]], 1), whole[layer])
    torch.testing.assert_close(after, end)


def test_padding_changes_nothing_in_either_direction() -> None:
    model = model_of()
    mask_BT = torch.tensor([[True] * 5, [True, True, True, False, False]])
    both = model.layers_of(WORD_BTD, mask_BT)
    alone = model.layers_of(WORD_BTD[1:, :3], mask_BT[1:, :3])
    assert len(both) == 3 and both[0].shape == (2, 5, 8)
    for together, single in zip(both, alone, strict=True):
        torch.testing.assert_close(together[1:, :3], single)


def test_each_direction_sees_its_own_side_only() -> None:
    model, mask_BT = model_of(), torch.ones(2, 5, dtype=torch.bool)
    changed_BTD = WORD_BTD.clone()
    changed_BTD[:, 2] += 1
    for before, after in zip(
        model.layers_of(WORD_BTD, mask_BT)[1:], model.layers_of(changed_BTD, mask_BT)[1:]
    ):
        forward_BT = (before - after)[..., :4].abs().sum(-1)
        backward_BT = (before - after)[..., 4:].abs().sum(-1)
        assert (forward_BT[:, :2] == 0).all() and (forward_BT[:, 2:] > 0).all()
        assert (backward_BT[:, 3:] == 0).all() and (backward_BT[:, :3] > 0).all()


def test_places_turn_round_within_their_row() -> None:
    mask_BT = torch.tensor([[True, True, True], [True, True, False]])
    assert reversed_places(mask_BT).tolist() == [[2, 1, 0], [1, 0, 2]]


def test_the_mixture_begins_as_the_mean() -> None:
    layers = [torch.randn(2, 3, 4) for _ in range(3)]
    mix = ScalarMix(3)
    torch.testing.assert_close(mix(layers), torch.stack(layers).mean(0))
    assert mix.weights.sum().item() == pytest.approx(1)


def test_the_mixture_is_gamma_times_the_weighted_sum() -> None:
    layers = [torch.full((1, 2), value) for value in (1.0, 2.0, 4.0)]
    mix = ScalarMix(3)
    with torch.no_grad():
        mix.score.copy_(torch.tensor([0.0, 1.0, 2.0]))
        mix.gamma.fill_(0.5)
    e = torch.tensor([0.0, 1.0, 2.0]).exp()
    wanted = 0.5 * (e[0] + 2 * e[1] + 4 * e[2]) / e.sum()
    torch.testing.assert_close(mix(layers), wanted.expand(1, 2))


def test_normalised_layers_have_mean_0_and_variance_1() -> None:
    layer = 7 + 3 * torch.randn(5, 64)
    out = ScalarMix(1, normalise=True)([layer])
    torch.testing.assert_close(out.mean(-1), torch.zeros(5), atol=1e-5, rtol=0)
    torch.testing.assert_close(out.var(-1, unbiased=False), torch.ones(5), atol=1e-4, rtol=0)


def test_a_mixture_of_other_layers_is_refused() -> None:
    with pytest.raises(UsageError, match="2 layers"):
        ScalarMix(3)([torch.zeros(2), torch.zeros(2)])


def test_without_an_output_layer_nothing_is_predicted() -> None:
    with pytest.raises(UsageError, match="no output layer"):
        model_of(replace(CONFIG, vocab_size=0)).logits(WORD_BTD)


@pytest.mark.parametrize("wrong", [{"cells": 4}, {"layers": 0}, {"dropout": 1.0}])
def test_what_makes_no_model_is_refused(wrong: dict) -> None:
    with pytest.raises(UsageError, match=next(iter(wrong))):
        replace(CONFIG, **wrong)
