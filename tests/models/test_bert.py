"""The encoder: as the paper starts it, what refuses, what fine-tuning moves, and states by layer, of decoders too."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from lineal.errors import ModelError, UsageError
from lineal.models.bert import Bert, BertBody, BertConfig
from lineal.models.decoder import Decoder, gpt1_config, llama_config
from lineal.models.dropout import Masks
from lineal.models.finetuned import Body, DecoderBody, FineTuned, Inputs
from lineal.models.multihead import Pass
from lineal.tokenizers import CharTokenizer
from lineal.train.embedding import Embedder
from lineal.train.finetune.inputs import ClassMarks, lay_out

MARKS = ClassMarks(18, 19)


def body(layers: int = 2) -> BertBody:
    return BertBody(
        Bert(BertConfig(20, width=16, inner=32, heads=2, layers=layers, context=12)).initialise(0).eval()
    )


def test_weights_start_within_two_standard_deviations() -> None:
    for name, parameter in (
        Bert(BertConfig(500, width=64, inner=128, heads=4, layers=2)).initialise(1).named_parameters()
    ):
        if parameter.ndim == 2 and parameter.numel() > 1000:
            assert parameter.abs().max() <= 0.04 and 0.016 < parameter.std().item() < 0.019, name
        elif parameter.ndim == 1:
            assert set(parameter.tolist()) == {1.0 if name.endswith("norm.weight") else 0.0}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"heads": 5}, "width 768 must be a multiple of heads, 5"),
        ({"activation": "tanh"}, "activation 'tanh' is not one of"),
        ({"layers": 0}, "must be at least 1"),
    ],
)
def test_shapes_that_make_no_model_are_refused(options: dict, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        BertConfig(100, **options)


def test_a_text_that_is_too_long_is_refused() -> None:
    token_BT = torch.zeros(1, 13, dtype=torch.int64)
    with pytest.raises(ModelError, match="13 tokens are more than the 12"):
        body().encoder(token_BT, token_BT)


def test_dropout_is_a_function_of_its_masks() -> None:
    encoder = body().encoder
    token_BT = torch.arange(10)[None]
    given = (token_BT, torch.zeros_like(token_BT), None)
    one, same, other = (encoder(*given, Pass(Masks(*seed))) for seed in ((1, 2), (1, 2), (1, 3)))
    assert torch.equal(one, same) and not torch.allclose(one, other)
    assert not torch.allclose(one, encoder(*given))


@pytest.mark.parametrize(("kind", "outputs"), [("classification", 2), ("tagging", 3), ("span", 2)])
def test_fine_tuning_moves_the_encoder_and_not_the_heads_of_pre_training(kind: str, outputs: int) -> None:
    from lineal.train.finetune.inputs import sequences

    model = FineTuned(body(), kind, outputs, 0.0)
    texts = [[1, 2], [3, 4, 5]]
    rows = [sequences(kind, texts if kind != "classification" else texts[:1], MARKS, 12)]
    score_MC, _ = model(lay_out(rows))
    score_MC[score_MC.isfinite()].square().sum().backward()
    for name, parameter in model.named_parameters():
        head = any(part in name for part in ("transform", "word_bias", "next_head"))
        assert parameter.requires_grad != head
        unused = ".pooler." in name and kind != "classification"
        if parameter.requires_grad and "qkv.bias" not in name:
            assert (parameter.grad is None) == unused, name


def bodies() -> list[Body]:
    return [
        body(3),
        DecoderBody(Decoder(gpt1_config(20, 16, 3, 2, 64, 12)).initialise(0).eval()),
        DecoderBody(Decoder(llama_config(20, 16, 3, 2, 32, 12)).initialise(0).eval()),
    ]


@torch.no_grad()
@pytest.mark.parametrize("which", range(3))
def test_states_by_layer_end_in_the_last_one(which: int) -> None:
    found = bodies()[which]
    inputs = lay_out([[MARKS.enclose([1, 2, 3])], [MARKS.enclose([4])]])
    states = found.layer_states(inputs)
    assert len(states) == found.layer_count + 1 == 4
    torch.testing.assert_close(states[-1], found(inputs))
    for one, next_one in pairwise(states):
        assert not torch.allclose(one, next_one)


@pytest.mark.parametrize("which", range(3))
def test_stages_name_every_moving_parameter_once_from_the_lowest(which: int) -> None:
    found = bodies()[which]
    names = [name for stage in found.stages() for name in stage]
    moving = [name for name, parameter in found.named_parameters() if parameter.requires_grad]
    assert sorted(names) == sorted(moving) and len(set(names)) == len(names)
    assert len(found.stages()) == 4 and any("embedding" in name for name in found.stages()[0])


@pytest.mark.parametrize("which", range(2))
def test_dropout_can_be_set(which: int) -> None:
    found = bodies()[which]
    found.set_dropout(0.5)
    found.train()
    found.masks = Masks(1)
    inputs = lay_out([[MARKS.enclose([1, 2, 3])]])
    one, other = found(inputs), found(inputs)
    assert not torch.allclose(one, other)
    found.set_dropout(0.0)
    torch.testing.assert_close(found(inputs), found.eval()(inputs))


@pytest.mark.parametrize("which", range(3))
def test_a_vector_is_the_pooled_state_of_its_own_text(which: int) -> None:
    found, tokenizer = bodies()[which], CharTokenizer.train("abcd")
    marks = MARKS if which == 0 else None
    texts = ["ab", "cadbdc", "d"]
    embed = Embedder(found, tokenizer, marks, "mean", (0, -1))
    vectors = embed(texts)
    for text, vector in zip(texts, vectors, strict=True):
        torch.testing.assert_close(embed([text])[0], vector, rtol=1e-4, atol=1e-5)
        ids = tokenizer.encode(text) if marks is None else marks.enclose(tokenizer.encode(text)).ids
        token_NT = torch.tensor([ids])
        mask_NT = torch.ones_like(token_NT, dtype=torch.bool)
        with torch.no_grad():
            states = found.layer_states(Inputs(token_NT, mask_NT, torch.zeros_like(token_NT), ~mask_NT))
        torch.testing.assert_close(
            vector, torch.cat((states[0].mean(1)[0], states[-1].mean(1)[0])), rtol=1e-4, atol=1e-5
        )
    first = Embedder(found, tokenizer, marks, "cls")(["ab"])
    assert first.shape == (1, 16)
    near = embed.nearest("ab", ["d", "ab"], 9)
    assert near[0] == ("ab", pytest.approx(1, abs=1e-5)) and len(near) == 2


def test_a_long_text_is_the_mean_of_its_parts() -> None:
    found, tokenizer = bodies()[1], CharTokenizer.train("abcd")
    embed = Embedder(found, tokenizer, None)
    text = "abcdabcdabcd" + "dba"
    parts = embed([text[:12], text[12:]])
    torch.testing.assert_close(embed([text])[0], (12 * parts[0] + 3 * parts[1]) / 15, rtol=1e-4, atol=1e-5)
    assert embed([]).shape == (0, 16)
    with pytest.raises(UsageError, match="--layers -5: the model has 3"):
        Embedder(found, tokenizer, None, layers=(-5,))
