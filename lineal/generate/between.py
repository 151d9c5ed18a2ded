"""What lies between the products of a one-token pass, for the rows of one step: in NumPy, and by the compiled core.

`NumpyRows` says what is computed; `CompiledRows` does the same for float32 with `lineal.generate.rows`, in one run
over memory per operation. A test holds both to the decoder.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from types import ModuleType

import numpy as np
import torch
from torch import Tensor, nn

from lineal.models.attention import attend_one, flat_mask
from lineal.models.cache import KeyValueCache, Step
from lineal.models.decoder import Decoder
from lineal.models.layers import LayerNorm, RMSNorm
from lineal.native import compiled

SHARED_ABOVE = 1 << 19
"""Numbers of a layer's cache that one thread reads as soon as several, which takes telling them (0.05 ms)."""

Norm = Callable[[np.ndarray, np.ndarray | None, np.ndarray], np.ndarray]
"""(x, added, out): x += added unless that is None, and the norm of x into out."""


class Work:
    """Memory for one number of rows: what layers write and the next operation reads."""

    def __init__(self, decoder: Decoder, rows: int):
        config, dtype = decoder.config, array(decoder.embedding.weight).dtype
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
        self.mixed_NHD = self.mixed.reshape(rows, config.heads, config.head_width)
        self.heads = heads


class NumpyRows:
    """What one step tells every layer: rotations, what of the cache is seen, and where it is written."""

    def __init__(
        self, decoder: Decoder, work: Work, cache: KeyValueCache, step: Step, where: int | np.ndarray
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

    def mix(self, index: int, qkv_NHD: np.ndarray) -> np.ndarray:
        """Rotate, store and attend: the mixed values of each row, [N, H * Dh]."""
        rows, heads, width = qkv_NHD.shape
        kv_heads = self.work.heads[1]
        turned = heads - kv_heads
        self.rotate(qkv_NHD.reshape(rows, heads * width)[:, : turned * width])
        self.write(index, qkv_NHD[:, turned - kv_heads :].reshape(rows, 2, kv_heads, width))
        return self.attend(index, qkv_NHD[:, : turned - kv_heads])

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

    def gate(self, up_NI: np.ndarray, inner_NI: np.ndarray) -> None:
        """inner = silu(first half of up) * second half."""
        width = inner_NI.shape[1]
        gate_NI = up_NI[:, :width]
        np.negative(gate_NI, inner_NI)
        np.exp(inner_NI, inner_NI)
        inner_NI += 1
        np.divide(gate_NI, inner_NI, inner_NI)
        inner_NI *= up_NI[:, width:]

    def gelu(self, up_NI: np.ndarray, inner_NI: np.ndarray) -> None:
        """inner = gelu(up) in its tanh form, x / 2 (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3)))."""
        np.multiply(up_NI, up_NI, inner_NI)
        inner_NI *= 0.044715
        inner_NI += 1
        inner_NI *= up_NI
        inner_NI *= (2 / np.pi) ** 0.5
        np.tanh(inner_NI, inner_NI)
        inner_NI += 1
        inner_NI *= up_NI
        inner_NI *= 0.5


@dataclass
class Kernel:
    """The compiled core, with threads that share a large cache's reading: as many as torch uses, this one among them."""

    core: ModuleType

    def __post_init__(self) -> None:
        self.count = torch.get_num_threads()
        self.threads = ThreadPoolExecutor(self.count - 1) if self.count > 1 else None


class CompiledRows:
    """The same by the compiled core, which needs no mask: each row attends up to its own position."""

    def __init__(
        self, kernel: Kernel, decoder: Decoder, work: Work, cache: KeyValueCache, where: int | np.ndarray
    ):
        core = kernel.core
        self.core, self.work, self.store = core, work, cache.store.numpy()
        last = where if isinstance(where, int) else int(where.max())
        read = work.rows * (last + 1) * self.store[0, :, 0, :, 0].size
        self.threads = kernel.threads if read > SHARED_ABOVE else None
        parts = 1 if self.threads is None else min(kernel.count, work.rows)
        self.bounds = [work.rows * i // parts for i in range(parts + 1)]
        self.position_N = np.full(work.rows, where, np.int64) if isinstance(where, int) else where
        self.rotary = decoder.rotary
        self.score_PS = np.empty((parts, cache.length), np.float32)
        self.gate, self.gelu = core.gate, core.gelu

    def mix(self, index: int, qkv_NHD: np.ndarray) -> np.ndarray:
        """Rotate, store and attend: the mixed values of each row, [N, H * Dh]."""
        core, work, kv_heads = self.core, self.work, self.work.heads[1]
        if self.rotary is not None:
            tables = self.rotary.cos_SD.numpy(), self.rotary.sin_SD.numpy()
            core.rotate(qkv_NHD[:, : qkv_NHD.shape[1] - kv_heads], self.position_N, *tables)
        parts = [
            (qkv_NHD, self.store[index], self.position_N, score_S, work.mixed_NHD, first, last)
            for score_S, first, last in zip(self.score_PS, self.bounds, self.bounds[1:])
        ]
        others = [self.threads.submit(core.attend, *part) for part in parts[1:]] if self.threads else []
        core.attend(*parts[0])
        for other in others:
            other.result()
        return work.mixed


Rows = NumpyRows | CompiledRows


def norm_function(module: nn.Module | None, core: ModuleType | None = None, weighted: bool = True) -> Norm:
    """The norm as a function; without its weight (RMSNorm only) where the next matrix took it in."""
    if module is None:
        return _no_norm
    assert isinstance(module, RMSNorm | LayerNorm)
    weight, share, eps = array(module.weight), 1 / module.shape[0], module.eps
    bias = array(module.bias) if isinstance(module, LayerNorm) else None
    weighted = weighted or bias is not None

    def compiled_norm(x: np.ndarray, added: np.ndarray | None, out: np.ndarray) -> np.ndarray:
        assert core is not None
        core.add_norm(x, added, weight if weighted else None, bias, out, eps)
        return out

    def norm(x: np.ndarray, added: np.ndarray | None, out: np.ndarray) -> np.ndarray:
        if added is not None:
            x += added
        if bias is not None:
            x = np.subtract(x, np.add.reduce(x, -1, keepdims=True) * x.dtype.type(share), out)
        length = np.einsum("...d,...d->...", x, x)[..., None]
        length *= share
        length += eps
        np.sqrt(length, length)
        np.divide(x, length, out)
        if weighted:
            out *= weight
        if bias is not None:
            out += bias
        return out

    return norm if core is None else compiled_norm


def _no_norm(x: np.ndarray, added: np.ndarray | None, out: np.ndarray) -> np.ndarray:
    if added is not None:
        x += added
    return x


def rows_core() -> ModuleType | None:
    """`lineal.generate.rows`, compiled for this processor, or None where there is no such thing."""
    return compiled("lineal.generate.rows")


def array(tensor: Tensor) -> np.ndarray:
    """A tensor's memory as NumPy sees it."""
    return tensor.detach().numpy()
