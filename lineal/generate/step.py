"""One token per row through a decoder, written out flat: what decoding on a CPU spends its time on.

For a small model a step's time goes into calls and into fetching weights, not into arithmetic. So one function
without module calls does it all, residual sums ride on the matrix products, weights are laid out anew once per
`generate` (see `Product`), and the two matrices after a norm have its weights multiplied in. `Decoder.forward_step`
remains the definition; a test holds the two together, and whatever this cannot run goes there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from lineal.models.attention import Attention, flat_mask
from lineal.models.cache import KeyValueCache, Step
from lineal.models.decoder import Block, Decoder
from lineal.models.layers import GeluMLP, LayerNorm, RMSNorm, SwiGLU, rotate
from lineal.models.packed import Product

Pass = Callable[[Tensor, KeyValueCache, Step], Tensor]
"""token_N, the cache and a step planned for one token of its first N slots -> hidden states [N, D]."""


FLAT_PARAMETERS = 1 << 26
"""Decoders above this size spend their time in arithmetic, and a second copy of weights would be felt."""


def one_token_pass(decoder: Decoder) -> Pass:
    """The quickest pass for this decoder where and as it now is: the flat one if it applies, else the decoder's own."""
    small = sum(parameter.numel() for parameter in decoder.parameters()) <= FLAT_PARAMETERS
    if small and decoder.device.type == "cpu" and _is_plain(decoder) and not torch.is_autocast_enabled("cpu"):
        return FlatPass(decoder)

    def own_pass(token_N: Tensor, cache: KeyValueCache, step: Step) -> Tensor:
        return decoder.forward_step(token_N[:, None], cache, step)[:, 0]

    return own_pass


