"""One decoder for the line GPT-1, GPT-2, Llama, Qwen2, Qwen3, Mixtral: bricks chosen by a configuration."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from lineal.errors import UsageError
from lineal.models.attention import Attention, KeyValueCache, Rows, Step, View
from lineal.models.dropout import drop
from lineal.models.gating import ExpertsConfig, Routes
from lineal.models.layers import GeluMLP, RopeScaling, Rotary, SwiGLU, build_norm
from lineal.models.moe import Mixture
from lineal.models.ragged import Ragged

MIXTURES = ("mixtral", "qwen3_moe", "lineal_moe")
"""The layouts whose feed-forward layers are mixtures of experts; transformers knows the first two."""


@dataclass(frozen=True)
class DecoderConfig:
    """The shape of a decoder; `llama_config` and its siblings fill it in as each family does.

    width D, heads H, kv_heads Hkv, head_width Dh, inner (feed-forward), context (longest sequence).
    norm: "rms" | "layer". norm_place: "pre" | "post" (GPT-1). position: "rotary" | "learned".
    activation: "swiglu" | "gelu_tanh". tied: the output layer is the embedding.
    experts: a mixture of experts as feed-forward layer, in all layers but `experts.dense`.
    layout: the Hugging Face architecture that it came from and is saved as.
    """

    vocab_size: int
    width: int
    layers: int
    heads: int
    kv_heads: int
    head_width: int
    inner: int
    context: int
    norm: str = "rms"
    norm_place: str = "pre"
    norm_eps: float = 1e-6
    position: str = "rotary"
    activation: str = "swiglu"
    qkv_bias: bool = False
    out_bias: bool = False
    mlp_bias: bool = False
    qk_norm: bool = False
    tied: bool = True
    rope_theta: float = 10_000.0
    rope_scaling: RopeScaling | None = None
    dropout: float = 0.0
    experts: ExpertsConfig | None = None
    layout: str = "llama"

    def __post_init__(self) -> None:
        for name in ("vocab_size", "width", "layers", "heads", "kv_heads", "head_width", "inner", "context"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} must be at least 1; {getattr(self, name)} was given.")
        allowed = {
            "norm": ("rms", "layer"),
            "norm_place": ("pre", "post"),
            "position": ("rotary", "learned"),
            "activation": ("swiglu", "gelu_tanh"),
        }
        for name, values in allowed.items():
            if getattr(self, name) not in values:
                raise UsageError(f"{name} {getattr(self, name)!r} is not one of {', '.join(values)}.")
        if self.heads % self.kv_heads:
            raise UsageError(f"{self.heads} heads cannot share {self.kv_heads} key-value heads evenly.")
        if self.position == "rotary" and self.head_width % 2:
            raise UsageError(f"rotary positions need an even head width; {self.head_width} is odd.")
        if self.layout in ("gpt2", "openai-gpt") and self.kv_heads != self.heads:
            raise UsageError(f"layout {self.layout} has no grouped heads: leave kv_heads at {self.heads}.")
        if self.layout == "openai-gpt" and self.inner != 4 * self.width:
            raise UsageError(
                f"layout openai-gpt has inner = 4 x width = {4 * self.width}; {self.inner} was given."
            )
        self._check_experts()

    def _check_experts(self) -> None:
        experts = self.experts
        if experts is None:
            if self.layout in MIXTURES:
                raise UsageError(f"layout {self.layout} is a mixture: give experts.")
            return
        if self.layout not in MIXTURES:
            raise UsageError(
                f"layout {self.layout} has no place for experts: use one of {', '.join(MIXTURES)}."
            )
        plain = experts.groups == 1 and experts.activation == "swiglu"
        whole = experts.renormalise and not experts.dense
        if self.layout != "lineal_moe" and not (plain and (whole or self.layout == "qwen3_moe")):
            raise UsageError(
                f"layout {self.layout} cannot hold these experts (two levels, ReLU, weights not renormalised, or "
                "layers left out): use lineal_moe."
            )

    @property
    def mixed(self) -> tuple[int, ...]:
        """The numbers of the layers whose feed-forward is a mixture of experts."""
        experts = self.experts
        return () if experts is None else tuple(i for i in range(self.layers) if i not in experts.dense)


def llama_config(
    vocab_size: int, width: int, layers: int, heads: int, inner: int, context: int, **options: object
) -> DecoderConfig:
    """Llama (Touvron et al. 2023): RMSNorm first, rotary positions, SwiGLU, no biases; `options` override fields."""
    return _preset({"layout": "llama"}, vocab_size, width, layers, heads, inner, context, options)


def qwen2_config(
    vocab_size: int, width: int, layers: int, heads: int, inner: int, context: int, **options: object
) -> DecoderConfig:
    """Qwen2 (Yang et al. 2024): Llama with biases on queries, keys and values."""
    return _preset(
        {"layout": "qwen2", "qkv_bias": True}, vocab_size, width, layers, heads, inner, context, options
    )


def qwen3_config(
    vocab_size: int, width: int, layers: int, heads: int, inner: int, context: int, **options: object
) -> DecoderConfig:
    """Qwen3 (Yang et al. 2025): Llama with RMSNorm on each head's queries and keys."""
    return _preset(
        {"layout": "qwen3", "qk_norm": True}, vocab_size, width, layers, heads, inner, context, options
    )


