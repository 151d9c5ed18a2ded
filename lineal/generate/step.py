"""One token per row through a decoder, written out flat: what decoding on a CPU spends its time on.

For a small model the time of a step goes into calls, not arithmetic. Here the modules' weights are read as they are
(no copies, so they are never stale) by one function without module calls: residual sums ride on the matrix
products, and the norm takes four operations. `Decoder.forward_step` remains the definition; a test holds the two
together, and whatever this cannot run goes there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from lineal.models.attention import Attention, attend_one, flat_mask
from lineal.models.cache import KeyValueCache, Step
from lineal.models.decoder import Block, Decoder
from lineal.models.layers import GeluMLP, LayerNorm, RMSNorm, SwiGLU, rotate

Pass = Callable[[Tensor, KeyValueCache, Step], Tensor]
"""token_N, the cache and a step planned for one token of its first N slots -> hidden states [N, D]."""


def one_token_pass(decoder: Decoder) -> Pass:
    """The quickest pass for this decoder where it now is: the flat one if it applies, else the decoder's own."""
    if decoder.device.type == "cpu" and _is_plain(decoder) and not torch.is_autocast_enabled("cpu"):
        return FlatPass(decoder)

    def own_pass(token_N: Tensor, cache: KeyValueCache, step: Step) -> Tensor:
        return decoder.forward_step(token_N[:, None], cache, step)[:, 0]

    return own_pass


def _is_plain(decoder: Decoder) -> bool:
    # Adapters, shards and hooks change what a module computes: only modules exactly as written here are flattened.
    known = (Decoder, Block, Attention, SwiGLU, GeluMLP, RMSNorm, LayerNorm, nn.Linear, nn.Embedding, nn.ModuleList)
    for module in decoder.modules():
        hooked = module._forward_hooks or module._forward_pre_hooks
        if hooked or not (type(module) in known or module is decoder.rotary):
            return False
    return all(type(parameter) is nn.Parameter for parameter in decoder.parameters())


class FlatPass:
    """Hidden states [N, D] of one new token for each of the first N slots of a cache; see `one_token_pass`."""

    def __init__(self, decoder: Decoder):
        self.decoder = decoder
        self._layers = [_Layer.of(block) for block in decoder.blocks]  # type: ignore[arg-type]
        self._last = _norm(decoder.norm)

    @torch.no_grad()
    def __call__(
        self, token_N: Int[Tensor, " N"], cache: KeyValueCache, step: Step
    ) -> Float[Tensor, "N D"]:
        """Read the tokens, store their keys and values in the cache, and give the hidden states."""
        decoder = self.decoder
        x_ND = F.embedding(token_N, decoder.embedding.weight)
        rotation, mask = None, step.mask
        if decoder.rotary is not None:
            if step.position_BT is None:
                rotation = decoder.rotary.between(step.span - 1, step.span)
            else:
                cos_N11D, sin_N11D = decoder.rotary.at(step.position_BT)
                rotation = cos_N11D[:, 0], sin_N11D[:, 0]
        elif decoder.position is not None:
            where = step.position_BT[:, 0] if step.position_BT is not None else slice(step.span - 1, step.span)
            x_ND = x_ND + decoder.position.weight[where]
        if mask is not None:
            mask = flat_mask(mask, decoder.config.kv_heads)
        for index, layer in enumerate(self._layers):
            x_ND = layer(x_ND, index, rotation, mask, cache, step)
        return self._last(x_ND)