def _is_plain(decoder: Decoder) -> bool:
    # Adapters, shards and hooks change what a module computes: only modules exactly as written here are flattened.
    known = (
        Decoder,
        Block,
        Attention,
        SwiGLU,
        GeluMLP,
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


class FlatPass:
    """Hidden states [N, D] of one new token for each of the first N slots of a cache; see `one_token_pass`.

    Holds copies of weights: it is good until they change.
    """

    def __init__(self, decoder: Decoder):
        self.decoder = decoder
        self._layers = [_Layer.of(block) for block in decoder.blocks]  # type: ignore[arg-type]
        self._last = _norm(decoder.norm)

    @torch.no_grad()
    def __call__(self, token_N: Int[Tensor, " N"], cache: KeyValueCache, step: Step) -> Float[Tensor, "N D"]:
        """Read the tokens, store their keys and values in the cache, and give the hidden states."""
        decoder, where = self.decoder, step.position_BT
        x_ND = F.embedding(token_N, decoder.embedding.weight)
        rotation = None
        if decoder.rotary is not None and where is not None:
            cos_N11D, sin_N11D = decoder.rotary.at(where)
            rotation = cos_N11D[:, 0], sin_N11D[:, 0]
        elif decoder.rotary is not None:
            rotation = decoder.rotary.between(step.span - 1, step.span)
        elif decoder.position is not None:
            x_ND = x_ND + decoder.position.weight[step.span - 1 if where is None else where[:, 0]]
        view = self._view(token_N.shape[0], rotation, cache, step)
        for index, layer in enumerate(self._layers):
            x_ND = layer(x_ND, index, view)
        return self._last(x_ND)

    def _view(
        self, rows: int, rotation: tuple[Tensor, Tensor] | None, cache: KeyValueCache, step: Step
    ) -> _View:
        kv_heads = self.decoder.config.kv_heads
        # Slots and heads merge without a copy; the views of all layers are made at once.
        seen = cache.store[:, :, :rows].flatten(2, 3)[..., : step.span, :]
        mask = seen.new_zeros(1) if step.mask is None else flat_mask(step.mask, kv_heads)
        keys = seen[:, 0].transpose(2, 3).unbind(0)
        return _View(rotation, mask, int(step.mask is not None), keys, seen[:, 1].unbind(0), cache, step)


@dataclass(frozen=True)
class _View:
    rotation: tuple[Tensor, Tensor] | None
    mask: Tensor
    masked: int
    keys: tuple[Tensor, ...]
    values: tuple[Tensor, ...]
    cache: KeyValueCache
    step: Step


@dataclass(frozen=True)
class _Layer:
    heads: int
    kv_heads: int
    head_width: int
    attention_norm: Callable[[Tensor], Tensor]
    mlp_norm: Callable[[Tensor], Tensor]
    query_norm: Callable[[Tensor], Tensor]
    key_norm: Callable[[Tensor], Tensor]
    qkv: Product
    out: Product
    up: Product
    down: Product
    gated: bool
    post: bool
    qk_norm: bool

    @staticmethod
    def of(block: Block) -> _Layer:
        a, mlp, post = block.attention, block.mlp, block.post
        return _Layer(
            heads=a.heads,
            kv_heads=a.kv_heads,
            head_width=a.head_width,
            attention_norm=_norm(block.attention_norm, weighted=post),
            mlp_norm=_norm(block.mlp_norm, weighted=post),
            query_norm=_norm(a.query_norm),
            key_norm=_norm(a.key_norm),
            qkv=_product(a.qkv, None if post else block.attention_norm),
            out=_product(a.out),
            up=_product(mlp.gate_up if isinstance(mlp, SwiGLU) else mlp.up, None if post else block.mlp_norm),
            down=_product(mlp.down),
            gated=isinstance(mlp, SwiGLU),
            post=post,
            qk_norm=a.query_norm is not None,
        )

    def __call__(self, x_ND: Tensor, index: int, view: _View) -> Tensor:
        if self.post:
            x_ND = self.attention_norm(self._attend(x_ND, x_ND, index, view))
            return self.mlp_norm(self._feed(x_ND, x_ND))
        x_ND = self._attend(x_ND, self.attention_norm(x_ND), index, view)
        return self._feed(x_ND, self.mlp_norm(x_ND))

    def _attend(self, x_ND: Tensor, h_ND: Tensor, index: int, view: _View) -> Tensor:
        heads, kv_heads, head_width = self.heads, self.kv_heads, self.head_width
        rows, turned = x_ND.shape[0], heads + kv_heads
        qkv_NHD = self.qkv(h_ND).view(rows, turned + kv_heads, head_width)
        query_NHD, turned_NHD = qkv_NHD[:, :heads], qkv_NHD[:, :turned]
        if self.qk_norm:
            key_NHD = qkv_NHD[:, heads:turned]
            query_NHD.copy_(self.query_norm(query_NHD))
            key_NHD.copy_(self.key_norm(key_NHD))
        if view.rotation is not None:
            # In place, so that keys and values stay side by side and reach the cache in one copy.
            rotate(turned_NHD, *view.rotation, out=turned_NHD)
        view.cache.write(index, view.step, qkv_NHD[:, heads:].view(rows, 1, 2, kv_heads, head_width))
        query = query_NHD.reshape(rows * kv_heads, heads // kv_heads, head_width)
        scale, beta = head_width**-0.5, view.masked
        score = torch.baddbmm(view.mask, query, view.keys[index], beta=beta, alpha=scale)
        mixed_ND = torch.bmm(score.softmax(-1), view.values[index]).view(rows, -1)
        return self.out(mixed_ND, x_ND)

    def _feed(self, x_ND: Tensor, h_ND: Tensor) -> Tensor:
        inner_NI = self.up(h_ND)
        if self.gated:
            width = inner_NI.shape[1] // 2
            inner_NI = F.silu(inner_NI[:, :width]).mul_(inner_NI[:, width:])
        else:
            inner_NI = F.gelu(inner_NI, approximate="tanh")
        return self.down(inner_NI, x_ND)


def _product(linear: nn.Linear, before: nn.Module | None = None) -> Product:
    weight = linear.weight.detach()
    if isinstance(before, RMSNorm):
        weight = weight * before.weight.detach()
    return Product(weight, linear.bias)


def _norm(module: nn.Module | None, weighted: bool = True) -> Callable[[Tensor], Tensor]:
    """The norm as a function; without its weight (RMSNorm only) where the next matrix has taken that in."""
    if module is None:
        return lambda x: x
    if isinstance(module, LayerNorm):
        return lambda x: F.layer_norm(x, module.shape, module.weight, module.bias, module.eps)
    assert isinstance(module, RMSNorm)
    weight = module.weight.detach()
    eps, share = torch.full((1, 1), module.eps, dtype=weight.dtype), 1 / module.shape[0]

    def direction(x: Tensor) -> Tensor:
        length = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
        return x * torch.addcmul(eps, length, length, value=share).rsqrt_()

    return (lambda x: direction(x).mul_(weight)) if weighted else direction
