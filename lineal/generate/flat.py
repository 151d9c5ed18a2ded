"""One token per row through a decoder on a CPU, written out flat in NumPy over the decoder's own memory.

For a small model a step's time goes into calls and into fetching weights, not into arithmetic. A call of NumPy costs
a third of one of torch (0.3 and 1 us measured), and its `einsum` streams a matrix past one vector, or the cache past its
queries, 1.5 to 2 times as fast as torch's products of one row. Products of more rows stay with torch (`Product`).
Arrays share memory with the tensors of decoder and cache; only matrices that decoding wants in another layout, or
with a norm's weights multiplied in, are copied. `Decoder.forward_step` is the definition; a test holds the two together.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import ModuleType

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from lineal.generate.between import (
    CompiledRows,
    Kernel,
    NumpyRows,
    Rows,
    Work,
    array,
    norm_function,
    rows_core,
)
from lineal.models.cache import KeyValueCache, Step
from lineal.models.decoder import Block, Decoder
from lineal.models.gating import Routes
from lineal.models.layers import RMSNorm, SwiGLU
from lineal.models.moe import Mixture
from lineal.models.packed import Product

FEW = 1
"""Rows up to which each row passes the matrices by itself."""

TURN_AFTER = 4
"""Steps with few rows before matrices are turned for them: about what turning costs."""


class FlatPass:
    """Hidden states [N, D] of one new token for each of the first N slots of a cache; float32 or float64, CPU.

    Holds copies of weights: it is good until they change. half: products of several rows are in bfloat16.
    """

    def __init__(self, decoder: Decoder, half: bool = False):
        self.decoder = decoder
        self._embedding = array(decoder.embedding.weight)
        core = rows_core() if decoder.dtype == torch.float32 else None
        self._kernel = None if core is None else Kernel(core)
        self._layers = [_Layer(block, core, half) for block in decoder.blocks]  # type: ignore[arg-type]
        self._last = norm_function(decoder.norm, core)
        self._work: Work | None = None
        self._steps_of_few = 0

    @torch.no_grad()
    def __call__(
        self, token_N: Int[Tensor, " N"], cache: KeyValueCache, step: Step, routes: Routes | None = None
    ) -> Float[Tensor, "N D"]:
        """Read the tokens, store their keys and values in the cache, and give the hidden states."""
        rows = token_N.shape[0]
        if rows <= FEW:
            self._steps_of_few += 1
            if self._steps_of_few == TURN_AFTER:
                for layer in self._layers:
                    layer.turn()
        if self._work is None or self._work.rows != rows:
            self._work = Work(self.decoder, rows)
        # Overflow in exp gives the limit that is wanted; nan is noticed where completions leave.
        with np.errstate(all="ignore"):
            x_ND = self._embedding[token_N.numpy()]
            where = step.span - 1 if step.position_BT is None else step.position_BT[:, 0].numpy()
            if self.decoder.position is not None:
                x_ND = x_ND + array(self.decoder.position.weight)[where]
            view: Rows
            if self._kernel is None:
                view = NumpyRows(self.decoder, self._work, cache, step, where)
            else:
                view = CompiledRows(self._kernel, self.decoder, self._work, cache, where)
            added_ND = None
            for index, layer in enumerate(self._layers):
                added_ND = layer(x_ND, added_ND, index, view, routes)
            return torch.from_numpy(self._last(x_ND, added_ND, np.empty_like(x_ND)))


class _Layer:
    """One block of the decoder."""

    def __init__(self, block: Block, core: ModuleType | None = None, half: bool = False):
        a, mlp, self.post = block.attention, block.mlp, block.post
        self.heads, self.kv_heads, self.head_width = a.heads, a.kv_heads, a.head_width
        self.attention_norm = norm_function(block.attention_norm, core, weighted=self.post)
        self.mixture = mlp if isinstance(mlp, Mixture) else None
        self.mlp_norm = norm_function(block.mlp_norm, core, weighted=self.post or self.mixture is not None)
        self.query_norm = None if a.query_norm is None else norm_function(a.query_norm)
        self.key_norm = norm_function(a.key_norm)
        self.gated = isinstance(mlp, SwiGLU)
        self.qkv = _Matrix(a.qkv, half, None if self.post else block.attention_norm)
        self.out = _Matrix(a.out, half)
        self.matrices = [self.qkv, self.out]
        if isinstance(mlp, Mixture):
            return
        self.up = _Matrix(
            mlp.gate_up if isinstance(mlp, SwiGLU) else mlp.up, half, None if self.post else block.mlp_norm
        )
        self.down = _Matrix(mlp.down, half)
        self.matrices += [self.up, self.down]

    def turn(self) -> None:
        """Lay all matrices out for steps of few rows."""
        for matrix in self.matrices:
            matrix.turn()

    def __call__(
        self, x_ND: np.ndarray, added_ND: np.ndarray | None, index: int, view: Rows, routes: Routes | None
    ) -> np.ndarray | None:
        """Move the stream x (in place) to where this block leaves it, but for the part returned, still to be added.

        added: what the block before left to be added.
        """
        h_ND = view.work.h_ND
        if self.post:
            self.attention_norm(x_ND, self._mix(x_ND, index, view), x_ND)
            self.mlp_norm(x_ND, self._feed(x_ND, index, view, routes), x_ND)
            return None
        self.attention_norm(x_ND, added_ND, h_ND)
        self.mlp_norm(x_ND, self._mix(h_ND, index, view), h_ND)
        return self._feed(h_ND, index, view, routes)

    def _mix(self, h_ND: np.ndarray, index: int, view: Rows) -> np.ndarray:
        heads, turned = self.heads, self.heads + self.kv_heads
        rows = h_ND.shape[0]
        qkv = self.qkv(h_ND, view.work.qkv)
        qkv_NHD = qkv.reshape(rows, turned + self.kv_heads, self.head_width)
        query_NHD = qkv_NHD[:, :heads]
        if self.query_norm is not None:
            self.query_norm(query_NHD, None, query_NHD)
            self.key_norm(qkv_NHD[:, heads:turned], None, qkv_NHD[:, heads:turned])
        return self.out(view.mix(index, qkv_NHD), view.work.out_ND)

    def _feed(self, h_ND: np.ndarray, index: int, view: Rows, routes: Routes | None) -> np.ndarray:
        if self.mixture is not None:
            return self.mixture(torch.from_numpy(h_ND), routes, index).numpy()
        up_NI, inner_NI = self.up(h_ND, view.work.up), view.work.inner
        (view.gate if self.gated else view.gelu)(up_NI, inner_NI)
        return self.down(inner_NI, view.work.out_ND)


@dataclass
class _Matrix:
    """x W' + b for rows of NumPy; with a norm's weights taken into W."""

    linear: nn.Linear
    half: bool = False
    before: nn.Module | None = None

    def __post_init__(self) -> None:
        weight = self.linear.weight.detach()
        if isinstance(self.before, RMSNorm):
            weight = weight * self.before.weight.detach()
        self.product = Product(weight, self.linear.bias, self.half)
        self.bias = None if self.linear.bias is None else array(self.linear.bias)
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
