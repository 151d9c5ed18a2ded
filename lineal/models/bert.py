"""BERT: an encoder that sees both sides of every token, pre-trained to fill in words and to tell what follows.

Devlin, Chang, Lee and Toutanova, 2018, https://arxiv.org/abs/1810.04805.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from lineal.errors import ModelError
from lineal.models.finetuned import Body, Inputs
from lineal.models.layers import LayerNorm
from lineal.models.multihead import Pass
from lineal.models.transformer import ACTIVATIONS, EncoderLayer


@dataclass(frozen=True)
class BertConfig:
    """The shape of an encoder; the defaults are the paper's base model.

    dropout: of embeddings and of each sublayer's output; attention_dropout: of the attention weights. context: longest
    sequence, special tokens counted. segments: kinds of text (the paper: the first and the second). pad: the id that fills
    short rows; nothing looks at it. norm_eps, activation: as in the authors' code (1e-12; GELU by the error function).
    """

    vocab_size: int
    width: int = 768
    inner: int = 3072
    heads: int = 12
    layers: int = 12
    context: int = 512
    segments: int = 2
    dropout: float = 0.1
    attention_dropout: float = 0.1
    norm_eps: float = 1e-12
    activation: str = "gelu"
    pad: int = 0
    layout: str = "bert"

    attention_bias = True
    """Of all projections of attention."""

    def __post_init__(self) -> None:
        for name in ("vocab_size", "width", "inner", "heads", "layers", "context", "segments"):
            if getattr(self, name) < 1:
                raise ModelError(f"{name} must be at least 1; {getattr(self, name)} was given.")
        if self.width % self.heads:
            raise ModelError(f"width {self.width} must be a multiple of heads, {self.heads}.")
        if self.activation not in ACTIVATIONS:
            raise ModelError(f"activation {self.activation!r} is not one of {', '.join(ACTIVATIONS)}.")
        for name in ("dropout", "attention_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise ModelError(f"{name} {getattr(self, name)}: a dropout is at least 0 and below 1.")
        if not 0 <= self.norm_eps < 1 or not 0 <= self.pad < self.vocab_size:
            raise ModelError(
                f"norm_eps {self.norm_eps} or pad {self.pad} cannot be: a small number, and a token."
            )


class Bert(nn.Module):
    """norm(E[token] + P[position] + S[segment]), L layers norm(x + sublayer(x)), and the two heads of pre-training.

    Rows are padded on the right. The output layer of the masked words shares the embedding's matrix.
    """

    def __init__(self, config: BertConfig):
        super().__init__()
        self.config = config
        width = config.width
        self.embedding = nn.Embedding(config.vocab_size, width)
        self.position = nn.Embedding(config.context, width)
        self.segment = nn.Embedding(config.segments, width)
        self.norm = LayerNorm(width, config.norm_eps)
        self.layers = nn.ModuleList(EncoderLayer(config) for _ in range(config.layers))
        self.pooler = nn.Linear(width, width)
        self.transform = nn.Linear(width, width)
        self.transform_norm = LayerNorm(width, config.norm_eps)
        self.word_bias = nn.Parameter(torch.zeros(config.vocab_size))
        self.next_head = nn.Linear(width, 2)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.embedding.weight.device

    def initialise(self, seed: int) -> Bert:
        """Matrices and embeddings from N(0, 0.02) cut off at two standard deviations, zero biases, gains of one."""
        made = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for name, weight in self.named_parameters():
                if weight.ndim < 2:
                    weight.fill_(1.0 if name.endswith("norm.weight") else 0.0)
                else:
                    nn.init.trunc_normal_(weight, 0.0, 0.02, -0.04, 0.04, generator=made)
        return self

    def embed(
        self, token_BT: Int[Tensor, "B T"], segment_BT: Int[Tensor, "B T"], going: Pass
    ) -> Float[Tensor, "B T D"]:
        """What the first layer sees."""
        count = token_BT.shape[1]
        if count > self.config.context:
            raise ModelError(
                f"{count} tokens are more than the {self.config.context} that this model takes: cut the text."
            )
        x_BTD = self.embedding(token_BT) + self.position.weight[:count] + self.segment(segment_BT)
        return going.drop(self.norm(x_BTD), self.config.dropout)

    def states(
        self,
        token_BT: Int[Tensor, "B T"],
        segment_BT: Int[Tensor, "B T"],
        mask_BT: Bool[Tensor, "B T"] | None = None,
        going: Pass | None = None,
    ) -> Iterator[Float[Tensor, "B T D"]]:
        """The embeddings and then the output of each layer; mask_BT: False in the padding, None where there is none."""
        going = going or Pass()
        hidden = None
        if mask_BT is not None and not mask_BT.all():
            hidden = torch.zeros(mask_BT.shape, device=token_BT.device).masked_fill(~mask_BT, -torch.inf)
            hidden = hidden[:, None, None]
        x_BTD = self.embed(token_BT, segment_BT, going)
        yield x_BTD
        for layer in self.layers:
            x_BTD = layer(x_BTD, hidden, going)
            yield x_BTD

    def forward(
        self,
        token_BT: Int[Tensor, "B T"],
        segment_BT: Int[Tensor, "B T"],
        mask_BT: Bool[Tensor, "B T"] | None = None,
        going: Pass | None = None,
    ) -> Float[Tensor, "B T D"]:
        """The last layer's states; going: dropout, in training."""
        *_, hidden_BTD = self.states(token_BT, segment_BT, mask_BT, going)
        return hidden_BTD

    def pooled(self, hidden_BTD: Float[Tensor, "B T D"]) -> Float[Tensor, "B D"]:
        """tanh(W h + b) of the first token's state."""
        return torch.tanh(self.pooler(hidden_BTD[:, 0]))

    def words(self, hidden: Float[Tensor, "*N D"]) -> Float[Tensor, "*N V"]:
        """norm(gelu(W h + b)) E' + b: scores of the word at each of these states, and at no other."""
        return F.linear(self.word_states(hidden), self.embedding.weight, self.word_bias)

    def word_states(self, hidden: Float[Tensor, "*N D"]) -> Float[Tensor, "*N D"]:
        """norm(gelu(W h + b)): what the words' embeddings are multiplied with."""
        return self.transform_norm(ACTIVATIONS[self.config.activation](self.transform(hidden)))

    def follows(self, pooled_BD: Float[Tensor, "B D"]) -> Float[Tensor, "B 2"]:
        """Scores of: the second text follows the first; it was taken from anywhere."""
        return self.next_head(pooled_BD)


