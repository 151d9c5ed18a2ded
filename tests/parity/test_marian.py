"""The encoder-decoder and transformers' MarianMTModel are the same function, through the files of either."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from lineal.errors import ModelError
from lineal.generate.beam import BeamSearch
from lineal.generate.translate import Ids, padded, padding_mask, translate
from lineal.models.hf.marian import load_marian, save_marian
from lineal.models.transformer import Transformer, TransformerConfig

transformers = pytest.importorskip("transformers", reason="parity needs the [hf] extra")

SHAPE = {
    "vocab_size": 41, "d_model": 32, "encoder_layers": 3, "decoder_layers": 2, "encoder_attention_heads": 4,
    "decoder_attention_heads": 4, "encoder_ffn_dim": 48, "decoder_ffn_dim": 48, "max_position_embeddings": 64,
    "pad_token_id": 1, "eos_token_id": 2, "bos_token_id": 0, "decoder_start_token_id": 0, "forced_eos_token_id": None,
    "scale_embedding": True, "activation_function": "relu",
}  # fmt: skip
IDS = Ids(start=0, end=2, pad=1)
SOURCES = [[5, 9, 13, 7, 2], [3, 2], [40, 39, 38, 37, 36, 35, 34, 2]]
SEARCHES = [(1, 1.0), (3, 1.0), (5, 0.6)]


def shake(model: torch.nn.Module, seed: int = 0) -> torch.nn.Module:
    """Weights far enough from their start for mistakes to show, and a likely end token."""
    made = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            # Sinusoids are frozen parameters there: no file holds them.
            parameter += parameter.requires_grad * 0.2 * torch.randn(parameter.shape, generator=made)
    return model.eval()


def theirs(folder: Path, **options: Any) -> Any:
    """A random MarianMTModel, saved in a folder."""
    torch.manual_seed(0)
    model = transformers.MarianMTModel(transformers.MarianConfig(**{**SHAPE, **options}))
    shake(model)
    model.final_logits_bias.copy_(0.3 * torch.randn(model.final_logits_bias.shape))
    model.save_pretrained(folder)
    return model


def ours(**options: Any) -> Transformer:
    """A random model of ours in the same shape, as the paper has it: no attention or logit biases."""
    shape = {"vocab_size": 41, "width": 32, "inner": 48, "heads": 4, "encoder_layers": 3, "decoder_layers": 2}
    config = TransformerConfig(**{**shape, "context": 64, "pad": 1, "start": 0, **options})  # type: ignore[arg-type]
    model = shake(Transformer(config).initialise(3))
    assert isinstance(model, Transformer)
    return model


@torch.no_grad()
def same_logits(mine: Transformer, other: Any) -> None:
    """Logits of a padded batch agree to 1e-5 wherever there is a token."""
    source_BS = padded(SOURCES, IDS.pad)
    made = torch.Generator().manual_seed(1)
    given_BT = torch.randint(3, 41, (3, 6), generator=made)
    expected = other(
        input_ids=source_BS, attention_mask=(source_BS != IDS.pad).long(), decoder_input_ids=given_BT
    )
    logits_BTV = mine.logits(mine(source_BS, given_BT, padding_mask(SOURCES)))
    torch.testing.assert_close(logits_BTV, expected.logits, atol=1e-5, rtol=1e-5)


def same_tokens(mine: Transformer, other: Any, beams: int, alpha: float) -> None:
    """Greedy and beam translations are token for token the same, end token included."""
    found = translate(mine, SOURCES, BeamSearch(beams, max_new_tokens=20, length_penalty=alpha), IDS)
    for source, hypotheses in zip(SOURCES, found, strict=True):
        limit = min(len(source) + 50, 20)
        made = other.generate(
            torch.tensor([source]), num_beams=beams, do_sample=False, max_new_tokens=limit, length_penalty=alpha,
            early_stopping="never", bad_words_ids=[[IDS.pad], [IDS.start]], pad_token_id=IDS.pad,
        )  # fmt: skip
        assert list(hypotheses[0].completion.ids) == made[0, 1:].tolist()


@pytest.mark.parametrize("beams, alpha", SEARCHES)
@pytest.mark.parametrize("options", [{}, {"scale_embedding": False, "activation_function": "swish"}])
def test_their_model_is_read(options: dict[str, Any], beams: int, alpha: float, tmp_path: Path) -> None:
    other = theirs(tmp_path, **options)
    mine = load_marian(tmp_path)
    assert mine.config.attention_bias and mine.config.logit_bias
    same_logits(mine, other)
    same_tokens(mine, other, beams, alpha)


@pytest.mark.parametrize("beams, alpha", SEARCHES)
@pytest.mark.parametrize("biased", [False, True])
def test_our_model_is_read_by_them(biased: bool, beams: int, alpha: float, tmp_path: Path) -> None:
    mine = ours(attention_bias=biased, logit_bias=biased)
    save_marian(mine, tmp_path, IDS.end)
    other, told = transformers.MarianMTModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not told["missing_keys"] and not told["unexpected_keys"] and not told["mismatched_keys"]
    same_logits(mine, other.eval())
    same_tokens(mine, other, beams, alpha)


def test_generation_config_makes_them_translate_as_we_do(tmp_path: Path) -> None:
    mine = ours()
    save_marian(mine, tmp_path, IDS.end, beams=3, length_penalty=0.7)
    other = transformers.MarianMTModel.from_pretrained(tmp_path).eval()
    found = translate(mine, SOURCES[:1], BeamSearch(3, max_new_tokens=30, length_penalty=0.7), IDS)
    made = other.generate(torch.tensor(SOURCES[:1]), max_new_tokens=30)
    assert list(found[0][0].completion.ids) == made[0, 1:].tolist()


@pytest.mark.parametrize("biased", [False, True])
def test_a_round_trip_changes_nothing(biased: bool, tmp_path: Path) -> None:
    mine = ours(attention_bias=biased, logit_bias=biased)
    save_marian(mine, tmp_path, IDS.end)
    again = load_marian(tmp_path)
    assert again.config == mine.config
    for (name, one), other in zip(mine.named_parameters(), again.parameters(), strict=True):
        assert torch.equal(one, other), name


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"share_encoder_decoder_embeddings": False}, "share_encoder_decoder_embeddings"),
        ({"decoder_ffn_dim": 64}, "ffn_dim"),
        ({"activation_function": "tanh"}, "activation_function"),
    ],
)
def test_what_we_lack_is_refused(options: dict[str, Any], said: str, tmp_path: Path) -> None:
    transformers.MarianConfig(**{**SHAPE, **options}).save_pretrained(tmp_path)
    with pytest.raises(ModelError, match=said):
        load_marian(tmp_path)


def test_tensors_that_do_not_fit_are_named(tmp_path: Path) -> None:
    save_marian(ours(), tmp_path, IDS.end)
    config = (tmp_path / "config.json").read_text()
    (tmp_path / "config.json").write_text(config.replace('"encoder_layers": 3', '"encoder_layers": 4'))
    with pytest.raises(ModelError, match=r"lacks the tensor model\.encoder\.layers\.3\.self_attn\.q_proj"):
        load_marian(tmp_path)
    (tmp_path / "config.json").write_text(config.replace('"encoder_layers": 3', '"encoder_layers": 2'))
    with pytest.raises(ModelError, match=r"no place for"):
        load_marian(tmp_path)
    (tmp_path / "config.json").write_text(config.replace('"d_model": 32', '"d_model": 64'))
    with pytest.raises(ModelError, match=r"implies a width of 64"):
        load_marian(tmp_path)