@dataclass(frozen=True)
class _Layer:
    attention: Attention
    attention_norm: Callable[[Tensor], Tensor]
    mlp_norm: Callable[[Tensor], Tensor]
    query_norm: Callable[[Tensor], Tensor]
    key_norm: Callable[[Tensor], Tensor]
    qkv: Tensor
    qkv_bias: Tensor | None
    out: Tensor
    out_bias: Tensor | None
    up: Tensor
    up_bias: Tensor | None
    down: Tensor
    down_bias: Tensor | None
    gated: bool
    post: bool

    @staticmethod
    def of(block: Block) -> _Layer:
        attention, mlp = block.attention, block.mlp
        up = mlp.gate_up if isinstance(mlp, SwiGLU) else mlp.up
        weights = []
        for linear in (attention.qkv, attention.out, up, mlp.down):
            weights += [linear.weight.detach().t(), None if linear.bias is None else linear.bias.detach()]
        norms = [_norm(n) for n in (block.attention_norm, block.mlp_norm, attention.query_norm, attention.key_norm)]
        return _Layer(attention, *norms, *weights, gated=isinstance(mlp, SwiGLU), post=block.post)

    def __call__(
        self,
        x_ND: Tensor,
        index: int,
        rotation: tuple[Tensor, Tensor] | None,
        mask: Tensor | None,
        cache: KeyValueCache,
        step: Step,
    ) -> Tensor:
        if self.post:
            x_ND = self.attention_norm(self._attend(x_ND, x_ND, index, rotation, mask, cache, step))
            return self.mlp_norm(self._feed(x_ND, x_ND))
        x_ND = self._attend(x_ND, self.attention_norm(x_ND), index, rotation, mask, cache, step)
        return self._feed(x_ND, self.mlp_norm(x_ND))

    def _attend(
        self,
        x_ND: Tensor,
        h_ND: Tensor,
        index: int,
        rotation: tuple[Tensor, Tensor] | None,
        mask: Tensor | None,
        cache: KeyValueCache,
        step: Step,
    ) -> Tensor:
        a = self.attention
        qkv_NHD = _linear(h_ND, self.qkv, self.qkv_bias).view(len(x_ND), -1, a.head_width)
        if a.query_norm is not None:
            query_NHD, key_NHD = qkv_NHD[:, : a.heads], qkv_NHD[:, a.heads : a.turned]
            query_NHD.copy_(self.query_norm(query_NHD))
            key_NHD.copy_(self.key_norm(key_NHD))
        if rotation is not None:
            turned_NHD = qkv_NHD[:, : a.turned]
            rotate(turned_NHD, *rotation, out=turned_NHD)
        cache.write(index, step, qkv_NHD[:, a.heads :].view(len(x_ND), 1, 2, a.kv_heads, a.head_width))
        key, value = cache.read(index, step)
        mixed_ND = attend_one(qkv_NHD[:, : a.heads], key, value, mask)
        return _add_linear(x_ND, mixed_ND, self.out, self.out_bias)

    def _feed(self, x_ND: Tensor, h_ND: Tensor) -> Tensor:
        inner_NI = _linear(h_ND, self.up, self.up_bias)
        if self.gated:
            width = inner_NI.shape[1] // 2
            inner_NI = F.silu(inner_NI[:, :width]).mul_(inner_NI[:, width:])
        else:
            inner_NI = F.gelu(inner_NI, approximate="tanh")
        return _add_linear(x_ND, inner_NI, self.down, self.down_bias)


def _linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return torch.mm(x, weight) if bias is None else torch.addmm(bias, x, weight)


def _add_linear(residual: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    total = torch.addmm(residual, x, weight)
    return total if bias is None else total.add_(bias)


def _norm(module: nn.Module | None) -> Callable[[Tensor], Tensor]:
    if module is None:
        return lambda x: x
    if isinstance(module, LayerNorm):
        return lambda x: F.layer_norm(x, module.shape, module.weight, module.bias, module.eps)
    assert isinstance(module, RMSNorm)
    weight = module.weight.detach()
    eps, share = torch.full((1, 1), module.eps, dtype=weight.dtype), 1 / module.shape[0]

    def rms(x: Tensor) -> Tensor:
        length = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
        return (x * torch.addcmul(eps, length, length, value=share).rsqrt_()).mul_(weight)

    return rms
