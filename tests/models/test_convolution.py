"""Convolutional networks in a flat row: sizes by hand, equal to torch's own layers, their start, and what is refused."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from lineal.errors import UsageError
from lineal.models.convolution import NATURE, SMALL, ConvolutionShape, as_tuple, filters_of

TINY = ConvolutionShape((3, 9, 7), ((4, 3, 2), (5, 2, 1)), (6,), 2, "relu", extra=3)


def layers(shape: ConvolutionShape, theta_P: torch.Tensor) -> nn.Sequential:
    """The same network of torch's own layers."""
    pieces, found = shape.pieces(theta_P), []
    channels = shape.image[0]
    activation = nn.ReLU if shape.activation == "relu" else nn.Tanh
    for filters, side, stride in shape.filters:
        found += [nn.Conv2d(channels, filters, side, stride), activation()]
        channels = filters
    found.append(nn.Flatten())
    for high, width in shape.weights[len(shape.filters) :]:
        found += [nn.Linear(width, high), activation()]
    whole = nn.Sequential(*found[:-1]).double()
    with torch.no_grad():
        for mine, theirs in zip(pieces, whole.parameters(), strict=True):
            theirs.copy_(mine)
    return whole


def test_planes_and_weights_by_hand() -> None:
    assert TINY.planes == [(4, 3), (3, 2)]
    assert TINY.weights == [(4, 3, 3, 3), (5, 4, 2, 2), (6, 30), (2, 6)]
    assert TINY.count == (4 * 27 + 4) + (5 * 16 + 5) + (6 * 30 + 6) + (2 * 6 + 2) + 3


def test_the_nature_network_has_the_size_that_is_known() -> None:
    """1,684,128 numbers up to the 512 features of four grey moments (Mnih et al. 2015), and 18 x 513 for all buttons."""
    shape = ConvolutionShape((4, 84, 84), NATURE, (512,), 18)
    assert shape.planes == [(20, 20), (9, 9), (7, 7)]
    assert shape.count == 8_224 + 32_832 + 36_928 + 1_606_144 + 18 * 513


def test_pieces_are_views_of_the_row_that_leave_the_extra_numbers_alone() -> None:
    theta_P = torch.arange(float(TINY.count))
    pieces = TINY.pieces(theta_P)
    assert [tuple(piece.shape) for piece in pieces[::2]] == TINY.weights
    assert sum(piece.numel() for piece in pieces) == TINY.count - TINY.extra
    pieces[-1].fill_(-1.0)
    assert theta_P[TINY.count - TINY.extra - 2 : TINY.count - TINY.extra].tolist() == [-1.0, -1.0]
    assert theta_P[-TINY.extra :].tolist() == [float(TINY.count - 3 + i) for i in range(3)]


@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_outputs_and_gradients_are_those_of_torch_s_layers(activation: str) -> None:
    shape = ConvolutionShape((3, 9, 7), ((4, 3, 2), (5, 2, 1)), (6, 5), 2, activation)
    generator = torch.Generator().manual_seed(3)
    theta_P = shape.start([(2, 1.0)], False, generator).requires_grad_()
    image = torch.randint(0, 256, (4, 3, 9, 7), dtype=torch.uint8, generator=generator)
    theirs = layers(shape, theta_P.detach())
    mine_NO, other_NO = shape(shape.pieces(theta_P), image), theirs(image.double() / 255)
    torch.testing.assert_close(mine_NO, other_NO, rtol=1e-12, atol=1e-12)
    (mine,) = torch.autograd.grad(mine_NO.square().sum(), theta_P)
    other_NO.square().sum().backward()
    flat = torch.cat([parameter.grad.flatten() for parameter in theirs.parameters()])  # type: ignore[union-attr]
    torch.testing.assert_close(mine, flat, rtol=1e-10, atol=1e-12)


def test_without_convolutions_it_is_a_perceptron_on_pixels() -> None:
    shape = ConvolutionShape((1, 2, 3), (), (), 4)
    theta_P = shape.start([(4, 1.0)], True, torch.Generator().manual_seed(0))
    image = torch.arange(6, dtype=torch.uint8).view(1, 1, 2, 3)
    weight, bias = shape.pieces(theta_P)
    assert torch.equal(shape([weight, bias], image), (image.flatten(1).double() / 255) @ weight.T + bias)


def test_an_orthogonal_start_has_the_gains_it_says() -> None:
    shape = ConvolutionShape((2, 12, 12), ((4, 3, 2),), (16,), 3)
    pieces = shape.pieces(shape.start([(2, 0.01), (1, 1.0)], True, torch.Generator().manual_seed(5)))
    for weight in pieces[:-2:2]:
        flat = weight.flatten(1)
        torch.testing.assert_close(flat @ flat.T, 2.0 * torch.eye(len(flat), dtype=torch.float64))
    torch.testing.assert_close(
        (pieces[-2] @ pieces[-2].T).diagonal(), torch.tensor([1e-4, 1e-4, 1.0]).double()
    )
    assert all(bool((bias == 0).all()) for bias in pieces[1::2])


def test_a_plain_start_stays_within_torch_s_bounds_and_fills_them() -> None:
    shape = ConvolutionShape((2, 12, 12), ((8, 3, 2),), (16,), 3)
    pieces = shape.pieces(shape.start([(3, 0.01)], False, torch.Generator().manual_seed(5)))
    for weight, bias in zip(pieces[::2], pieces[1::2], strict=True):
        bound = 1 / math.sqrt(weight[0].numel())
        assert float(weight.abs().max()) <= bound and float(bias.abs().max()) <= bound
        assert float(weight.abs().max()) > 0.8 * bound


def test_outputs_beyond_the_gains_start_at_zero() -> None:
    shape = ConvolutionShape((1, 6, 6), ((2, 3, 1),), (4,), 3)
    pieces = shape.pieces(shape.start([(2, 1.0)], True, torch.Generator().manual_seed(1)))
    assert bool((pieces[-2][2] == 0).all()) and bool((pieces[-2][:2] != 0).any())


def test_the_start_depends_on_the_generator_alone() -> None:
    drawn = [TINY.start([(2, 1.0)], True, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)]
    assert torch.equal(drawn[0], drawn[1]) and not torch.equal(drawn[0], drawn[2])


def test_words_for_filters() -> None:
    assert filters_of(("32x8/4", "64x4/2"), (4, 84, 84)) == ((32, 8, 4), (64, 4, 2))
    assert filters_of((), (4, 84, 84)) == NATURE
    assert filters_of((), (3, 36, 40)) == NATURE
    assert filters_of((), (1, 35, 84)) == SMALL


@pytest.mark.parametrize("word", ["32x8", "32/8x4", "x8/4", "32x8/0", "0x8/4", "-1x8/4", "32x8/4 "])
def test_words_that_say_nothing(word: str) -> None:
    with pytest.raises(UsageError, match=r"write FILTERSxSIDE/STRIDE, as in 32x8/4"):
        filters_of(("16x3/1", word), (1, 84, 84))


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(
        UsageError, match=r"32x8/4 64x4/2 64x3/1 do not fit on pictures of 20 x 84: nothing is left"
    ):
        ConvolutionShape((4, 20, 84), NATURE, (512,), 6)
    with pytest.raises(UsageError, match=r"activation is 'gelu'. Use one of: tanh, relu"):
        ConvolutionShape((4, 84, 84), NATURE, (512,), 6, "gelu")


def test_lists_become_tuples_all_the_way_down() -> None:
    assert as_tuple([[1, [2]], "a", 3]) == ((1, (2,)), "a", 3)
