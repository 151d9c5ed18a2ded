"""Features of words: in batches as alone, kept as read, trained or not."""

from __future__ import annotations

from pathlib import Path

import torch

from lineal.models.char_cnn import BOS, EOS, CharacterConfig, character_ids
from lineal.models.elmo import BiLM, ElmoConfig
from lineal.representations.files import load_vectors
from lineal.train.tagging.features import ElmoFeatures, StaticFeatures, layers_of_sentences

CONFIG = ElmoConfig(CharacterConfig(((1, 3), (2, 4)), 1, 5, 4), cells=6, cell_clip=None, output_clip=None)
ROWS = [("the", "bank"), ("a", "long", "river", "bank")]


def model_of() -> BiLM:
    """A small model."""
    return BiLM(CONFIG).initialise(0).eval()


def test_sentences_stand_between_their_marks() -> None:
    model = model_of()
    layers, mask_BT = layers_of_sentences(model, ROWS)
    assert mask_BT.tolist() == [[True, True, False, False], [True] * 4]
    words = (BOS, *ROWS[0], EOS)
    word_1TD = model.words(character_ids(words))[None]
    wanted = model.layers_of(word_1TD, torch.ones(1, 4, dtype=torch.bool))
    for layer, single in zip(layers, wanted, strict=True):
        torch.testing.assert_close(layer[0, :2], single[0, 1:-1])


def test_kept_layers_are_the_layers() -> None:
    model = model_of()
    frozen, tuned = ElmoFeatures(model), ElmoFeatures(model_of(), tune=True)
    for _ in range(2):
        torch.testing.assert_close(frozen(ROWS), tuned(ROWS))
    assert (frozen(ROWS)[0, 2:] == 0).all() and (tuned(ROWS)[0, 2:] == 0).all()


def test_only_what_is_tuned_moves() -> None:
    for tune in (False, True):
        features = ElmoFeatures(model_of(), tune=tune)
        features(ROWS).square().sum().backward()
        assert features.mix.gamma.grad is not None
        grads = [p.grad is not None for p in features.model.forward_layers.parameters()]
        assert all(grads) is tune and any(grads) is tune


def test_one_word_has_one_static_vector() -> None:
    model = model_of()
    features = StaticFeatures(model)
    found = features(ROWS)
    assert torch.equal(found[0, 1], found[1, 3]) and (found[0, 2:] == 0).all()
    torch.testing.assert_close(found[0, 0], model.words(character_ids(["the"]))[0].detach())


def test_vectors_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "v.txt"
    path.write_text("2 3\nbank 1 2 3\nThe 4 5 6\n")
    found = StaticFeatures(load_vectors(path))(ROWS)
    assert found[1, 3].tolist() == [1, 2, 3] and found[0, 0].tolist() == [0, 0, 0]
    upper = StaticFeatures(load_vectors(path))([("BANK", "The")])
    assert upper[0].tolist() == [[1, 2, 3], [4, 5, 6]]
