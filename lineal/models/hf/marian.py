"""The encoder-decoder as a Marian model folder, read and written: transformers' MarianMTModel computes the same.

Marian stores what the 2017 paper describes with four differences, all of which are exact to translate:

- Its sinusoids are [all sines | all cosines], ours and the paper's are interleaved: the same numbers in another order of
  the width. So every tensor's axis of that width is put in order; nothing else in the model looks at an order.
- Q, K and V are three matrices; ours are one.
- Attention projections have biases. The paper's have none: they are written as zeros, and zeros are read as none.
- The output layer has a bias `final_logits_bias`: the same.

What a folder cannot say: label smoothing and the schedule, which are in the run's config.json. Separate vocabularies, and
sublayers normalised before instead of after, are refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lineal.errors import ModelError
from lineal.models.hf.files import CONFIG, making, read_shape, read_tensors, write_json, write_tensors
from lineal.models.transformer import ACTIVATIONS, Transformer, TransformerConfig

ARCHITECTURE = "MarianMTModel"
BIAS = "final_logits_bias"


@dataclass(frozen=True)
class _Row:
    """A tensor of ours, those of the file that it stacks, and which of its axes is the width of the model."""

    ours: str
    theirs: tuple[str, ...]
    axis: int | None


def _linear(ours: str, theirs: tuple[str, ...], reads: bool) -> Iterator[_Row]:
    """A projection that reads the residual stream (its second axis), or one that writes it (its first, and its bias)."""
    yield _Row(f"{ours}.weight", tuple(f"{name}.weight" for name in theirs), 1 if reads else 0)
    yield _Row(f"{ours}.bias", tuple(f"{name}.bias" for name in theirs), None if reads else 0)


def _norm(ours: str, theirs: str) -> Iterator[_Row]:
    yield _Row(f"{ours}.weight", (f"{theirs}.weight",), 0)
    yield _Row(f"{ours}.bias", (f"{theirs}.bias",), 0)


def _attention(ours: str, theirs: str) -> Iterator[_Row]:
    parts = "qkv" if ours.endswith("attention") else "kv"
    yield from _linear(f"{ours}.{parts}", tuple(f"{theirs}.{part}_proj" for part in parts), True)
    if parts == "kv":
        yield from _linear(f"{ours}.query", (f"{theirs}.q_proj",), True)
    yield from _linear(f"{ours}.out", (f"{theirs}.out_proj",), False)


def _rows(config: TransformerConfig) -> Iterator[_Row]:
    """Every parameter but the output's bias."""
    yield _Row("embedding.weight", ("model.shared.weight",), 1)
    for side, count in (("encoder", config.encoder_layers), ("decoder", config.decoder_layers)):
        for i in range(count):
            ours, theirs = f"{side}.{i}", f"model.{side}.layers.{i}"
            yield from _attention(f"{ours}.attention", f"{theirs}.self_attn")
            yield from _norm(f"{ours}.attention_norm", f"{theirs}.self_attn_layer_norm")
            if side == "decoder":
                yield from _attention(f"{ours}.cross", f"{theirs}.encoder_attn")
                yield from _norm(f"{ours}.cross_norm", f"{theirs}.encoder_attn_layer_norm")
            yield from _linear(f"{ours}.mlp.up", (f"{theirs}.fc1",), True)
            yield from _linear(f"{ours}.mlp.down", (f"{theirs}.fc2",), False)
            yield from _norm(f"{ours}.mlp_norm", f"{theirs}.final_layer_norm")


def _halves(width: int) -> Tensor:
    """Marian's order of the width, in our numbering: sines, then cosines."""
    return torch.cat((torch.arange(0, width, 2), torch.arange(1, width, 2)))


def to_marian(model: Transformer) -> dict[str, Tensor]:
    """The file's tensors."""
    config, theirs = model.config, {}
    tensors = {name: tensor.detach() for name, tensor in model.named_parameters()}
    order = _halves(config.width).to(model.device)
    for row in _rows(config):
        whole = tensors.get(row.ours)
        if whole is None:
            whole = tensors["embedding.weight"].new_zeros(config.width * len(row.theirs))
        elif row.axis is not None:
            whole = whole.index_select(row.axis, order)
        theirs.update(zip(row.theirs, whole.chunk(len(row.theirs)), strict=True))
    bias = tensors.get("logit_bias")
    empty = tensors["embedding.weight"].new_zeros(config.vocab_size)
    return {**theirs, BIAS: (empty if bias is None else bias)[None]}


def from_marian(config: TransformerConfig, tensors: Mapping[str, Tensor], where: str) -> Transformer:
    """The model of a file's tensors, in eval mode; biases that are all zero are left out, as in the paper.

    Raises ModelError for a tensor that is missing, of another shape, or that the model has no place for.
    """
    found = dict(tensors)
    order = torch.argsort(_halves(config.width))
    ours: dict[str, Tensor] = {}
    for row in _rows(config):
        missing = [name for name in row.theirs if name not in found]
        if missing:
            raise ModelError(f"{where} lacks the tensor {missing[0]} that its config.json implies.")
        whole = torch.cat([found.pop(name) for name in row.theirs])
        ours[row.ours] = whole if row.axis is None else _ordered(whole, row, order, where)
    bias = found.pop(BIAS, None)
    for name in ("model.encoder.embed_tokens.weight", "model.decoder.embed_tokens.weight", "lm_head.weight"):
        found.pop(name, None)
    left = [name for name in found if not name.endswith("embed_positions.weight")]
    if left:
        raise ModelError(
            f"{where} holds {left[0]} (and {len(left) - 1} more) that a Marian model has no place for."
        )
    biased = any(ours[name].any() for name in ours if _attention_bias(name))
    config = replace(config, attention_bias=bool(biased), logit_bias=bias is not None and bool(bias.any()))
    with making(Path(where) / CONFIG):
        model = Transformer(config).eval()
    if model.logit_bias is not None and bias is not None:
        ours["logit_bias"] = bias[0]
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ours[name].shape != parameter.shape:
                raise ModelError(
                    f"{where}: {name} has shape {list(ours[name].shape)}; config.json implies {list(parameter.shape)}."
                )
            parameter.copy_(ours[name])
    return model


