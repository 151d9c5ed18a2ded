"""Gradients of recurrent readers against finite differences in float64, dropout and clips included."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import gradcheck

from lineal.models.awd_lstm import AWDLSTM, AWDConfig, activation_penalties
from lineal.models.char_cnn import CharacterConfig, CharacterReader, character_ids
from lineal.models.documents import DocumentReader, Pieces, TwoLayerHead
from lineal.models.dropout import Masks
from lineal.models.elmo import BiLM, ElmoConfig, ScalarMix
from lineal.models.tagger import Tagger

SHAPE = AWDConfig(6, width=2, hidden=3, layers=2)
TOKEN_BT = torch.tensor([[1, 4, 2, 0, 5], [3, 3, 1, 0, 0]])


def checked(module: nn.Module, function: Callable[[], Tensor], *more: Tensor) -> None:
    """The gradient of a function by every parameter of a module, and by more, is its finite difference."""
    moving = [p for p in (*module.parameters(), *more) if p.requires_grad]

    def value(*given: Tensor) -> Tensor:
        # The parameters themselves are moved: what is given is what they are.
        return function()

    for parameter in moving:
        assert parameter.dtype == torch.float64
    assert gradcheck(value, tuple(moving), eps=1e-6, atol=1e-6, rtol=1e-4)


def spread(module: nn.Module, seed: int = 0) -> nn.Module:
    """Weights far from zero, so that no part of a sum hides behind another."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(0.7 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return module


@pytest.mark.parametrize("tied", [True, False])
def test_an_awd_lstm_under_all_its_dropout(tied: bool) -> None:
    model = AWDLSTM(replace(SHAPE, tied=tied)).double()
    spread(model)
    noise = model.draw(Masks(3), 2)
    state = tuple(
        (torch.randn(2, w, dtype=torch.float64, requires_grad=True), torch.randn(2, w, dtype=torch.float64))
        for w in SHAPE.widths
    )

    def loss() -> Tensor:
        reading = model.read(TOKEN_BT, state, noise)
        small, slow = activation_penalties(reading, 0.7, 0.3)
        return model.logits(reading.dropped_BTD).log_softmax(-1)[..., 2].sum() + small + slow

    checked(model, loss, *(hidden for hidden, _ in state))


@pytest.mark.parametrize("pooling", ["concat", "last", "max", "mean"])
def test_a_document_read_in_pieces(pooling: str) -> None:
    reader = AWDLSTM(SHAPE).double()
    head = TwoLayerHead(6 if pooling == "concat" else 2, 3, 2).double().train()
    model = DocumentReader(reader, head, pooling)
    spread(model)
    noise, length_B = reader.draw(Masks(1), 2), torch.tensor([5, 3])

    def loss() -> Tensor:
        pooled_BD = model.pooled(TOKEN_BT, length_B, Pieces(2, 0), noise)
        # Batch norm's running figures do not matter here, and two rows normalise to signs: scores of the pooled state.
        return (pooled_BD * torch.arange(1.0, 1 + pooled_BD.numel()).view_as(pooled_BD)).sum()

    checked(reader, loss)


def test_the_head_over_a_batch() -> None:
    head = TwoLayerHead(3, 4, 2).double().train()
    spread(head, 2)
    pooled_BD = torch.randn(5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    pooled_BD.requires_grad_()

    def loss() -> Tensor:
        return head(pooled_BD, Masks(5), 0.3).log_softmax(-1)[:, 1].sum()

    checked(head, loss, pooled_BD)


@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_words_from_characters(activation: str) -> None:
    config = CharacterConfig(((1, 2), (3, 2)), 2, 3, 2, activation, max_characters=8)
    reader = CharacterReader(config).double()
    spread(reader)
    ids_NC = character_ids(["ab", "cabs"], 8)
    # An absent word's row is held at 0 and takes no gradient.
    reader.characters.padding_idx = None
    checked(reader, lambda: reader(ids_NC).sin().sum())


@pytest.mark.parametrize("bounds", [(None, None), (0.3, None), (None, 0.2), (0.3, 0.2)])
def test_projected_layers_with_clips_and_without(bounds: Sequence[float | None]) -> None:
    reader = CharacterConfig(((1, 2),), 0, 2, 2, max_characters=4)
    config = ElmoConfig(reader, cells=3, cell_clip=bounds[0], output_clip=bounds[1], dropout=0.0)
    model = BiLM(config).double()
    spread(model)
    word_BTD = torch.randn(2, 4, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    word_BTD.requires_grad_()
    mask_BT = torch.arange(4) < torch.tensor([[4], [2]])

    def loss() -> Tensor:
        layers = model.layers_of(word_BTD, mask_BT)
        return sum(((i + 1) * h_BTD[mask_BT].sin().sum() for i, h_BTD in enumerate(layers)), torch.zeros(()))

    moving = nn.ModuleList([model.forward_layers, model.backward_layers])
    checked(moving, loss, word_BTD)


@pytest.mark.parametrize("normalise", [True, False])
def test_a_mixture_of_layers(normalise: bool) -> None:
    mix = ScalarMix(3, normalise).double()
    spread(mix)
    layers = [torch.randn(2, 4, dtype=torch.float64, requires_grad=True) for _ in range(3)]
    checked(mix, lambda: mix(layers).sin().sum(), *layers)


def test_a_tagger_with_features() -> None:
    model = Tagger(5, 3, 2, 2, 2, 0.0).double()
    spread(model)
    feature_BTF = torch.randn(2, 4, 2, dtype=torch.float64, requires_grad=True)
    word_BT, mask_BT = torch.tensor([[1, 2, 0, 4], [3, 0, 0, 0]]), torch.arange(4) < torch.tensor([[4], [2]])
    checked(
        model, lambda: model(word_BT, mask_BT, feature_BTF)[mask_BT].log_softmax(-1)[:, 1].sum(), feature_BTF
    )


def test_gradients_of_pieces_without_a_limit_are_those_of_one_pass() -> None:
    """BPTT through chunks: with all of them counted the cut changes nothing, and with a limit earlier tokens get none."""
    reader = AWDLSTM(SHAPE).double()
    model = DocumentReader(reader, TwoLayerHead(6, 3, 2).double(), "concat")
    spread(model)
    found = []
    for pieces in (Pieces(1, 0), Pieces(2, 0), Pieces(5, 0), Pieces(1, 2)):
        model.zero_grad()
        model.pooled(TOKEN_BT[:1], torch.tensor([5]), pieces).sin().sum().backward()
        found.append([p.grad.clone() for p in reader.parameters() if p.grad is not None])
    for other in found[1:3]:
        for one, two in zip(found[0], other, strict=True):
            torch.testing.assert_close(one, two)
    table = found[3][0]
    assert table[[0, 5]].abs().sum() > 0 and table[[1, 4, 2]].abs().sum() == 0
