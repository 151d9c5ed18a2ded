"""A pre-trained model with a linear head: the heads that fine-tuning shares, whatever the model below them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from lineal.models.attention import Attention
from lineal.models.decoder import Block, Decoder
from lineal.models.dropout import Masks
from lineal.models.heads import LinearHead
from lineal.ops.smoothing import smoothed_loss


@dataclass(frozen=True)
class Inputs:
    """Sequences of several rows, padded on the right with 0.

    mask_NT: False in the padding. segment_NT: 1 in the second of two texts, else 0. read_NT: where a state is read by a head
    that reads several (each word's piece, each place where an answer may begin). each: sequences per row, where all rows have
    as many.
    """

    token_NT: Int[Tensor, "N T"]
    mask_NT: Bool[Tensor, "N T"]
    segment_NT: Int[Tensor, "N T"]
    read_NT: Bool[Tensor, "N T"]
    each: int = 1

    @property
    def last_N(self) -> Int[Tensor, " N"]:
        """Where each sequence's last token stands."""
        return self.mask_NT.sum(1) - 1


class Body(nn.Module):
    """A pre-trained model as fine-tuning uses it: states of tokens, one state of a sequence, and its layers in order.

    width: of a token's state. pooled_width: of a sequence's. auxiliary: the weight of the language-modelling loss that is
    usual for it. masks: where dropout comes from while it is trained; a body whose dropout follows torch's generator
    leaves it alone.
    """

    width: int
    pooled_width: int
    context: int
    vocab_size: int
    layer_count: int
    auxiliary: float = 0.0
    masks: Masks | None = None

    def forward(self, inputs: Inputs) -> Float[Tensor, "N T D"]:
        """The last layer's state of every token."""
        raise NotImplementedError

    def pooled(self, hidden_NTD: Float[Tensor, "N T D"], inputs: Inputs) -> Float[Tensor, "N S"]:
        """One state of each sequence."""
        raise NotImplementedError

    def language_loss(self, hidden_NTD: Float[Tensor, "N T D"], inputs: Inputs) -> Float[Tensor, ""]:
        """Σ over sequences of the mean over their tokens of -log p(token | those before); only where that is usual."""
        raise NotImplementedError

    def layer_states(self, inputs: Inputs) -> list[Float[Tensor, "N T D"]]:
        """The embeddings and then the output of each layer."""
        raise NotImplementedError

    def stages(self) -> list[list[str]]:
        """The names of the parameters, layer by layer from the lowest (the embeddings) to the highest."""
        raise NotImplementedError

    def set_dropout(self, rate: float) -> None:
        """The dropout of embeddings, sums and attention, whatever the model was trained with."""
        raise NotImplementedError

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device


class FineTuned(nn.Module):
    """W dropout(state) + b on the states that a task reads.

    classification, pair: one state per row. similarity: the sum of the states of both orders  (Radford et al. 2018, section
    3.3). choice: one score per sequence, softmax over a row's. tagging: each word's state. span: two scores per token, where
    an answer begins and where it ends  (Devlin et al. 2018, section 4.2).
    """

    def __init__(self, body: Body, kind: str, outputs: int, dropout: float, seed: int = 0):
        super().__init__()
        self.body, self.kind = body, kind
        width = body.width if kind in ("tagging", "span") else body.pooled_width
        self.head = LinearHead(width, outputs, dropout, seed)

    def forward(self, inputs: Inputs) -> tuple[Float[Tensor, "M C"], Float[Tensor, "N T D"]]:
        """Scores of M decisions over C classes (1 for a score), and the hidden states.

        M is the rows; of tagging the words; of span two per sequence, over its positions.
        """
        hidden_NTD = self.body(inputs)
        if self.kind == "tagging":
            return self.head(hidden_NTD[inputs.read_NT]), hidden_NTD
        if self.kind == "span":
            score_N2T = self.head(hidden_NTD).transpose(1, 2)
            score_N2T = score_N2T.masked_fill(~inputs.read_NT[:, None], -torch.inf)
            return score_N2T.flatten(0, 1), hidden_NTD
        state_NS = self.body.pooled(hidden_NTD, inputs)
        if self.kind == "choice":
            return self.head(state_NS).view(-1, inputs.each), hidden_NTD
        return self.head(state_NS.view(-1, inputs.each, state_NS.shape[-1]).sum(1)), hidden_NTD


class DecoderBody(Body):
    """A decoder as GPT-1 is fine-tuned: the state of the last token, and next-token prediction beside the task."""

    auxiliary = 0.5

    def __init__(self, decoder: Decoder):
        super().__init__()
        self.decoder = decoder
        self.width = self.pooled_width = decoder.config.width
        self.context, self.vocab_size = decoder.config.context, decoder.config.vocab_size
        self.layer_count = decoder.config.layers

    def forward(self, inputs: Inputs) -> Float[Tensor, "N T D"]:
        """The last layer's state of every token, each seeing those before it."""
        return self.decoder(inputs.token_NT)

    def pooled(self, hidden_NTD: Float[Tensor, "N T D"], inputs: Inputs) -> Float[Tensor, "N S"]:
        """The state of the last token  (Radford et al. 2018, eq. 3)."""
        return hidden_NTD[torch.arange(len(hidden_NTD), device=hidden_NTD.device), inputs.last_N]

    def language_loss(self, hidden_NTD: Float[Tensor, "N T D"], inputs: Inputs) -> Float[Tensor, ""]:
        """Σ over sequences of the mean over their tokens but the first of -log p(token | those before)."""
        counted_NT = inputs.mask_NT[:, 1:]
        hidden_MD, target_M = hidden_NTD[:, :-1][counted_NT], inputs.token_NT[:, 1:][counted_NT]
        wide = torch.promote_types(hidden_MD.dtype, torch.float32)
        share_M = (1 / counted_NT.sum(1, keepdim=True, dtype=wide)).expand(counted_NT.shape)[counted_NT]
        half = torch.is_autocast_enabled(hidden_MD.device.type)
        weight_VD = self.decoder.head_weight
        return smoothed_loss(hidden_MD, weight_VD, target_M, half=half, share_N=share_M)[0]

    def layer_states(self, inputs: Inputs) -> list[Float[Tensor, "N T D"]]:
        """The embeddings, the output of each block, the last one after the last norm."""
        found: list[Tensor] = []
        blocks = list(self.decoder.blocks)
        hooks = [blocks[0].register_forward_pre_hook(lambda _, given: found.append(given[0]))]
        hooks += [block.register_forward_hook(lambda *given: found.append(given[2])) for block in blocks[:-1]]
        try:
            last_NTD = self.decoder(inputs.token_NT)
        finally:
            for hook in hooks:
                hook.remove()
        return [*found, last_NTD]

    def stages(self) -> list[list[str]]:
        """Embeddings and positions, each block, and the last norm with the topmost block."""
        names = [name for name, _ in self.named_parameters()]
        blocks = [
            [name for name in names if name.startswith(f"decoder.blocks.{i}.")]
            for i in range(self.decoder.config.layers)
        ]
        inside = {name for block in blocks for name in block}
        outside = [name for name in names if name not in inside]
        top = [name for name in outside if "norm" in name]
        blocks[-1] += top
        return [[name for name in outside if name not in top], *blocks]

    def set_dropout(self, rate: float) -> None:
        """The dropout of embeddings, sums and attention."""
        self.decoder.config = replace(self.decoder.config, dropout=rate)
        for block in self.decoder.modules():
            if isinstance(block, Block | Attention):
                block.dropout = rate


@torch.no_grad()
def widened(decoder: Decoder, vocab_size: int, seed: int) -> Decoder:
    """The decoder with room for more tokens, whose embeddings are drawn from N(0, 0.02)."""
    have = decoder.config.vocab_size
    if have >= vocab_size:
        return decoder
    wider = Decoder(replace(decoder.config, vocab_size=vocab_size)).to(decoder.dtype)
    generator = torch.Generator().manual_seed(seed)
    present = dict(decoder.named_parameters())
    for name, parameter in wider.named_parameters():
        old = present[name]
        if old.shape == parameter.shape:
            parameter.copy_(old)
        else:
            new = 0.02 * torch.randn(parameter.shape, generator=generator)
            parameter.copy_(new)
            parameter[:have] = old
    return wider
