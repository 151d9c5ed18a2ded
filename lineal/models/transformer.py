"""The Transformer of 2017: an encoder that reads a sentence and a decoder that writes another (Vaswani et al.)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from lineal.errors import ModelError
from lineal.models.cache import KeyValueCache, Step
from lineal.models.dropout import Masks
from lineal.models.layers import LayerNorm
from lineal.models.multihead import CrossAttention, Pass, SelfAttention


@dataclass(frozen=True)
class TransformerConfig:
    """The shape of an encoder-decoder; the defaults are the paper's base model.

    dropout: on the output of each sublayer and on embeddings plus positions. attention_dropout: on the attention weights
    (not in the paper; in its code). context: longest source or target, in tokens; positions are computed, not learned.
    attention_bias, logit_bias: of the attention projections and of the output layer; the paper has neither, Marian's
    files have both. scale_embedding: multiply embeddings by sqrt(width). activation: relu, gelu or silu. pad: the id
    whose embedding fills short rows; nothing looks at it. start: the id the decoder begins with.
    """

    vocab_size: int
    width: int = 512
    inner: int = 2048
    heads: int = 8
    encoder_layers: int = 6
    decoder_layers: int = 6
    dropout: float = 0.1
    attention_dropout: float = 0.0
    context: int = 1024
    attention_bias: bool = False
    logit_bias: bool = False
    scale_embedding: bool = True
    activation: str = "relu"
    norm_eps: float = 1e-5
    pad: int = 0
    start: int = 0
    layout: str = "marian"

    def __post_init__(self) -> None:
        if self.width % self.heads or self.width % 2:
            raise ModelError(f"width {self.width} must be even and a multiple of heads, {self.heads}.")
        if self.activation not in ACTIVATIONS:
            raise ModelError(f"activation {self.activation!r} is not one of {', '.join(ACTIVATIONS)}.")

    @property
    def head_width(self) -> int:
        """Width of one head."""
        return self.width // self.heads

    @property
    def layers(self) -> int:
        """Layers that keep keys and values of earlier tokens."""
        return self.decoder_layers

    @property
    def kv_heads(self) -> int:
        """Heads of keys and values: as many as of queries."""
        return self.heads


ACTIVATIONS = {"relu": torch.relu, "gelu": nn.functional.gelu, "silu": nn.functional.silu}
"""Of the feed-forward layers, by name; the paper's is relu."""


def sinusoid(count: int, width: int, dtype: torch.dtype = torch.float32) -> Float[Tensor, "T D"]:
    """PE(t, 2i) = sin(t / 10000^(2i/D)), PE(t, 2i+1) = cos(t / 10000^(2i/D)) (section 3.5); computed in float64."""
    angle_TI = torch.outer(
        torch.arange(count, dtype=torch.float64),
        10000.0 ** (-torch.arange(0, width, 2, dtype=torch.float64) / width),
    )
    return torch.stack((angle_TI.sin(), angle_TI.cos()), -1).flatten(1).to(dtype)


@runtime_checkable
class LayerShape(Protocol):
    """What a layer must know of its model's configuration."""

    @property
    def width(self) -> int:
        """Of a position's state."""
        ...

    @property
    def inner(self) -> int:
        """Width inside the feed-forward layer."""
        ...

    @property
    def heads(self) -> int:
        """Of attention."""
        ...

    @property
    def dropout(self) -> float:
        """On each sublayer's output."""
        ...

    @property
    def attention_dropout(self) -> float:
        """On the attention weights."""
        ...

    @property
    def attention_bias(self) -> bool:
        """Whether attention's projections have one."""
        ...

    @property
    def activation(self) -> str:
        """Of the feed-forward layer, by name."""
        ...

    @property
    def norm_eps(self) -> float:
        """Added to the variance."""
        ...


class FeedForward(nn.Module):
    """max(0, x W_1 + b_1) W_2 + b_2 (eq. 2)."""

    def __init__(self, config: LayerShape):
        super().__init__()
        self.up = nn.Linear(config.width, config.inner)
        self.down = nn.Linear(config.inner, config.width)
        self.activation = ACTIVATIONS[config.activation]

    def forward(self, x: Float[Tensor, "*N D"]) -> Float[Tensor, "*N D"]:
        """Apply to each position by itself."""
        return self.down(self.activation(self.up(x)))


