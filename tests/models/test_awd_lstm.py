"""AWD-LSTM: dropout exactly where it is said to be, tied weights, penalties, and a vocabulary that changes."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from lineal.errors import UsageError
from lineal.models.awd_lstm import (
    AWDLSTM,
    DROPOUTS,
    WEIGHTS,
    AWDConfig,
    Reading,
    activation_penalties,
    with_vocabulary,
)
from lineal.models.dropout import Masks

CONFIG = AWDConfig(11, width=4, hidden=6, layers=3)
NOTHING = replace(CONFIG, **dict.fromkeys(DROPOUTS, 0.0))
TOKEN_BT = torch.tensor([[1, 2, 3, 1, 5], [4, 4, 2, 0, 10]])


def model_of(config: AWDConfig) -> AWDLSTM:
    """A model in float64."""
    return AWDLSTM(config).initialise(0).double()


def by_hand(x_BTD: Tensor, layer: torch.nn.LSTM, mask: Tensor | float) -> Tensor:
    """The recurrence written out, with a mask on the recurrent matrix."""
    inner, across, one, two = (layer.get_parameter(name) for name in WEIGHTS)
    hidden = cell = x_BTD.new_zeros(len(x_BTD), layer.hidden_size)
    found = []
    for x_BD in x_BTD.unbind(1):
        gates = x_BD @ inner.T + hidden @ (across * mask).T + one + two
        i, f, g, o = gates.chunk(4, -1)
        cell = f.sigmoid() * cell + i.sigmoid() * g.tanh()
        hidden = o.sigmoid() * cell.tanh()
        found.append(hidden)
    return torch.stack(found, 1)


def test_dropout_is_where_the_paper_has_it() -> None:
    model = model_of(CONFIG).train()
    noise = model.draw(Masks(0, 1), 2)
    assert noise.word_V is not None and noise.input_B1D is not None and noise.output_B1D is not None
    x_BTD = model.embedding(TOKEN_BT) * noise.word_V[TOKEN_BT][..., None] * noise.input_B1D
    raw_BTD = x_BTD
    for index, layer in enumerate(model.layers):
        mask, between = noise.weight[index], noise.hidden_B1D[index]
        assert mask is not None
        raw_BTD = by_hand(x_BTD, layer, mask)  # type: ignore[arg-type]
        x_BTD = raw_BTD if between is None else raw_BTD * between
    reading = model.read(TOKEN_BT, None, noise)
    torch.testing.assert_close(reading.raw_BTD, raw_BTD)
    torch.testing.assert_close(reading.dropped_BTD, raw_BTD * noise.output_B1D)
    assert [between is None for between in noise.hidden_B1D] == [False, False, True]


def test_masks_hold_zero_or_one_over_what_is_kept() -> None:
    wide = replace(CONFIG, vocab_size=4000, hidden=64)
    noise = model_of(wide).draw(Masks(3, 4), 32)
    for mask, p in ((noise.word_V, 0.05), (noise.weight[0], 0.5), (noise.hidden_B1D[0], 0.3)):
        assert mask is not None
        assert sorted(mask.unique().tolist()) == pytest.approx([0.0, 1 / (1 - p)], rel=1e-4)
        assert (mask == 0).double().mean().item() == pytest.approx(p, abs=0.05)


def test_masks_are_a_function_of_their_seed() -> None:
    model = model_of(CONFIG)
    one, same, other = (model.draw(Masks(0, step), 2).weight[0] for step in (1, 1, 2))
    assert one is not None and same is not None and other is not None
    assert torch.equal(one, same) and not torch.equal(one, other)


def test_without_dropout_it_is_a_plain_lstm() -> None:
    model = model_of(NOTHING)
    x_BTD = model.embedding(TOKEN_BT)
    for layer in model.layers:
        x_BTD, _ = layer(x_BTD)
    noise = model.draw(Masks(0), 2)
    assert noise.word_V is None and noise.weight == [None] * 3
    torch.testing.assert_close(model.read(TOKEN_BT, None, noise).dropped_BTD, x_BTD)
    torch.testing.assert_close(model(TOKEN_BT), x_BTD)


def test_gradients_reach_only_the_weights_that_are_kept() -> None:
    model = model_of(CONFIG).train()
    noise = model.draw(Masks(0, 1), 2)
    model.read(TOKEN_BT, None, noise).dropped_BTD.square().sum().backward()
    gradient, mask = model.layers[0].weight_hh_l0.grad, noise.weight[0]  # type: ignore[union-attr]
    assert mask is not None and gradient is not None
    assert isinstance(gradient, Tensor)
    assert (gradient[mask == 0] == 0).all() and (gradient[mask != 0] != 0).any()


def test_a_text_read_in_two_windows_is_the_text() -> None:
    model = model_of(CONFIG).train()
    noise = model.draw(Masks(0, 1), 2)
    whole = model.read(TOKEN_BT, None, noise)
    first = model.read(TOKEN_BT[:, :2], None, noise)
    second = model.read(TOKEN_BT[:, 2:], first.state, noise)
    torch.testing.assert_close(torch.cat([first.raw_BTD, second.raw_BTD], 1), whole.raw_BTD)
    torch.testing.assert_close(second.state, whole.state)


def test_the_output_layer_is_the_embedding_with_a_bias() -> None:
    tied, own = model_of(CONFIG), model_of(replace(CONFIG, tied=False))
    hidden_ND = torch.randn(3, 4, dtype=torch.float64)
    torch.testing.assert_close(tied.logits(hidden_ND), hidden_ND @ tied.embedding.weight.T + tied.bias)
    assert own.head is not None
    torch.testing.assert_close(own.logits(hidden_ND), hidden_ND @ own.head.weight.T + own.bias)
    assert sum(p.numel() for p in own.parameters()) - sum(p.numel() for p in tied.parameters()) == 44


def test_every_parameter_is_in_one_group() -> None:
    for tied in (True, False):
        model = model_of(replace(CONFIG, tied=tied))
        names = [name for group in model.groups() for name in group]
        assert sorted(names) == sorted(name for name, _ in model.named_parameters())
        assert len(model.groups()) == 5 and list(model.groups()[0]) == ["embedding.weight"]


def test_penalties_worked_out() -> None:
    raw_BTD = torch.tensor([[[1.0, 2.0], [3.0, 2.0], [3.0, 5.0]]])
    dropped_BTD = torch.tensor([[[2.0, 0.0], [6.0, 0.0], [6.0, 0.0]]])
    small, slow = activation_penalties(Reading(raw_BTD, dropped_BTD, ()), 2.0, 1.0)
    assert small.item() == pytest.approx(2 * 76 / 6) and slow.item() == pytest.approx((4 + 9) / 4)
    one = Reading(raw_BTD[:, :1], dropped_BTD[:, :1], ())
    assert activation_penalties(one, 0.0, 1.0) == (0.0, 0.0)


def test_a_new_vocabulary_keeps_known_words_and_gives_new_ones_the_mean() -> None:
    model = model_of(CONFIG)
    other = with_vocabulary(model, replace(CONFIG, vocab_size=4), [0, 7, None, 3])
    old, new = model.embedding.weight, other.embedding.weight
    assert torch.equal(new[[0, 1, 3]], old[[0, 7, 3]])
    torch.testing.assert_close(new[2], old.mean(0))
    assert torch.equal(other.layers[1].weight_hh_l0, model.layers[1].weight_hh_l0)  # type: ignore[arg-type]
    assert other.bias.shape == (4,)


@pytest.mark.parametrize(
    "wrong", [{"vocab_size": 0}, {"hidden": 0}, {"weight_dropout": 1.0}, {"layout": "gpt2"}]
)
def test_what_makes_no_model_is_refused(wrong: dict) -> None:
    with pytest.raises(UsageError, match=next(iter(wrong))):
        replace(CONFIG, **wrong)