def _ordered(whole: Tensor, row: _Row, order: Tensor, where: str) -> Tensor:
    assert row.axis is not None
    if whole.ndim <= row.axis or whole.shape[row.axis] != len(order):
        raise ModelError(
            f"{where}: {' + '.join(row.theirs)} has shape {list(whole.shape)}; config.json implies a width of {len(order)}."
        )
    return whole.index_select(row.axis, order)


def _attention_bias(name: str) -> bool:
    return name.endswith(".bias") and (".attention." in name or ".cross." in name)


def read_config(content: Mapping[str, Any]) -> TransformerConfig:
    """The shape that a Marian config.json describes; ModelError for what we do not have."""
    for name, wanted in (
        ("share_encoder_decoder_embeddings", True),
        ("tie_word_embeddings", True),
        ("normalize_before", False),
    ):
        if content.get(name, wanted) != wanted:
            raise ModelError(f"it sets {name} to {content[name]}; only {wanted} is supported.")
    activation = {"swish": "silu"}.get(
        content.get("activation_function", "gelu"), content.get("activation_function", "gelu")
    )
    if activation not in ACTIVATIONS:
        raise ModelError(
            f"activation_function is {activation!r}; supported are {', '.join(ACTIVATIONS)} and swish."
        )
    for name in ("attention_heads", "ffn_dim"):
        if content[f"encoder_{name}"] != content[f"decoder_{name}"]:
            raise ModelError(f"encoder and decoder differ in {name}; they must be alike.")
    return TransformerConfig(
        vocab_size=content["vocab_size"],
        width=content["d_model"],
        inner=content["encoder_ffn_dim"],
        heads=content["encoder_attention_heads"],
        encoder_layers=content["encoder_layers"],
        decoder_layers=content["decoder_layers"],
        dropout=content.get("dropout", 0.1),
        attention_dropout=content.get("attention_dropout", 0.0),
        context=content.get("max_position_embeddings", 1024),
        scale_embedding=content.get("scale_embedding", False),
        activation=activation,
        pad=content["pad_token_id"],
        start=content["decoder_start_token_id"],
    )


def write_config(config: TransformerConfig, end: int) -> dict[str, Any]:
    """config.json as MarianConfig reads it."""
    sides = {
        f"{side}_{name}": value
        for side in ("encoder", "decoder")
        for name, value in (("attention_heads", config.heads), ("ffn_dim", config.inner), ("layerdrop", 0.0))
    }
    return {
        **sides,
        "model_type": "marian",
        "architectures": [ARCHITECTURE],
        "is_encoder_decoder": True,
        "vocab_size": config.vocab_size,
        "decoder_vocab_size": config.vocab_size,
        "d_model": config.width,
        "encoder_layers": config.encoder_layers,
        "decoder_layers": config.decoder_layers,
        "dropout": config.dropout,
        "attention_dropout": config.attention_dropout,
        "activation_dropout": 0.0,
        "activation_function": config.activation,
        "max_position_embeddings": config.context,
        "scale_embedding": config.scale_embedding,
        "share_encoder_decoder_embeddings": True,
        "tie_word_embeddings": True,
        "pad_token_id": config.pad,
        "eos_token_id": end,
        "bos_token_id": config.start,
        "decoder_start_token_id": config.start,
        # MarianConfig's own default would end every text with token 0.
        "forced_eos_token_id": None,
        "dtype": "float32",
        "torch_dtype": "float32",
    }


def save_marian(
    model: Transformer, folder: Path, end: int, beams: int = 4, length_penalty: float = 0.6
) -> None:
    """Write config.json, model.safetensors and generation_config.json; each file whole or not at all."""
    config = model.config
    folder.mkdir(parents=True, exist_ok=True)
    write_tensors(folder, {name: tensor.float() for name, tensor in to_marian(model).items()})
    write_json(folder / CONFIG, write_config(config, end))
    # What the decoder must not write: transformers otherwise would.
    never = sorted({config.pad, config.start} - {end})
    generation = {
        "decoder_start_token_id": config.start,
        "eos_token_id": end,
        "pad_token_id": config.pad,
        "bos_token_id": config.start,
        "num_beams": beams,
        "length_penalty": length_penalty,
        "early_stopping": "never",
        "max_length": min(512, config.context),
        **({"bad_words_ids": [[token] for token in never]} if never else {}),
    }
    write_json(folder / "generation_config.json", generation)


def load_marian(folder: str | Path, device: torch.device | str = "cpu") -> Transformer:
    """The encoder-decoder of a model folder, in float32 and eval mode; ModelError says what cannot be read."""
    content = read_shape(folder, "marian", "translation model; a Marian folder is one")
    with making(Path(folder) / CONFIG):
        config = read_config(content)
    return from_marian(config, read_tensors(folder), str(folder)).float().to(device)
