"""The encoder and transformers' BertForPreTraining are the same function, through the files of either."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from lineal.errors import ModelError
from lineal.models.bert import Bert, BertConfig
from lineal.models.hf.bert import load_bert, save_bert

transformers = pytest.importorskip("transformers", reason="parity needs the [hf] extra")

SHAPE = {
    "vocab_size": 41, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4,
    "max_position_embeddings": 24, "type_vocab_size": 2,
}  # fmt: skip


def shake(model: torch.nn.Module, seed: int = 0) -> Any:
    """Weights far enough from their start for mistakes to show."""
    made = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.2 * torch.randn(parameter.shape, generator=made)
    return model.eval()


def theirs(folder: Path, kind: str = "BertForPreTraining", **options: Any) -> Any:
    """A random model of theirs, saved in a folder."""
    torch.manual_seed(0)
    model = shake(getattr(transformers, kind)(transformers.BertConfig(**{**SHAPE, **options})))
    model.save_pretrained(folder)
    return model


def ours(**options: Any) -> Bert:
    """A random model of ours in the same shape."""
    return shake(
        Bert(BertConfig(41, width=32, inner=48, heads=4, layers=3, context=24, **options)).initialise(3)
    )


def batch() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Tokens, segments and mask of three rows, two of them padded."""
    made = torch.Generator().manual_seed(1)
    token_BT = torch.randint(1, 41, (3, 9), generator=made)
    mask_BT = torch.arange(9) < torch.tensor([9, 4, 7])[:, None]
    segment_BT = (torch.arange(9) >= torch.tensor([5, 2, 3])[:, None]).long() * mask_BT
    return token_BT * mask_BT, segment_BT, mask_BT


@torch.no_grad()
def same(mine: Bert, other: Any) -> None:
    """Word scores wherever there is a token, and what follows, agree to 1e-5."""
    token_BT, segment_BT, mask_BT = batch()
    expected = other(input_ids=token_BT, token_type_ids=segment_BT, attention_mask=mask_BT.long())
    hidden_BTD = mine(token_BT, segment_BT, mask_BT)
    torch.testing.assert_close(
        mine.words(hidden_BTD)[mask_BT], expected.prediction_logits[mask_BT], atol=1e-5, rtol=1e-5
    )
    torch.testing.assert_close(
        mine.follows(mine.pooled(hidden_BTD)), expected.seq_relationship_logits, atol=1e-5, rtol=1e-5
    )


@pytest.mark.parametrize("options", [{}, {"hidden_act": "relu", "type_vocab_size": 3}])
def test_their_folder_is_read(options: dict, tmp_path: Path) -> None:
    other = theirs(tmp_path, **options)
    same(load_bert(tmp_path), other)


@pytest.mark.parametrize("options", [{}, {"activation": "relu", "segments": 3}])
def test_our_folder_is_read(options: dict, tmp_path: Path) -> None:
    mine = ours(**options)
    save_bert(mine, tmp_path)
    other, found = transformers.BertForPreTraining.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(found[name] for name in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    same(mine, other.eval())
    again = load_bert(tmp_path)
    for (name, a), (_, b) in zip(mine.named_parameters(), again.named_parameters(), strict=True):
        assert torch.equal(a, b), name


def test_old_names_are_read(tmp_path: Path) -> None:
    other = theirs(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    old = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace(
            "LayerNorm.bias", "LayerNorm.beta"
        ): tensor
        for name, tensor in tensors.items()
    }
    assert any("gamma" in name for name in old)
    # Older files also hold copies of what is tied, and a count of positions.
    old["cls.predictions.decoder.weight"] = tensors["bert.embeddings.word_embeddings.weight"].clone()
    old["bert.embeddings.position_ids"] = torch.arange(24)[None]
    save_file(old, tmp_path / "model.safetensors", metadata={"format": "pt"})
    same(load_bert(tmp_path), other)


@torch.no_grad()
@pytest.mark.parametrize("kind", ["BertModel", "BertForMaskedLM"])
def test_a_model_with_fewer_heads_is_read(kind: str, tmp_path: Path) -> None:
    other, mine = theirs(tmp_path, kind), load_bert(tmp_path)
    token_BT, segment_BT, mask_BT = batch()
    given = {"input_ids": token_BT, "token_type_ids": segment_BT, "attention_mask": mask_BT.long()}
    if kind == "BertModel":
        expected, pooled_BD = other(**given).to_tuple()[:2]
        found = mine(token_BT, segment_BT, mask_BT)
        torch.testing.assert_close(mine.pooled(found), pooled_BD, atol=1e-5, rtol=1e-5)
    else:
        expected, found = other(**given).logits, mine.words(mine(token_BT, segment_BT, mask_BT))
    torch.testing.assert_close(found[mask_BT], expected[mask_BT], atol=1e-5, rtol=1e-5)


def test_what_is_no_bert_or_a_damaged_one_is_named(tmp_path: Path) -> None:
    theirs(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    lost = {name: t for name, t in tensors.items() if name != "bert.encoder.layer.1.output.dense.bias"}
    save_file(lost, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"lacks the tensor bert\.encoder\.layer\.1\.output\.dense\.bias"):
        load_bert(tmp_path)
    save_file(
        {**tensors, "bert.more": torch.zeros(1)}, tmp_path / "model.safetensors", metadata={"format": "pt"}
    )
    with pytest.raises(ModelError, match=r"holds bert\.more \(and 0 more\) that BERT has no place for"):
        load_bert(tmp_path)
    save_file({**tensors, "bert.pooler.dense.bias": torch.zeros(7)}, tmp_path / "model.safetensors",
              metadata={"format": "pt"})  # fmt: skip
    with pytest.raises(
        ModelError, match=r"bert\.pooler\.dense\.bias has shape \[7\]; config\.json implies \[32\]"
    ):
        load_bert(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(ModelError, match="a llama is no BERT"):
        load_bert(tmp_path)