class EncoderLayer(nn.Module):
    """norm(x + sublayer(x)), for self-attention and then for the feed-forward layer."""

    def __init__(self, config: LayerShape):
        super().__init__()
        parts = config.width, config.heads, config.attention_bias, config.attention_dropout
        self.attention, self.attention_norm = SelfAttention(*parts), LayerNorm(config.width, config.norm_eps)
        self.mlp, self.mlp_norm = FeedForward(config), LayerNorm(config.width, config.norm_eps)
        self.dropout = config.dropout

    def forward(self, x_BSD: Tensor, mask: Tensor | None, going: Pass) -> Float[Tensor, "B S D"]:
        """One layer over all positions."""
        x_BSD = self.attention_norm(x_BSD + going.drop(self.attention(x_BSD, mask, going), self.dropout))
        return self.mlp_norm(x_BSD + going.drop(self.mlp(x_BSD), self.dropout))


class DecoderLayer(nn.Module):
    """norm(x + sublayer(x)), for masked self-attention, attention to the source, and the feed-forward layer."""

    def __init__(self, config: TransformerConfig):
        super().__init__()
        parts = config.width, config.heads, config.attention_bias, config.attention_dropout
        self.attention, self.attention_norm = SelfAttention(*parts), LayerNorm(config.width, config.norm_eps)
        self.cross, self.cross_norm = CrossAttention(*parts), LayerNorm(config.width, config.norm_eps)
        self.mlp, self.mlp_norm = FeedForward(config), LayerNorm(config.width, config.norm_eps)
        self.dropout = config.dropout

    def forward(
        self, x_BTD: Tensor, causal: Tensor, memory_BSD: Tensor, mask: Tensor | None, going: Pass
    ) -> Float[Tensor, "B T D"]:
        """One layer over all positions at once, as in training."""
        x_BTD = self.attention_norm(x_BTD + going.drop(self.attention(x_BTD, causal, going), self.dropout))
        x_BTD = self.cross_norm(x_BTD + going.drop(self.cross(x_BTD, memory_BSD, mask, going), self.dropout))
        return self.mlp_norm(x_BTD + going.drop(self.mlp(x_BTD), self.dropout))


