"""One token per row through a decoder on a CPU, written out flat in NumPy over the decoder's own memory.

For a small model a step's time goes into calls and into fetching weights, not into arithmetic. A call of NumPy costs
a third of one of torch (0.3 and 1 us measured), and its `einsum` streams a matrix past one vector, or the cache past its
queries, 1.5 to 2 times as fast as torch's products of one row. Products of more rows stay with torch (`Product`).
Arrays share memory with the tensors of decoder and cache; only matrices that decoding wants in another layout, or
with a norm's weights multiplied in, are copied. `Decoder.forward_step` is the definition; a test holds the two together.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from lineal.models.attention import attend_one, flat_mask
from lineal.models.cache import KeyValueCache, Step
from lineal.models.decoder import Block, Decoder
from lineal.models.layers import LayerNorm, RMSNorm, SwiGLU
from lineal.models.packed import Product

FEW = 1
"""Rows up to which each row passes the matrices by itself."""

TURN_AFTER = 4
"""Steps with few rows before matrices are turned for them: about what turning costs."""

Norm = Callable[[np.ndarray, np.ndarray], np.ndarray]


class FlatPass:
    """Hidden states [N, D] of one new token for each of the first N slots of a cache; float32 or float64, CPU.

    Holds copies of weights: it is good until they change.
    """

    def __init__(self, decoder: Decoder):
        self.decoder = decoder
        self._embedding = _array(decoder.embedding.weight)
        self._layers = [_Layer(block) for block in decoder.blocks]  # type: ignore[arg-type]
        self._last = _norm(decoder.norm)
        self._work: _Work | None = None
        self._steps_of_few = 0

    @torch.no_grad()
    def __call__(self, token_N: Int[Tensor, " N"], cache: KeyValueCache, step: Step) -> Float[Tensor, "N D"]:
        """Read the tokens, store their keys and values in the cache, and give the hidden states."""
        rows = token_N.shape[0]
        if rows <= FEW:
            self._steps_of_few += 1
            if self._steps_of_few == TURN_AFTER:
                for layer in self._layers:
                    layer.turn()
        if self._work is None or self._work.rows != rows:
            self._work = _Work(self.decoder, rows)
        # Overflow in exp gives the limit that is wanted; nan is noticed where completions leave.
        with np.errstate(all="ignore"):
            x_ND = self._embedding[token_N.numpy()]
            where = step.span - 1 if step.position_BT is None else step.position_BT[:, 0].numpy()
            if self.decoder.position is not None:
                x_ND = x_ND + _array(self.decoder.position.weight)[where]
            view = _View(self.decoder, self._work, cache, step, where)
            for index, layer in enumerate(self._layers):
                x_ND = layer(x_ND, index, view)
            return torch.from_numpy(self._last(x_ND, np.empty_like(x_ND)))


class _Work:
    """Memory for one number of rows: what layers write and the next operation reads."""

    def __init__(self, decoder: Decoder, rows: int):
        config, dtype = decoder.config, _array(decoder.embedding.weight).dtype
        turned = config.heads + config.kv_heads
        up = config.inner * (2 if config.activation == "swiglu" else 1)
        self.rows = rows
        self.h_ND = np.empty((rows, config.width), dtype)
        self.out_ND = np.empty((rows, config.width), dtype)
        self.qkv = np.empty((rows, (turned + config.kv_heads) * config.head_width), dtype)
        self.up = np.empty((rows, up), dtype)
        self.inner = np.empty((rows, config.inner), dtype)
        self.mixed = np.empty((rows, config.heads * config.head_width), dtype)
        half = config.head_width // 2
        self.swapped = np.empty((rows, turned, 2, half), dtype)
        heads = (rows, config.kv_heads, config.heads // config.kv_heads)
        self.mixed_heads = self.mixed.reshape(*heads, config.head_width)
        self.heads = heads


class _View:
    """What one step tells every layer: rotations, what of the cache is seen, and where it is written."""

    def __init__(
        self, decoder: Decoder, work: _Work, cache: KeyValueCache, step: Step, where: int | np.ndarray
    ):
        self.work, self.cache, self.step = work, cache, step
        store = cache.store.numpy()
        self.seen = store[:, :, : work.rows, :, : step.span]
        self.store, self.where, self.slots = store, where, np.arange(work.rows)
        self.cos = self.sin = None
        if decoder.rotary is not None:
            half = decoder.config.head_width // 2
            # One position for all rows, or one per row; heads written out, so that rows are multiplied whole.
            cos = decoder.rotary.cos_SD.numpy()[where].reshape(-1, 2 * half)
            self.cos = np.tile(cos, work.swapped.shape[1])
            self.sin = decoder.rotary.sin_SD.numpy()[where].reshape(-1, 1, 2, half)
        self.score = np.empty((*work.heads, step.span), work.mixed.dtype)
        # Several threads of torch read a large cache faster than the one thread of NumPy.
        self.threaded = work.rows > 4 and torch.get_num_threads() > 1
        self.mask = self.flat = None
        if step.mask is not None and self.threaded:
            self.flat = flat_mask(step.mask, decoder.config.kv_heads)
        elif step.mask is not None:
            self.mask = step.mask.numpy()

    def rotate(self, turned_NI: np.ndarray) -> None:
        """x * cos + swapped halves * sin (its first half negative) for each head of the rows, in place."""
        if self.cos is None or self.sin is None:
            return
        swapped = self.work.swapped
        halves = turned_NI.reshape(swapped.shape)
        np.multiply(halves[:, :, 1], self.sin[:, :, 0], swapped[:, :, 0])
        np.multiply(halves[:, :, 0], self.sin[:, :, 1], swapped[:, :, 1])
        turned_NI *= self.cos
        turned_NI += swapped.reshape(turned_NI.shape)

    def write(self, index: int, kv_N2KD: np.ndarray) -> None:
        """Store one layer's new keys and values."""
        if isinstance(self.where, int):
            self.store[index, :, : len(kv_N2KD), :, self.where] = kv_N2KD.swapaxes(0, 1)
        else:
            # Two index arrays with a slice between them: their axis comes first.
            self.store[index][:, self.slots, :, self.where] = kv_N2KD

    def attend(self, index: int, query_NHD: np.ndarray) -> np.ndarray:
        """softmax(q k' / sqrt(Dh) + mask) v of one query per row and head, [N, H * Dh]."""
        work = self.work
        if self.threaded:
            key, value = self.cache.store[index, :, : work.rows, :, : self.step.span].unbind(0)
            return attend_one(torch.from_numpy(query_NHD), key, value, self.flat).numpy()
        key_NKSD, value_NKSD = self.seen[index]
        query = query_NHD.reshape(*work.heads, query_NHD.shape[-1])
        score = np.einsum("nkgd,nksd->nkgs", query, key_NKSD, out=self.score)
        score *= query.shape[-1] ** -0.5
        if self.mask is not None:
            score += self.mask
        score -= np.maximum.reduce(score, -1, keepdims=True)
        np.exp(score, score)
        np.einsum("nkgs,nksd->nkgd", score, value_NKSD, out=work.mixed_heads)
        work.mixed_heads /= np.add.reduce(score, -1, keepdims=True)
        return work.mixed


