"""Words from characters: ids as published, and the layers as written."""

from __future__ import annotations

import pytest
import torch

from lineal.errors import UsageError
from lineal.models.char_cnn import BOS, EOS, CharacterConfig, CharacterReader, character_ids

SMALL = CharacterConfig(((1, 3), (2, 4)), 2, 5, 6, max_characters=8)


def test_ids_are_the_published_ones() -> None:
    """bilm-tf's bytes, marks 256 to 260, each one more."""
    ids = character_ids(["é!", BOS, EOS], 8)
    assert ids[0].tolist() == [259, 0xC3 + 1, 0xA9 + 1, ord("!") + 1, 260, 261, 261, 261]
    assert ids[1].tolist() == [259, 257, 260, 261, 261, 261, 261, 261]
    assert ids[2].tolist() == [259, 258, 260, 261, 261, 261, 261, 261]


def test_a_long_word_is_cut_so_that_its_marks_stay() -> None:
    (ids,) = character_ids(["abcdefghij"], 8)
    assert ids.tolist() == [259, *(ord(c) + 1 for c in "abcdef"), 260]


@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_the_layers_are_as_written(activation: str) -> None:
    config = CharacterConfig(((1, 3), (2, 4)), 2, 5, 6, activation, 8)
    reader = CharacterReader(config).initialise(torch.Generator().manual_seed(0)).double()
    ids_NC = character_ids(["cat", "dogs"], 8)
    x_NCE = reader.characters(ids_NC)
    parts = []
    for (width, _), convolve in zip(config.filters, reader.convolutions, strict=True):
        places = [
            torch.einsum("nwe,few->nf", x_NCE[:, c : c + width], convolve.weight) + convolve.bias  # type: ignore[arg-type]
            for c in range(8 - width + 1)
        ]
        largest = torch.stack(places).amax(0)
        parts.append(largest.relu() if activation == "relu" else largest.tanh())
    u_ND = torch.cat(parts, -1)
    for carry, transform in zip(reader.carry, reader.transform, strict=True):
        gate = torch.sigmoid(carry(u_ND))
        u_ND = gate * torch.relu(transform(u_ND)) + (1 - gate) * u_ND
    torch.testing.assert_close(reader(ids_NC), reader.projection(u_ND))


@pytest.mark.parametrize(
    "wrong",
    [{"filters": ()}, {"filters": ((0, 4),)}, {"filters": ((60, 4),)}, {"activation": "gelu"}],
)
def test_what_makes_no_reader_is_refused(wrong: dict) -> None:
    with pytest.raises(UsageError, match=next(iter(wrong))):
        CharacterConfig(**wrong)
