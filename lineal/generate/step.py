"""Which way one token per row takes through a decoder."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from lineal.generate.flat import FlatPass
from lineal.generate.recurrent import Recurrent
from lineal.models.attention import Attention
from lineal.models.cache import KeyValueCache, Step
from lineal.models.decoder import Block, Decoder
from lineal.models.experts import Experts
from lineal.models.gating import Gate, Routes
from lineal.models.layers import GeluMLP, LayerNorm, RMSNorm, SwiGLU
from lineal.models.moe import Mixture

Pass = Callable[..., Tensor]
"""token_N, the cache, a step planned for one token of its first N slots, and what mixtures of experts are told and tell
-> hidden states [N, D]."""


FLAT_PARAMETERS = 1 << 26
"""Decoders above this size spend their time in arithmetic, and a second copy of weights would be felt."""


def one_token_pass(model: Decoder | Recurrent, half: bool = False) -> Pass:
    """The quickest pass for this model where and as it now is: the flat one if it applies, else the model's own.

    half: multiply in bfloat16, where the flat one can.
    """
    if isinstance(model, Recurrent):
        return model.read_next
    decoder = model
    small = sum(parameter.numel() for parameter in decoder.parameters()) <= FLAT_PARAMETERS
    plain = (
        decoder.device.type == "cpu"
        and decoder.dtype in (torch.float32, torch.float64)
        and _is_plain(decoder)
    )
    if small and plain and not torch.is_autocast_enabled("cpu"):
        return FlatPass(decoder, half)

    def own_pass(token_N: Tensor, cache: KeyValueCache, step: Step, routes: Routes | None = None) -> Tensor:
        return decoder.forward_step(token_N[:, None], cache, step, routes)[:, 0]

    return own_pass


def _is_plain(decoder: Decoder) -> bool:
    # Adapters, shards and hooks change what a module computes: only modules exactly as written here are flattened.
    known = (
        Decoder,
        Block,
        Attention,
        SwiGLU,
        GeluMLP,
        Mixture,
        Gate,
        Experts,
        RMSNorm,
        LayerNorm,
        nn.Linear,
        nn.Embedding,
        nn.ModuleList,
    )
    for module in decoder.modules():
        hooked = module._forward_hooks or module._forward_pre_hooks
        if hooked or not (type(module) in known or module is decoder.rotary):
            return False
    return all(type(parameter) is nn.Parameter for parameter in decoder.parameters())
