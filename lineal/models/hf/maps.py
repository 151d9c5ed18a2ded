"""Which tensor of a Hugging Face file is which of ours: tables, read in both directions.

A row pairs one of our parameters with the tensors that stand for it in the file, stacked along the first axis.
`{i}` is the layer, `{e}` an expert: ours are stacked along a new first axis. A table lists all that a family may have;
rows whose parameter a model lacks do not apply.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from lineal.errors import ModelError
from lineal.models.decoder import Decoder, DecoderConfig


@dataclass(frozen=True)
class Row:
    """One parameter of ours and the tensors that it is in the file; `transposed` for Conv1D's [in, out] weights."""

    ours: str
    theirs: tuple[str, ...]
    transposed: bool = False

    @property
    def per_expert(self) -> bool:
        """Whether the file has each expert by itself."""
        return "{e}" in self.theirs[0]

    def names(self, expert: int) -> tuple[str, ...]:
        """The file's names, of one expert where it has each by itself."""
        return tuple(name.replace("{e}", str(expert)) for name in self.theirs)


@dataclass(frozen=True)
class Table:
    """All rows of a family; `prefix` may be absent from a file's names; `ignored` matches buffers of no use."""

    prefix: str
    rows: tuple[Row, ...]
    ignored: str


def _conv1d(ours: str, theirs: str) -> tuple[Row, Row]:
    weight = Row(f"blocks.{{i}}.{ours}.weight", (f"transformer.h.{{i}}.{theirs}.weight",), transposed=True)
    return weight, Row(f"blocks.{{i}}.{ours}.bias", (f"transformer.h.{{i}}.{theirs}.bias",))


def _plain(ours: str, *theirs: str) -> tuple[Row, Row]:
    return tuple(Row(f"{ours}.{kind}", tuple(f"{t}.{kind}" for t in theirs)) for kind in ("weight", "bias"))  # type: ignore[return-value]


_GPT_BLOCK = (
    *_plain("blocks.{i}.attention_norm", "transformer.h.{i}.ln_1"),
    *_conv1d("attention.qkv", "attn.c_attn"),
    *_conv1d("attention.out", "attn.c_proj"),
    *_plain("blocks.{i}.mlp_norm", "transformer.h.{i}.ln_2"),
    *_conv1d("mlp.up", "mlp.c_fc"),
    *_conv1d("mlp.down", "mlp.c_proj"),
)
_HEAD = Row("head.weight", ("lm_head.weight",))
_GPT_BUFFERS = r"\.attn\.(bias|masked_bias)$"

GPT2 = Table(
    "transformer.",
    (
        Row("embedding.weight", ("transformer.wte.weight",)),
        Row("position.weight", ("transformer.wpe.weight",)),
        *_GPT_BLOCK,
        *_plain("norm", "transformer.ln_f"),
        _HEAD,
    ),
    _GPT_BUFFERS,
)

GPT1 = Table(
    "transformer.",
    (
        Row("embedding.weight", ("transformer.tokens_embed.weight",)),
        Row("position.weight", ("transformer.positions_embed.weight",)),
        *_GPT_BLOCK,
        _HEAD,
    ),
    _GPT_BUFFERS + r"|position_ids$",
)

_LAYER = "model.layers.{i}."
LLAMA = Table(
    "model.",
    (
        Row("embedding.weight", ("model.embed_tokens.weight",)),
        *_plain("blocks.{i}.attention_norm", _LAYER + "input_layernorm"),
        *_plain(
            "blocks.{i}.attention.qkv",
            *(_LAYER + f"self_attn.{part}_proj" for part in "qkv"),
        ),
        *_plain("blocks.{i}.attention.out", _LAYER + "self_attn.o_proj"),
        *_plain("blocks.{i}.attention.query_norm", _LAYER + "self_attn.q_norm"),
        *_plain("blocks.{i}.attention.key_norm", _LAYER + "self_attn.k_norm"),
        *_plain("blocks.{i}.mlp_norm", _LAYER + "post_attention_layernorm"),
        *_plain("blocks.{i}.mlp.gate_up", _LAYER + "mlp.gate_proj", _LAYER + "mlp.up_proj"),
        *_plain("blocks.{i}.mlp.down", _LAYER + "mlp.down_proj"),
        *_plain("norm", "model.norm"),
        _HEAD,
    ),
    r"rotary_emb\.inv_freq$",
)

_MIX, _EXPERTS = "blocks.{i}.mlp.", "blocks.{i}.mlp.experts."
_SPARSE = _LAYER + "block_sparse_moe."
MIXTRAL = Table(
    LLAMA.prefix,
    (
        *LLAMA.rows,
        Row(_MIX + "gate.weight", (_SPARSE + "gate.weight",)),
        Row(_EXPERTS + "up", (_SPARSE + "experts.{e}.w1.weight", _SPARSE + "experts.{e}.w3.weight")),
        Row(_EXPERTS + "down", (_SPARSE + "experts.{e}.w2.weight",)),
    ),
    LLAMA.ignored,
)
"""Noise belongs to training: a noisy gate is written without it."""