class _Layer:
    """One block of the decoder."""

    def __init__(self, block: Block):
        a, mlp, self.post = block.attention, block.mlp, block.post
        self.heads, self.kv_heads, self.head_width = a.heads, a.kv_heads, a.head_width
        self.attention_norm = _norm(block.attention_norm, weighted=self.post)
        self.mlp_norm = _norm(block.mlp_norm, weighted=self.post)
        self.query_norm = None if a.query_norm is None else _norm(a.query_norm)
        self.key_norm = _norm(a.key_norm)
        self.gated = isinstance(mlp, SwiGLU)
        self.qkv = _Matrix(a.qkv, None if self.post else block.attention_norm)
        self.out = _Matrix(a.out)
        self.up = _Matrix(
            mlp.gate_up if isinstance(mlp, SwiGLU) else mlp.up, None if self.post else block.mlp_norm
        )
        self.down = _Matrix(mlp.down)

    def turn(self) -> None:
        """Lay all matrices out for steps of few rows."""
        for matrix in (self.qkv, self.out, self.up, self.down):
            matrix.turn()

    def __call__(self, x_ND: np.ndarray, index: int, view: _View) -> np.ndarray:
        """The stream after this block."""
        h_ND = view.work.h_ND
        if self.post:
            x_ND = self.attention_norm(x_ND + self._mix(x_ND, index, view), x_ND)
            return self.mlp_norm(x_ND + self._feed(x_ND, view), x_ND)
        x_ND += self._mix(self.attention_norm(x_ND, h_ND), index, view)
        x_ND += self._feed(self.mlp_norm(x_ND, h_ND), view)
        return x_ND

    def _mix(self, h_ND: np.ndarray, index: int, view: _View) -> np.ndarray:
        heads, turned = self.heads, self.heads + self.kv_heads
        rows = h_ND.shape[0]
        qkv = self.qkv(h_ND, view.work.qkv)
        qkv_NHD = qkv.reshape(rows, turned + self.kv_heads, self.head_width)
        query_NHD = qkv_NHD[:, :heads]
        if self.query_norm is not None:
            self.query_norm(query_NHD, query_NHD)
            self.key_norm(qkv_NHD[:, heads:turned], qkv_NHD[:, heads:turned])
        view.rotate(qkv[:, : turned * self.head_width])
        view.write(index, qkv_NHD[:, heads:].reshape(rows, 2, self.kv_heads, self.head_width))
        return self.out(view.attend(index, query_NHD), view.work.out_ND)

    def _feed(self, h_ND: np.ndarray, view: _View) -> np.ndarray:
        up_NI, inner_NI = self.up(h_ND, view.work.up), view.work.inner
        if self.gated:
            width = inner_NI.shape[1]
            gate_NI = up_NI[:, :width]
            np.negative(gate_NI, inner_NI)
            np.exp(inner_NI, inner_NI)
            inner_NI += 1
            np.divide(gate_NI, inner_NI, inner_NI)
            inner_NI *= up_NI[:, width:]
        else:
            # gelu's tanh form: x / 2 (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3)))
            np.multiply(up_NI, up_NI, inner_NI)
            inner_NI *= 0.044715
            inner_NI += 1
            inner_NI *= up_NI
            inner_NI *= (2 / np.pi) ** 0.5
            np.tanh(inner_NI, inner_NI)
            inner_NI += 1
            inner_NI *= up_NI
            inner_NI *= 0.5
        return self.down(inner_NI, view.work.out_ND)