HEADS = ("transform", "transform_norm", "word_bias", "next_head")
"""The parts of pre-training alone; fine-tuning leaves them as they are."""


class BertBody(Body):
    """An encoder as it is fine-tuned: the pooled first token, or each token's last state."""

    def __init__(self, encoder: Bert):
        super().__init__()
        self.encoder = encoder
        self.width = self.pooled_width = encoder.config.width
        self.context, self.vocab_size = encoder.config.context, encoder.config.vocab_size
        self.layer_count = encoder.config.layers
        for name, parameter in encoder.named_parameters():
            if name.split(".")[0] in HEADS:
                parameter.requires_grad_(False)

    def forward(self, inputs: Inputs) -> Float[Tensor, "N T D"]:
        """The last layer's states, each seeing the whole sequence."""
        going = Pass(self.masks if self.training else None)
        return self.encoder(inputs.token_NT, inputs.segment_NT, inputs.mask_NT, going)

    def pooled(self, hidden_NTD: Float[Tensor, "N T D"], inputs: Inputs) -> Float[Tensor, "N S"]:
        """tanh(W h + b) of [CLS]."""
        return self.encoder.pooled(hidden_NTD)

    def layer_states(self, inputs: Inputs) -> list[Float[Tensor, "N T D"]]:
        """The embeddings and then the output of each layer."""
        return list(self.encoder.states(inputs.token_NT, inputs.segment_NT, inputs.mask_NT))

    def stages(self) -> list[list[str]]:
        """Embeddings, each layer, and the pooler with the topmost."""
        names = [name for name, parameter in self.named_parameters() if parameter.requires_grad]
        layers = [
            [name for name in names if name.startswith(f"encoder.layers.{i}.")]
            for i in range(self.encoder.config.layers)
        ]
        layers[-1] += [name for name in names if ".pooler." in name]
        inside = {name for layer in layers for name in layer}
        return [[name for name in names if name not in inside], *layers]

    def set_dropout(self, rate: float) -> None:
        """The dropout of embeddings, sums and attention."""
        self.encoder.config = replace(self.encoder.config, dropout=rate, attention_dropout=rate)
        for layer in self.encoder.layers:
            assert isinstance(layer, EncoderLayer)
            layer.dropout = layer.attention.dropout = rate
