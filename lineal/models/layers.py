"""The bricks around attention: rotary positions, feed-forward layers, normalisations."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn


@dataclass(frozen=True)
class RopeScaling:
    """How rotary frequencies are stretched for a context longer than the one first trained on.

    kind: "linear" (every frequency divided by `factor`) or "llama3" (only the slow ones, with a smooth middle;
    Llama 3.1, modeling_rope_utils in transformers).
    """

    kind: str
    factor: float
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    original_context: int = 8192

    def __call__(self, frequency: Tensor) -> Tensor:
        """Stretched frequencies, in radians per position."""
        if self.kind == "linear":
            return frequency / self.factor
        wavelength = 2 * math.pi / frequency
        longest = self.original_context / self.low_freq_factor
        shortest = self.original_context / self.high_freq_factor
        blend = (self.original_context / wavelength - self.low_freq_factor) / (
            self.high_freq_factor - self.low_freq_factor
        )
        middle = (1 - blend) * frequency / self.factor + blend * frequency
        stretched = torch.where(wavelength > longest, frequency / self.factor, middle)
        return torch.where(wavelength < shortest, frequency, stretched)


class Rotary(nn.Module):
    """Tables of rotary position embeddings (Su et al. 2021) in the half-rotated layout of Llama and Qwen.

    `rotate(x, cos, sin)` gives x * cos + roll(x, Dh/2) * sin, where the first half of `sin` carries the minus sign.
    Tables are computed in float32 whatever the model's dtype, as the models were trained; they are buffers that
    no checkpoint holds.
    """

    cos_SD: Tensor
    sin_SD: Tensor

    def __init__(self, head_width: int, context: int, theta: float, scaling: RopeScaling | None = None):
        super().__init__()
        self.head_width, self.context, self.theta, self.scaling = head_width, context, theta, scaling
        cos_SD, sin_SD = self._tables()
        self.register_buffer("cos_SD", cos_SD, persistent=False)
        self.register_buffer("sin_SD", sin_SD, persistent=False)

    def _tables(self) -> tuple[Tensor, Tensor]:
        with torch.device("cpu"):
            exponent = torch.arange(0, self.head_width, 2, dtype=torch.int64).float() / self.head_width
            frequency = 1.0 / (self.theta**exponent)
            if self.scaling is not None:
                frequency = self.scaling(frequency)
            angle = torch.outer(torch.arange(self.context, dtype=torch.float32), frequency)
            cos, sin = angle.cos(), angle.sin()
            return torch.cat((cos, cos), -1), torch.cat((-sin, sin), -1)

    def _apply(self, fn, recurse=True):
        # A trip through bfloat16 (or an empty allocation) must not leave rounded tables behind.
        module = super()._apply(fn, recurse)
        if not self.cos_SD.is_meta:
            cos_SD, sin_SD = self._tables()
            self.cos_SD.copy_(cos_SD)
            self.sin_SD.copy_(sin_SD)
        return module

    def at(self, position_BT: Int[Tensor, "B T"]) -> tuple[Tensor, Tensor]:
        """cos and sin of given positions, [B, T, 1, Dh]."""
        return self.cos_SD[position_BT].unsqueeze(2), self.sin_SD[position_BT].unsqueeze(2)

    def between(self, start: int, stop: int) -> tuple[Tensor, Tensor]:
        """cos and sin of positions start..stop-1, [T, 1, Dh]: views, nothing is copied."""
        return self.cos_SD[start:stop].unsqueeze(1), self.sin_SD[start:stop].unsqueeze(1)


def rotate(x: Tensor, cos: Tensor, sin: Tensor, out: Tensor | None = None) -> Tensor:
    """Rotate each pair (x_i, x_{i+Dh/2}) of the last axis by its position's angle; `out` may be x itself."""
    if cos.dtype != x.dtype:
        # Autocast: the projection is bfloat16 and the tables are not; promotion would double the attention's work.
        cos, sin = cos.to(x.dtype), sin.to(x.dtype)
    return torch.addcmul(x * cos, x.roll(x.shape[-1] // 2, -1), sin, out=out)


def build_norm(kind: str, width: int, eps: float) -> nn.Module:
    """RMSNorm ("rms") or LayerNorm ("layer")."""
    return RMSNorm(width, eps) if kind == "rms" else LayerNorm(width, eps)


class RMSNorm(nn.Module):
    """x / sqrt(mean(x^2) + eps) * weight over the last axis (Zhang & Sennrich 2019)."""

    def __init__(self, width: int, eps: float):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps
        self.shape = (width,)

    def forward(self, x: Float[Tensor, "*N D"]) -> Float[Tensor, "*N D"]:
        """Normalise the last axis."""
        weight = self.weight if self.weight.dtype == x.dtype else self.weight.to(x.dtype)
        return F.rms_norm(x, self.shape, weight, self.eps)


class LayerNorm(nn.Module):
    """(x - mean) / sqrt(var + eps) * weight + bias over the last axis (Ba et al. 2016)."""

    def __init__(self, width: int, eps: float):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width))
        self.eps = eps
        self.shape = (width,)

    def forward(self, x: Float[Tensor, "*N D"]) -> Float[Tensor, "*N D"]:
        """Normalise the last axis."""
        return F.layer_norm(x, self.shape, self.weight, self.bias, self.eps)


class SwiGLU(nn.Module):
    """down(silu(gate x) * up x) (Shazeer 2020), gate and up as one matrix product."""

    def __init__(self, width: int, inner: int, bias: bool):
        super().__init__()
        self.gate_up = nn.Linear(width, 2 * inner, bias)
        self.down = nn.Linear(inner, width, bias)

    def forward(self, x: Float[Tensor, "*N D"]) -> Float[Tensor, "*N D"]:
        """Apply to each position by itself."""
        gate, up = self.gate_up(x).chunk(2, -1)
        return self.down(F.silu(gate) * up)


class GeluMLP(nn.Module):
    """down(gelu(up x)) with the tanh form of GELU, as GPT-1 and GPT-2 were trained (Hendrycks & Gimpel 2016)."""

    def __init__(self, width: int, inner: int, bias: bool):
        super().__init__()
        self.up = nn.Linear(width, inner, bias)
        self.down = nn.Linear(inner, width, bias)

    def forward(self, x: Float[Tensor, "*N D"]) -> Float[Tensor, "*N D"]:
        """Apply to each position by itself."""
        return self.down(F.gelu(self.up(x), approximate="tanh"))