class Transformer(nn.Module):
    """Encoder and decoder with one embedding for source, target and output, times sqrt(D) where it goes in.

    Rows are padded on the right. `source_mask` is 0 where a source has a token and -inf where it has none, [B, 1, 1, S];
    None says that no row is padded. Targets need none: what lies behind a row's end is seen by nothing in front of it.
    """

    def __init__(self, config: TransformerConfig):
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocab_size, config.width)
        self.encoder = nn.ModuleList(EncoderLayer(config) for _ in range(config.encoder_layers))
        self.decoder = nn.ModuleList(DecoderLayer(config) for _ in range(config.decoder_layers))
        self.logit_bias = nn.Parameter(torch.zeros(config.vocab_size)) if config.logit_bias else None
        # Not in any file: a function of the position.
        self.position_TD: Tensor
        self.register_buffer("position_TD", torch.empty(0, config.width), persistent=False)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.embedding.weight.device

    def _decoder(self) -> Iterator[DecoderLayer]:
        for layer in self.decoder:
            assert isinstance(layer, DecoderLayer)
            yield layer

    def initialise(self, seed: int) -> Transformer:
        """Xavier-uniform matrices (Q, K and V each as a matrix of its own), zero biases, embeddings N(0, 1/D).

        The paper does not say how it starts; this is what its code does, but for the embedding's padding row.
        """
        made = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for name, weight in self.named_parameters():
                if weight.ndim < 2:
                    weight.fill_(1.0 if name.endswith("norm.weight") else 0.0)
                elif name == "embedding.weight":
                    weight.copy_(torch.randn(weight.shape, generator=made) * self.config.width**-0.5)
                else:
                    for part in (
                        weight.split(self.config.width) if "qkv" in name or "kv" in name else (weight,)
                    ):
                        bound = math.sqrt(6 / sum(part.shape))
                        part.copy_((2 * torch.rand(part.shape, generator=made) - 1) * bound)
        return self

    def embed(
        self, token_BT: Int[Tensor, "B T"], start: int = 0, going: Pass | None = None
    ) -> Float[Tensor, "B T D"]:
        """sqrt(D) E[token] + PE(position), with dropout."""
        stop = start + token_BT.shape[1]
        if stop > self.config.context:
            raise ModelError(
                f"{stop} tokens are more than the {self.config.context} that this model takes: cut the sentence."
            )
        if len(self.position_TD) < stop or self.position_TD.dtype != self.embedding.weight.dtype:
            count = min(self.config.context, 1 << (stop - 1).bit_length())
            self.position_TD = sinusoid(count, self.config.width, self.embedding.weight.dtype).to(self.device)
        x_BTD = self.embedding(token_BT)
        if self.config.scale_embedding:
            x_BTD = x_BTD * math.sqrt(self.config.width)
        x_BTD = x_BTD + self.position_TD[start:stop]
        return x_BTD if going is None else going.drop(x_BTD, self.config.dropout)

    def encode(
        self, source_BS: Int[Tensor, "B S"], source_mask: Tensor | None, going: Pass | None = None
    ) -> Float[Tensor, "B S D"]:
        """The source as the decoder sees it."""
        going = going or Pass()
        x_BSD = self.embed(source_BS, going=going)
        for layer in self.encoder:
            x_BSD = layer(x_BSD, source_mask, going)
        return x_BSD

    def decode(
        self,
        input_BT: Int[Tensor, "B T"],
        memory_BSD: Float[Tensor, "B S D"],
        source_mask: Tensor | None,
        going: Pass | None = None,
    ) -> Float[Tensor, "B T D"]:
        """Hidden states of the target, each position seeing itself, those before it, and the whole source."""
        going = going or Pass()
        x_BTD, width = self.embed(input_BT, going=going), input_BT.shape[1]
        causal = torch.full((width, width), float("-inf"), device=x_BTD.device, dtype=x_BTD.dtype).triu(1)[
            None, None
        ]
        for layer in self._decoder():
            x_BTD = layer(x_BTD, causal, memory_BSD, source_mask, going)
        return x_BTD

    def forward(
        self,
        source_BS: Int[Tensor, "B S"],
        input_BT: Int[Tensor, "B T"],
        source_mask: Tensor | None = None,
        masks: Masks | None = None,
    ) -> Float[Tensor, "B T D"]:
        """Hidden states of the target given source and target so far; masks: dropout, in training."""
        going = Pass(masks)
        return self.decode(input_BT, self.encode(source_BS, source_mask, going), source_mask, going)

    def logits(self, hidden: Float[Tensor, "*N D"]) -> Float[Tensor, "*N V"]:
        """h E', with Marian's bias where there is one."""
        return nn.functional.linear(hidden, self.embedding.weight, self.logit_bias)

    def remember(self, memory_BSD: Float[Tensor, "B S D"]) -> Float[Tensor, "L 2 B H S Dh"]:
        """Keys and values of the source in every layer of the decoder."""
        return torch.stack([torch.stack(layer.cross.remember(memory_BSD)) for layer in self._decoder()])

    def step(
        self,
        token_N: Int[Tensor, " N"],
        cache: KeyValueCache,
        step: Step,
        memory: Float[Tensor, "L 2 P H S Dh"],
        source_mask: Tensor | None,
    ) -> Float[Tensor, "N D"]:
        """Hidden states of one more token of each row; the N rows are N/P for each of P sources, one after the other.

        memory: what `remember` gave. The hypotheses of a sentence share its keys and values: none is copied.
        """
        count, (sources, width) = len(token_N), (memory.shape[2], self.config.width)
        assert step.start is not None
        x_ND, going = self.embed(token_N[:, None], step.start)[:, 0], Pass()
        for index, layer in enumerate(self._decoder()):
            x_ND = layer.attention_norm(x_ND + layer.attention.step(x_ND, cache, step, index))
            grouped = x_ND.view(sources, count // sources, width)
            mixed = layer.cross.look(grouped, memory[index, 0], memory[index, 1], source_mask, going)
            x_ND = layer.cross_norm(x_ND + mixed.reshape(count, width))
            x_ND = layer.mlp_norm(x_ND + layer.mlp(x_ND))
        return x_ND