def mixtral_config(
    vocab_size: int, width: int, layers: int, heads: int, inner: int, context: int, **options: object
) -> DecoderConfig:
    """Mixtral (Jiang et al. 2024): Llama with 8 experts in each feed-forward layer, 2 for each token."""
    own = {"layout": "mixtral", "norm_eps": 1e-5, "rope_theta": 1e6, "experts": ExpertsConfig(8, 2, inner)}
    return _preset(own, vocab_size, width, layers, heads, inner, context, options)


def qwen3_moe_config(
    vocab_size: int, width: int, layers: int, heads: int, inner: int, context: int, **options: object
) -> DecoderConfig:
    """Qwen3-MoE (Yang et al. 2025): Qwen3 with 128 small experts, 8 for each token; here inner / 8 wide unless given."""
    experts = ExpertsConfig(128, 8, max(1, inner // 8))
    own = {"layout": "qwen3_moe", "qk_norm": True, "experts": experts}
    return _preset(own, vocab_size, width, layers, heads, inner, context, options)


_GPT = {
    "norm": "layer",
    "norm_eps": 1e-5,
    "position": "learned",
    "activation": "gelu_tanh",
    "qkv_bias": True,
    "out_bias": True,
    "mlp_bias": True,
}


def gpt2_config(
    vocab_size: int, width: int, layers: int, heads: int, inner: int, context: int, **options: object
) -> DecoderConfig:
    """GPT-2 (Radford et al. 2019): LayerNorm first, learned positions, GELU, biases everywhere."""
    return _preset({**_GPT, "layout": "gpt2"}, vocab_size, width, layers, heads, inner, context, options)


def gpt1_config(
    vocab_size: int, width: int, layers: int, heads: int, inner: int, context: int, **options: object
) -> DecoderConfig:
    """GPT-1 (Radford et al. 2018): as GPT-2, but LayerNorm after each residual sum and none at the end."""
    own = {**_GPT, "layout": "openai-gpt", "norm_place": "post"}
    return _preset(own, vocab_size, width, layers, heads, inner, context, options)


PRESETS: dict[str, Callable[..., DecoderConfig]] = {
    "llama": llama_config,
    "qwen2": qwen2_config,
    "qwen3": qwen3_config,
    "mixtral": mixtral_config,
    "qwen3_moe": qwen3_moe_config,
    "gpt2": gpt2_config,
    "openai-gpt": gpt1_config,
}
"""The families by the name of their Hugging Face layout."""


def _preset(
    own: dict[str, object],
    vocab_size: int,
    width: int,
    layers: int,
    heads: int,
    inner: int,
    context: int,
    options: dict[str, object],
) -> DecoderConfig:
    if width % heads and "head_width" not in options:
        raise UsageError(f"width {width} is not a multiple of {heads} heads: change one, or give head_width.")
    fields = {"kv_heads": heads, "head_width": width // heads, **own, **options}
    shape = {"vocab_size": vocab_size, "width": width, "layers": layers, "heads": heads}
    return DecoderConfig(**shape, inner=inner, context=context, **fields)  # type: ignore[arg-type]


class Block(nn.Module):
    """Attention and a feed-forward layer, each added to the stream x.

    Norm first (GPT-2 onwards): x + f(norm(x)). Norm after (GPT-1): norm(x + f(x)).
    """

    def __init__(self, config: DecoderConfig, layer: int = 0):
        super().__init__()
        self.attention_norm = build_norm(config.norm, config.width, config.norm_eps)
        self.attention = Attention(config)
        self.mlp_norm = build_norm(config.norm, config.width, config.norm_eps)
        mlp = SwiGLU if config.activation == "swiglu" else GeluMLP
        if config.experts is not None and layer in config.mixed:
            self.mlp = Mixture(config.experts, config.width)
        else:
            self.mlp = mlp(config.width, config.inner, config.mlp_bias)
        self.dropout, self.post = config.dropout, config.norm_place == "post"

    def forward(self, x_BTD: Tensor, view: View, layer: int) -> Tensor:
        """One layer of the decoder."""
        if self.post:
            x_BTD = self.attention_norm(x_BTD + self._drop(self.attention(x_BTD, view, layer)))
            return self.mlp_norm(x_BTD + self._drop(self._feed(x_BTD, view, layer)))
        x_BTD = x_BTD + self._drop(self.attention(self.attention_norm(x_BTD), view, layer))
        return x_BTD + self._drop(self._feed(self.mlp_norm(x_BTD), view, layer))

    def _feed(self, x_BTD: Tensor, view: View, layer: int) -> Tensor:
        return self.mlp(x_BTD, view.routes, layer) if isinstance(self.mlp, Mixture) else self.mlp(x_BTD)

    def _drop(self, x_BTD: Tensor) -> Tensor:
        return drop(x_BTD, self.dropout) if self.training and self.dropout else x_BTD


INTO_STREAM = ("attention.out.weight", "mlp.down.weight", "mlp.experts.down")
"""What the weights that write into the residual stream are called."""


class Decoder(nn.Module):
    """A causal language model: tokens to hidden states to logits.

    `decoder(token_BT)` gives the hidden states after the last norm; `decoder.logits(hidden)` the scores of the next
    token. Right padding is harmless: no token sees what follows it. Dropout acts in `train()` mode only.
    """

    def __init__(self, config: DecoderConfig):
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocab_size, config.width)
        self.position = self.rotary = None
        if config.position == "learned":
            self.position = nn.Embedding(config.context, config.width)
        else:
            self.rotary = Rotary(config.head_width, config.context, config.rope_theta, config.rope_scaling)
        self.blocks = nn.ModuleList(Block(config, layer) for layer in range(config.layers))
        last = config.norm_place == "pre"
        self.norm = build_norm(config.norm, config.width, config.norm_eps) if last else None
        self.head = None if config.tied else nn.Linear(config.width, config.vocab_size, bias=False)

    @property
    def head_weight(self) -> Tensor:
        """The output layer's weight [V, D]; the embedding when they are tied."""
        return self.embedding.weight if self.head is None else self.head.weight

    @property
    def device(self) -> torch.device:
        """Where the parameters live."""
        return self.embedding.weight.device

    @property
    def dtype(self) -> torch.dtype:
        """The parameters' type."""
        return self.embedding.weight.dtype

    def forward(
        self,
        token_BT: Int[Tensor, "B T"],
        position_BT: Int[Tensor, "B T"] | None = None,
        *,
        segment_BT: Int[Tensor, "B T"] | None = None,
        cache: KeyValueCache | None = None,
        rows: Rows = None,
        ragged: Ragged | None = None,
        routes: Routes | None = None,
    ) -> Float[Tensor, "B T D"]:
        """Hidden states after the last norm, [B, T, D].

        position_BT: positions of the tokens; None means 0..T-1, or with a cache the next of each row.
        segment_BT: documents packed into one row; attention does not cross from one to another (not with a cache).
        cache, rows: append the tokens to these slots of the cache (None: slots 0..B-1) and see what they hold.
        Positions given with a cache set the rows' lengths first (the first of each row counts; the others follow
        it). No gradient flows through a cache.
        ragged: the tokens [1, N] are prompts and their completions one after another (see `lay_out`).
        routes: what mixtures of experts are told, and where they say which experts they took.
        Raises UsageError when the sequence is longer than `config.context`.
        """
        if ragged is not None:
            rotation = None if self.rotary is None else self.rotary.at(ragged.position_1N)
            return self._read(token_BT, View(rotation, ragged=ragged, routes=routes), ragged.position_1N)
        if cache is None:
            view = self._view(token_BT, position_BT, segment_BT)
            return self._read(token_BT, replace(view, routes=routes), position_BT)
        if segment_BT is not None:
            raise UsageError(
                "packed documents (segment_BT) cannot be read through a cache: give one row each."
            )
        count, width = token_BT.shape
        starts = None if position_BT is None else position_BT[:, 0].tolist()
        step = cache.plan(rows, count, width, starts)
        hidden_BTD = self.forward_step(token_BT, cache, step, routes)
        cache.advance(rows, count, width)
        return hidden_BTD

    @torch.no_grad()
    def forward_step(
        self, token_BT: Int[Tensor, "B T"], cache: KeyValueCache, step: Step, routes: Routes | None = None
    ) -> Float[Tensor, "B T D"]:
        """One planned pass through a cache (`cache.plan`); `cache.lengths` are left to the caller."""
        rotation, position_BT = None, step.position_BT
        if self.rotary is not None:
            if step.start is not None:
                rotation = self.rotary.between(step.start, step.start + token_BT.shape[1])
            else:
                assert position_BT is not None
                rotation = self.rotary.at(position_BT)
        elif position_BT is None:
            assert step.start is not None
            position_BT = torch.arange(step.start, step.start + token_BT.shape[1], device=token_BT.device)
        return self._read(token_BT, View(rotation, None, cache, step, routes=routes), position_BT)

    def _view(self, token_BT: Tensor, position_BT: Tensor | None, segment_BT: Tensor | None) -> View:
        width = token_BT.shape[1]
        if width > self.config.context:
            raise UsageError(
                f"a sequence of {width} tokens does not fit the model's context of {self.config.context}: "
                "shorten it, or use a model with a longer context."
            )
        rotation = mask = None
        if self.rotary is not None:
            rotation = self.rotary.between(0, width) if position_BT is None else self.rotary.at(position_BT)
        if segment_BT is not None:
            same_BTT = segment_BT[:, :, None] == segment_BT[:, None, :]
            mask = same_BTT.tril()[:, None]
        return View(rotation, mask)

    def _read(self, token_BT: Tensor, view: View, position_BT: Tensor | None) -> Tensor:
        x_BTD = self.embedding(token_BT)
        if self.position is not None:
            if position_BT is None:
                x_BTD = x_BTD + self.position.weight[: token_BT.shape[1]]
            else:
                x_BTD = x_BTD + self.position(position_BT)
        if self.training and self.config.dropout:
            x_BTD = drop(x_BTD, self.config.dropout)
        for layer, block in enumerate(self.blocks):
            x_BTD = block(x_BTD, view, layer)
        return x_BTD if self.norm is None else self.norm(x_BTD)

    def logits(self, hidden: Float[Tensor, "*N D"]) -> Float[Tensor, "*N V"]:
        """Scores of the next token, [..., V]."""
        return F.linear(hidden, self.head_weight)

    @torch.no_grad()
    def initialise(self, seed: int) -> Decoder:
        """Draw fresh weights: N(0, 0.02), projections into the residual stream scaled by 1/sqrt(2 L) (GPT-2; not where
        the norm comes after the sum, as in GPT-1).

        Noisy gates start at zero: no signal and some noise (Shazeer et al. 2017, appendix A).

        The draw depends on the seed and the configuration only: not on the device, the dtype or global state.
        """
        generator = torch.Generator().manual_seed(seed)
        residual = 0.02 if self.config.norm_place == "post" else 0.02 / (2 * self.config.layers) ** 0.5
        for name, parameter in self.named_parameters():
            if parameter.ndim < 2:
                parameter.fill_(1.0 if "norm" in name and name.endswith("weight") else 0.0)
            elif self.config.experts is not None and self.config.experts.noisy and "gate." in name:
                parameter.zero_()
            else:
                scale = residual if name.endswith(INTO_STREAM) else 0.02
                draw = torch.randn(parameter.shape, generator=generator, dtype=torch.float32)
                parameter.copy_(draw * scale)
        return self


def active_parameters(config: DecoderConfig) -> int:
    """Parameters that one token meets: all but the experts that it is not sent to."""
    whole, experts = parameter_count(config), config.experts
    if experts is None:
        return whole
    one = config.width * experts.inner * (3 if experts.activation == "swiglu" else 2)
    return whole - len(config.mixed) * (experts.count - experts.active) * one


def parameter_count(config: DecoderConfig) -> int:
    """Parameters of a decoder of this shape; tied weights count once, and nothing is allocated."""
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in Decoder(config).parameters())