_QWEN = _LAYER + "mlp.experts.{e}."
QWEN3_MOE = Table(
    LLAMA.prefix,
    (
        *LLAMA.rows,
        Row(_MIX + "gate.weight", (_LAYER + "mlp.gate.weight",)),
        Row(_EXPERTS + "up", (_QWEN + "gate_proj.weight", _QWEN + "up_proj.weight")),
        Row(_EXPERTS + "down", (_QWEN + "down_proj.weight",)),
    ),
    LLAMA.ignored,
)

LINEAL_MOE = Table(
    LLAMA.prefix,
    (
        *LLAMA.rows,
        *(
            Row(_MIX + name, (_LAYER + "mlp." + name,))
            for name in ("gate.weight", "gate.noise", "inner_gate.weight", "inner_gate.noise")
        ),
        *(Row(_EXPERTS + name, (_LAYER + "mlp.experts." + name,)) for name in ("up", "down")),
    ),
    LLAMA.ignored,
)
"""Mixtures that no architecture of transformers can hold: noise, two levels, ReLU experts."""


def rows_of(table: Table, config: DecoderConfig) -> Iterator[tuple[Row, tuple[int, ...]]]:
    """The rows that apply to a model of this shape, layers filled in, each with its parameter's shape."""
    with torch.device("meta"):
        shapes = {name: tuple(p.shape) for name, p in Decoder(config).named_parameters()}
    for row in table.rows:
        for i in range(config.layers if "{i}" in row.ours else 1):
            ours = row.ours.replace("{i}", str(i))
            if ours in shapes:
                theirs = tuple(name.replace("{i}", str(i)) for name in row.theirs)
                yield Row(ours, theirs, row.transposed), shapes[ours]


def to_ours(
    table: Table, config: DecoderConfig, tensors: Mapping[str, Tensor], where: str
) -> dict[str, Tensor]:
    """Our parameters from a file's tensors.

    Raises ModelError when one is missing, has the wrong shape, or when the file holds one that the model has no
    place for (it would then compute something else than the file's author meant).
    """
    found = dict(tensors)
    if not any(name.startswith(table.prefix) for name in found):
        found = {name if name.startswith("lm_head.") else table.prefix + name: t for name, t in found.items()}
    ours: dict[str, Tensor] = {}
    for row, shape in rows_of(table, config):
        experts = range(shape[0] if row.per_expert else 1)
        missing = [name for e in experts for name in row.names(e) if name not in found]
        if missing:
            raise ModelError(f"{where} lacks the tensor {missing[0]} that its config.json implies.")
        wholes = [_joined([found.pop(name) for name in row.names(e)]) for e in experts]
        if len({tuple(part.shape) for part in wholes}) > 1:
            raise ModelError(f"{where}: the experts of {row.names(0)[0]} are not all of one shape.")
        whole = torch.stack(wholes) if row.per_expert else wholes[0]
        whole = whole.t() if row.transposed else whole
        if tuple(whole.shape) != shape:
            raise ModelError(
                f"{where}: {' + '.join(row.theirs)} has shape {list(whole.shape)}; config.json implies {list(shape)}."
            )
        ours[row.ours] = whole
    if config.tied:
        found.pop("lm_head.weight", None)
    left = [name for name in found if not re.search(table.ignored, name)]
    if left:
        raise ModelError(
            f"{where} holds {left[0]} (and {len(left) - 1} more) that layout {config.layout} has no place for: "
            "it is another architecture, or an adapter that must be merged first."
        )
    return ours


def _joined(parts: list[Tensor]) -> Tensor:
    return torch.cat(parts) if len(parts) > 1 else parts[0]


def to_theirs(table: Table, config: DecoderConfig, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A file's tensors from our parameters; tied weights appear once."""
    theirs: dict[str, Tensor] = {}
    for row, _ in rows_of(table, config):
        whole = tensors[row.ours].t() if row.transposed else tensors[row.ours]
        for expert, own in enumerate(whole.unbind(0) if row.per_expert else (whole,)):
            if len(row.theirs) == 1:
                parts: tuple[Tensor, ...] = (own,)
            elif len(row.theirs) == 3:
                query, key = config.heads * config.head_width, config.kv_heads * config.head_width
                parts = own.split((query, key, key))
            else:
                parts = own.split(len(own) // len(row.theirs))
            theirs.update(zip(row.names(expert), parts, strict=True))
    return theirs
