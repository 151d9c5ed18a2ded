"""Vectors of texts from recurrent readers: by themselves as among others, and what they refuse."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from lineal.errors import DataError, UsageError
from lineal.models.awd_lstm import AWDLSTM, AWDConfig
from lineal.models.char_cnn import CharacterConfig
from lineal.models.elmo import BiLM, ElmoConfig
from lineal.models.hf.awd import save_awd
from lineal.models.hf.elmo import save_elmo
from lineal.train.embedding import load_embedder
from lineal.train.recurrent.vocabulary import learn_words

TEXTS = ["a cat sat", "the dog is a dog . It ran", "cat"]


@pytest.fixture
def awd(tmp_path: Path) -> Path:
    """A folder with both directions of an AWD-LSTM."""
    tokenizer = learn_words(TEXTS, 50, 1)
    config = AWDConfig(tokenizer.vocab_size, width=3, hidden=5, layers=2)
    save_awd({d: AWDLSTM(config).initialise(i) for i, d in enumerate(("forward", "backward"))}, tmp_path)
    tokenizer.save(tmp_path)
    return tmp_path


@pytest.fixture
def elmo(tmp_path: Path) -> Path:
    """A folder of ELMo."""
    config = ElmoConfig(CharacterConfig(((1, 3),), 1, 4, 4), cells=6, cell_clip=None, output_clip=None)
    save_elmo(BiLM(config).initialise(0), tmp_path)
    return tmp_path


@pytest.mark.parametrize("pooling", ["mean", "last"])
def test_a_text_s_vector_does_not_depend_on_the_others(awd: Path, pooling: str) -> None:
    embed = load_embedder(awd, "cpu", pooling=pooling)
    found = embed(TEXTS)
    assert found.shape == (3, 6) and embed([]).shape == (0, 6)
    torch.testing.assert_close(found[1:2], embed(TEXTS[1:2]))
    assert embed.nearest("a cat sat", TEXTS, 1)[0][0] == "a cat sat"


def test_layers_of_elmo_stand_side_by_side(elmo: Path) -> None:
    both, last = load_embedder(elmo, "cpu", layers=(0, -1)), load_embedder(elmo, "cpu")
    found = both(TEXTS)
    assert found.shape == (3, 16)
    torch.testing.assert_close(found[:, 8:], last(TEXTS))
    # Without context a text's vector is the mean of its words'.
    words = both(["a", "cat", "sat"])[:, :8]
    torch.testing.assert_close(found[0, :8], words.mean(0))


@pytest.mark.parametrize(("pooling", "layers"), [("cls", (-1,)), ("mean", (3,)), ("mean", (-4,))])
def test_what_they_do_not_have_is_refused(elmo: Path, pooling: str, layers: tuple[int, ...]) -> None:
    with pytest.raises(UsageError, match=r"--pooling|--layers"):
        load_embedder(elmo, "cpu", pooling=pooling, layers=layers)


def test_an_awd_lstm_has_its_last_layer_only(awd: Path) -> None:
    with pytest.raises(UsageError, match="--layers"):
        load_embedder(awd, "cpu", layers=(0,))


def test_a_text_without_words_has_no_vector(elmo: Path) -> None:
    with pytest.raises(DataError, match="no word"):
        load_embedder(elmo, "cpu")(["   "])