@dataclass
class _Matrix:
    """x W' + b for rows of NumPy; with a norm's weights taken into W."""

    linear: nn.Linear
    before: nn.Module | None = None

    def __post_init__(self) -> None:
        weight = self.linear.weight.detach()
        if isinstance(self.before, RMSNorm):
            weight = weight * self.before.weight.detach()
        self.product = Product(weight, self.linear.bias)
        self.bias = None if self.linear.bias is None else _array(self.linear.bias)
        self.turned: np.ndarray | None = None

    def turn(self) -> None:
        self.turned = np.ascontiguousarray(self.product.turned.numpy())

    def __call__(self, x: np.ndarray, out: np.ndarray) -> np.ndarray:
        if self.turned is None or x.shape[0] > FEW:
            return self.product(torch.from_numpy(x)).numpy()
        for row, sums in zip(x, out, strict=True):
            np.einsum("i,ij->j", row, self.turned, out=sums)
        if self.bias is not None:
            out += self.bias
        return out


def _norm(module: nn.Module | None, weighted: bool = True) -> Norm:
    """The norm as a function (x, out) -> out; without its weight (RMSNorm only) where the next matrix took it in."""
    if module is None:
        return lambda x, out: x
    assert isinstance(module, RMSNorm | LayerNorm)
    weight, share, eps = _array(module.weight), 1 / module.shape[0], module.eps
    bias = _array(module.bias) if isinstance(module, LayerNorm) else None

    def norm(x: np.ndarray, out: np.ndarray) -> np.ndarray:
        if bias is not None:
            x = np.subtract(x, np.add.reduce(x, -1, keepdims=True) * x.dtype.type(share), out)
        length = np.einsum("...d,...d->...", x, x)[..., None]
        length *= share
        length += eps
        np.sqrt(length, length)
        np.divide(x, length, out)
        if weighted or bias is not None:
            out *= weight
        if bias is not None:
            out += bias
        return out

    return norm


def _array(tensor: Tensor) -> np.ndarray:
    return tensor.detach().numpy()
