"""BERT as a Hugging Face folder, read and written: transformers' BertForPreTraining computes the same.

Their Q, K and V are three matrices, ours one. The output layer's matrix is the embedding's and stands in no file; old files
call a norm's gain gamma and its bias beta. A folder without the heads of pre-training (BertModel), or with only that of
words (BertForMaskedLM), is read with fresh ones; names without the prefix `bert.` are those of a BertModel.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lineal.errors import ModelError
from lineal.models.bert import HEADS, Bert, BertConfig
from lineal.models.hf.files import (
    CONFIG,
    is_kind,
    making,
    read_shape,
    read_tensors,
    write_json,
    write_tensors,
)

KIND, ARCHITECTURE = "bert", "BertForPreTraining"
LEGACY = {"LayerNorm.gamma": "LayerNorm.weight", "LayerNorm.beta": "LayerNorm.bias"}
TIED = ("cls.predictions.decoder.weight", "cls.predictions.decoder.bias", "bert.embeddings.position_ids")
"""In some files: copies of what stands elsewhere, and a count of positions."""


def _rows(config: BertConfig) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Each parameter of ours with those of the file that it stacks."""
    top = "bert.embeddings"
    yield "embedding.weight", (f"{top}.word_embeddings.weight",)
    yield "position.weight", (f"{top}.position_embeddings.weight",)
    yield "segment.weight", (f"{top}.token_type_embeddings.weight",)
    modules = {"norm": (f"{top}.LayerNorm",), "pooler": ("bert.pooler.dense",)}
    for i in range(config.layers):
        ours, theirs = f"layers.{i}", f"bert.encoder.layer.{i}"
        modules |= {
            f"{ours}.attention.qkv": tuple(
                f"{theirs}.attention.self.{part}" for part in ("query", "key", "value")
            ),
            f"{ours}.attention.out": (f"{theirs}.attention.output.dense",),
            f"{ours}.attention_norm": (f"{theirs}.attention.output.LayerNorm",),
            f"{ours}.mlp.up": (f"{theirs}.intermediate.dense",),
            f"{ours}.mlp.down": (f"{theirs}.output.dense",),
            f"{ours}.mlp_norm": (f"{theirs}.output.LayerNorm",),
        }
    modules |= {
        "transform": ("cls.predictions.transform.dense",),
        "transform_norm": ("cls.predictions.transform.LayerNorm",),
        "next_head": ("cls.seq_relationship",),
    }
    for ours, theirs in modules.items():
        for end in ("weight", "bias"):
            yield f"{ours}.{end}", tuple(f"{name}.{end}" for name in theirs)
    yield "word_bias", ("cls.predictions.bias",)


def to_bert(model: Bert) -> dict[str, Tensor]:
    """The file's tensors."""
    ours = {name: tensor.detach() for name, tensor in model.named_parameters()}
    found: dict[str, Tensor] = {}
    for name, theirs in _rows(model.config):
        found.update(zip(theirs, ours[name].chunk(len(theirs)), strict=True))
    return found


def from_bert(config: BertConfig, tensors: Mapping[str, Tensor], where: str) -> Bert:
    """The model of a file's tensors, in eval mode; heads of pre-training that the file lacks are drawn by seed 0.

    Raises ModelError for a tensor that is missing, of another shape, or that the model has no place for.
    """
    found = _named(tensors)
    with making(Path(where) / CONFIG):
        model = Bert(config).initialise(0).eval()
    present = dict(model.named_parameters())
    for ours, theirs in _rows(config):
        missing = [name for name in theirs if name not in found]
        if missing and (ours.split(".")[0] in HEADS or ours.startswith("pooler")):
            continue
        if missing:
            raise ModelError(f"{where} lacks the tensor {missing[0]} that its config.json implies.")
        for name, part in zip(theirs, present[ours].detach().chunk(len(theirs)), strict=True):
            tensor = found.pop(name)
            if tensor.shape != part.shape:
                raise ModelError(
                    f"{where}: {name} has shape {list(tensor.shape)}; config.json implies {list(part.shape)}."
                )
            part.copy_(tensor)
    left = [name for name in found if name not in TIED]
    if left:
        raise ModelError(f"{where} holds {left[0]} (and {len(left) - 1} more) that BERT has no place for.")
    return model


def _named(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors under today's names."""
    found = {}
    for name, tensor in tensors.items():
        for old, new in LEGACY.items():
            name = name.replace(old, new)
        if name.split(".")[0] in ("embeddings", "encoder", "pooler"):
            name = f"bert.{name}"
        found[name] = tensor
    return found


def read_config(content: Mapping[str, Any]) -> BertConfig:
    """The shape that a BERT config.json describes; ModelError for what we do not have."""
    for name, wanted in (
        ("position_embedding_type", "absolute"),
        ("is_decoder", False),
        ("add_cross_attention", False),
        ("tie_word_embeddings", True),
    ):
        if content.get(name, wanted) != wanted:
            raise ModelError(f"it sets {name} to {content[name]}; only {wanted} is supported.")
    named = str(content.get("hidden_act", "gelu"))
    activation = {"swish": "silu"}.get(named, named)
    return BertConfig(
        vocab_size=content["vocab_size"],
        width=content["hidden_size"],
        inner=content["intermediate_size"],
        heads=content["num_attention_heads"],
        layers=content["num_hidden_layers"],
        context=content.get("max_position_embeddings", 512),
        segments=content.get("type_vocab_size", 2),
        dropout=content.get("hidden_dropout_prob", 0.1),
        attention_dropout=content.get("attention_probs_dropout_prob", 0.1),
        norm_eps=content.get("layer_norm_eps", 1e-12),
        activation=activation,
        pad=content.get("pad_token_id") or 0,
    )


def write_config(config: BertConfig) -> dict[str, Any]:
    """config.json as BertConfig of transformers reads it."""
    return {
        "model_type": KIND,
        "architectures": [ARCHITECTURE],
        "vocab_size": config.vocab_size,
        "hidden_size": config.width,
        "intermediate_size": config.inner,
        "num_attention_heads": config.heads,
        "num_hidden_layers": config.layers,
        "max_position_embeddings": config.context,
        "type_vocab_size": config.segments,
        "hidden_dropout_prob": config.dropout,
        "attention_probs_dropout_prob": config.attention_dropout,
        "layer_norm_eps": config.norm_eps,
        "hidden_act": config.activation,
        "initializer_range": 0.02,
        "position_embedding_type": "absolute",
        "tie_word_embeddings": True,
        "pad_token_id": config.pad,
        "dtype": "float32",
        "torch_dtype": "float32",
    }


def is_bert(folder: str | Path) -> bool:
    """Whether a model folder holds a BERT."""
    return is_kind(folder, KIND)


def save_bert(model: Bert, folder: str | Path) -> None:
    """Write config.json and model.safetensors; each file whole or not at all."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    write_tensors(folder, {name: tensor.float() for name, tensor in to_bert(model).items()})
    write_json(folder / CONFIG, write_config(model.config))


def load_bert(folder: str | Path, device: torch.device | str = "cpu") -> Bert:
    """The encoder of a model folder, in float32 and eval mode; ModelError says what cannot be read."""
    content = read_shape(folder, KIND, "BERT")
    with making(Path(folder) / CONFIG):
        config = read_config(content)
    return from_bert(config, read_tensors(folder), str(folder)).float().to(device)
