"""config.json of each Hugging Face architecture, to and from `DecoderConfig`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from typing import Any

from lineal.errors import ModelError
from lineal.models.decoder import DecoderConfig
from lineal.models.gating import ExpertsConfig
from lineal.models.hf.maps import GPT1, GPT2, LINEAL_MOE, LLAMA, MIXTRAL, QWEN3_MOE, Table
from lineal.models.layers import RopeScaling


@dataclass(frozen=True)
class Layout:
    """One architecture: its names, its tensor table, and its config.json in both directions."""

    architecture: str
    table: Table
    read: Callable[[dict[str, Any]], DecoderConfig]
    write: Callable[[DecoderConfig], dict[str, Any]]


def layout_of(config: dict[str, Any], where: str) -> tuple[str, Layout]:
    """The layout that a config.json asks for; ModelError names the supported ones when it is none of them."""
    kind = config.get("model_type")
    if kind == "marian":
        raise ModelError(f"{where}: this model translates; use it with `lineal translate`.")
    if kind not in LAYOUTS:
        named = kind or config.get("architectures") or "no model_type"
        raise ModelError(
            f"{where}: architecture {named} is not supported; supported are {', '.join(LAYOUTS)}."
        )
    if config.get("quantization_config"):
        raise ModelError(f"{where}: quantised weights are not supported; use the model's unquantised folder.")
    return str(kind), LAYOUTS[str(kind)]


def _need(config: dict[str, Any], name: str, allowed: tuple[Any, ...], default: Any) -> None:
    """Refuse a setting that would change what the model computes in a way that we do not have."""
    if config.get(name, default) not in allowed:
        wanted = " or ".join(repr(value) for value in allowed)
        raise ModelError(f"config.json sets {name} to {config[name]!r}; only {wanted} is supported.")


def _get(config: dict[str, Any], name: str) -> Any:
    if config.get(name) is None:
        raise ModelError(f"config.json does not say {name}.")
    return config[name]


def _read_gpt2(config: dict[str, Any]) -> DecoderConfig:
    _need(config, "activation_function", ("gelu_new", "gelu_pytorch_tanh"), "gelu_new")
    _need(config, "scale_attn_weights", (True,), True)
    _need(config, "scale_attn_by_inverse_layer_idx", (False,), False)
    _need(config, "add_cross_attention", (False,), False)
    return _read_gpt(config, "gpt2", config.get("n_inner") or 4 * _get(config, "n_embd"))


def _read_gpt1(config: dict[str, Any]) -> DecoderConfig:
    # transformers' afn "gelu" is the tanh form here, unlike everywhere else.
    _need(config, "afn", ("gelu",), "gelu")
    return _read_gpt(config, "openai-gpt", 4 * _get(config, "n_embd"))


def _read_gpt(config: dict[str, Any], layout: str, inner: int) -> DecoderConfig:
    width, heads = _get(config, "n_embd"), _get(config, "n_head")
    return DecoderConfig(
        vocab_size=_get(config, "vocab_size"),
        width=width,
        layers=_get(config, "n_layer"),
        heads=heads,
        kv_heads=heads,
        head_width=width // heads,
        inner=inner,
        context=config.get("n_positions") or _get(config, "n_ctx"),
        norm="layer",
        norm_place="post" if layout == "openai-gpt" else "pre",
        norm_eps=config.get("layer_norm_epsilon", 1e-5),
        position="learned",
        activation="gelu_tanh",
        qkv_bias=True,
        out_bias=True,
        mlp_bias=True,
        tied=config.get("tie_word_embeddings", True),
        dropout=config.get("resid_pdrop", 0.1),
        layout=layout,
    )


def _write_gpt(config: DecoderConfig) -> dict[str, Any]:
    return {
        "vocab_size": config.vocab_size,
        "n_embd": config.width,
        "n_layer": config.layers,
        "n_head": config.heads,
        "n_positions": config.context,
        "layer_norm_epsilon": config.norm_eps,
        "tie_word_embeddings": config.tied,
        "resid_pdrop": config.dropout,
        "embd_pdrop": config.dropout,
        "attn_pdrop": config.dropout,
    }


def _write_gpt2(config: DecoderConfig) -> dict[str, Any]:
    return {**_write_gpt(config), "n_inner": config.inner, "activation_function": "gelu_new"}


def _write_gpt1(config: DecoderConfig) -> dict[str, Any]:
    return {**_write_gpt(config), "afn": "gelu"}


def _read_llama(config: dict[str, Any]) -> DecoderConfig:
    bias = config.get("attention_bias", False)
    return _read_rotary(config, "llama", qkv_bias=bias, out_bias=bias, mlp_bias=config.get("mlp_bias", False))


def _read_qwen2(config: dict[str, Any]) -> DecoderConfig:
    _need(config, "use_sliding_window", (False,), False)
    return _read_rotary(config, "qwen2", qkv_bias=True)


def _read_qwen3(config: dict[str, Any]) -> DecoderConfig:
    _need(config, "use_sliding_window", (False,), False)
    bias = config.get("attention_bias", False)
    # Unlike the others, Qwen3 has a head width of its own: 128 unless it says so.
    config = {"head_dim": 128, **config}
    return _read_rotary(config, "qwen3", qkv_bias=bias, out_bias=bias, qk_norm=True)


def _read_mixtral(config: dict[str, Any]) -> DecoderConfig:
    _need(config, "sliding_window", (None,), None)
    config = {
        "num_local_experts": 8,
        "num_experts_per_tok": 2,
        "rms_norm_eps": 1e-5,
        "rope_theta": 1e6,
        **config,
    }
    experts = ExpertsConfig(
        config["num_local_experts"], config["num_experts_per_tok"], _get(config, "intermediate_size")
    )
    return _read_rotary(config, "mixtral", experts=experts)


def _read_qwen3_moe(config: dict[str, Any]) -> DecoderConfig:
    _need(config, "use_sliding_window", (False,), False)
    # Older files say num_experts, newer ones num_local_experts.
    count = config.get("num_experts") or config.get("num_local_experts") or 128
    step, plain = config.get("decoder_sparse_step", 1), config.get("mlp_only_layers") or []
    layers = range(_get(config, "num_hidden_layers"))
    experts = ExpertsConfig(
        count,
        config.get("num_experts_per_tok", 8),
        config.get("moe_intermediate_size", 768),
        renormalise=config.get("norm_topk_prob", False),
        dense=tuple(i for i in layers if i in plain or (i + 1) % step),
    )
    bias = config.get("attention_bias", False)
    return _read_rotary(config, "qwen3_moe", qkv_bias=bias, out_bias=bias, qk_norm=True, experts=experts)


def _read_lineal_moe(config: dict[str, Any]) -> DecoderConfig:
    saved = _get(config, "experts")
    unknown = set(saved) - {field.name for field in fields(ExpertsConfig)}
    if unknown:
        raise ModelError(
            f"config.json describes experts by {sorted(unknown)}, which this version does not have."
        )
    experts = ExpertsConfig(**{**saved, "dense": tuple(saved.get("dense", ()))})
    return _read_rotary(config, "lineal_moe", experts=experts)


def _read_rotary(config: dict[str, Any], layout: str, **flags: Any) -> DecoderConfig:
    _need(config, "hidden_act", ("silu",), "silu")
    width, heads = _get(config, "hidden_size"), _get(config, "num_attention_heads")
    theta, scaling = _read_rope(config)
    return DecoderConfig(
        vocab_size=_get(config, "vocab_size"),
        width=width,
        layers=_get(config, "num_hidden_layers"),
        heads=heads,
        kv_heads=config.get("num_key_value_heads") or heads,
        head_width=config.get("head_dim") or width // heads,
        inner=_get(config, "intermediate_size"),
        context=_get(config, "max_position_embeddings"),
        norm_eps=config.get("rms_norm_eps", 1e-6),
        tied=config.get("tie_word_embeddings", False),
        rope_theta=theta,
        rope_scaling=scaling,
        dropout=config.get("attention_dropout", 0.0),
        layout=layout,
        **flags,
    )


def _read_rope(config: dict[str, Any]) -> tuple[float, RopeScaling | None]:
    """Rotary settings from `rope_parameters` (transformers 5) or `rope_theta` and `rope_scaling` (before)."""
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    theta = float(rope.get("rope_theta") or config.get("rope_theta") or 10_000.0)
    kind = rope.get("rope_type") or rope.get("type") or "default"
    if rope.get("partial_rotary_factor", config.get("partial_rotary_factor", 1.0)) not in (None, 1.0):
        raise ModelError(
            "config.json rotates only a part of each head (partial_rotary_factor): not supported."
        )
    if kind == "default":
        return theta, None
    if kind == "linear":
        return theta, RopeScaling("linear", float(rope["factor"]))
    if kind == "llama3":
        names = ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings")
        factor, low, high, original = (_get(rope, name) for name in names)
        return theta, RopeScaling("llama3", float(factor), float(low), float(high), int(original))
    raise ModelError(f"config.json asks for rope type {kind!r}; supported are default, linear and llama3.")


def _write_rope(config: DecoderConfig) -> dict[str, Any]:
    scaling = config.rope_scaling
    if scaling is None:
        return {"rope_type": "default", "rope_theta": config.rope_theta}
    rope: dict[str, Any] = {
        "rope_type": scaling.kind,
        "rope_theta": config.rope_theta,
        "factor": scaling.factor,
    }
    if scaling.kind == "llama3":
        rope["low_freq_factor"] = scaling.low_freq_factor
        rope["high_freq_factor"] = scaling.high_freq_factor
        rope["original_max_position_embeddings"] = scaling.original_context
    return rope


def _write_rotary(config: DecoderConfig) -> dict[str, Any]:
    rope = _write_rope(config)
    content = {
        "vocab_size": config.vocab_size,
        "hidden_size": config.width,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "num_key_value_heads": config.kv_heads,
        "head_dim": config.head_width,
        "intermediate_size": config.inner,
        "max_position_embeddings": config.context,
        "rms_norm_eps": config.norm_eps,
        "hidden_act": "silu",
        "tie_word_embeddings": config.tied,
        "attention_dropout": config.dropout,
        "rope_parameters": rope,
        # What transformers before 5 reads instead.
        "rope_theta": config.rope_theta,
    }
    if config.rope_scaling is not None:
        content["rope_scaling"] = {name: value for name, value in rope.items() if name != "rope_theta"}
    return content


def _write_llama(config: DecoderConfig) -> dict[str, Any]:
    return {**_write_rotary(config), "attention_bias": config.out_bias, "mlp_bias": config.mlp_bias}


def _write_qwen3(config: DecoderConfig) -> dict[str, Any]:
    return {**_write_rotary(config), "attention_bias": config.out_bias}


def _write_mixtral(config: DecoderConfig) -> dict[str, Any]:
    experts = config.experts
    assert experts is not None
    return {
        **_write_rotary(config),
        "intermediate_size": experts.inner,
        "num_local_experts": experts.count,
        "num_experts_per_tok": experts.active,
        "sliding_window": None,
    }


def _write_qwen3_moe(config: DecoderConfig) -> dict[str, Any]:
    experts = config.experts
    assert experts is not None
    return {
        **_write_rotary(config),
        "attention_bias": config.out_bias,
        "num_experts": experts.count,
        "num_experts_per_tok": experts.active,
        "moe_intermediate_size": experts.inner,
        "norm_topk_prob": experts.renormalise,
        "mlp_only_layers": list(experts.dense),
        "decoder_sparse_step": 1,
    }


def _write_lineal_moe(config: DecoderConfig) -> dict[str, Any]:
    assert config.experts is not None
    return {**_write_rotary(config), "experts": asdict(config.experts)}


LAYOUTS: dict[str, Layout] = {
    "llama": Layout("LlamaForCausalLM", LLAMA, _read_llama, _write_llama),
    "qwen2": Layout("Qwen2ForCausalLM", LLAMA, _read_qwen2, _write_rotary),
    "qwen3": Layout("Qwen3ForCausalLM", LLAMA, _read_qwen3, _write_qwen3),
    "mixtral": Layout("MixtralForCausalLM", MIXTRAL, _read_mixtral, _write_mixtral),
    "qwen3_moe": Layout("Qwen3MoeForCausalLM", QWEN3_MOE, _read_qwen3_moe, _write_qwen3_moe),
    "lineal_moe": Layout("LinealMoeForCausalLM", LINEAL_MOE, _read_lineal_moe, _write_lineal_moe),
    "gpt2": Layout("GPT2LMHeadModel", GPT2, _read_gpt2, _write_gpt2),
    "openai-gpt": Layout("OpenAIGPTLMHeadModel", GPT1, _read_gpt1, _write_gpt1),
}
"""The supported architectures by `model_type`."""
