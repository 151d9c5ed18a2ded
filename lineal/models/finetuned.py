"""A decoder with a linear head on one token's hidden state: what GPT-1 becomes when it is fine-tuned."""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from lineal.models.decoder import Decoder
from lineal.models.heads import LinearHead


class FineTuned(nn.Module):
    """softmax(h W_y): class scores from the last layer's state of the extract token  (Radford et al. 2018, eq. 3).

    kind: how the sequences of a row become its scores: "similarity" adds their states, "choice" scores each of them.
    """

    def __init__(self, decoder: Decoder, kind: str, outputs: int, dropout: float, seed: int = 0):
        super().__init__()
        self.decoder, self.kind = decoder, kind
        self.head = LinearHead(decoder.config.width, outputs, dropout, seed)

    def forward(
        self, token_NT: Int[Tensor, "N T"], last_N: Int[Tensor, " N"], each: int
    ) -> tuple[Float[Tensor, "B C"], Float[Tensor, "N T D"]]:
        """Scores [B, C] of rows of `each` sequences (C classes or choices; 1 for a score), and the hidden states."""
        hidden_NTD = self.decoder(token_NT)
        state_ND = hidden_NTD[torch.arange(len(token_NT), device=token_NT.device), last_N]
        if self.kind == "choice":
            return self.head(state_ND).view(-1, each), hidden_NTD
        return self.head(state_ND.view(-1, each, state_ND.shape[-1]).sum(1)), hidden_NTD

    def language_loss(
        self, hidden_NTD: Float[Tensor, "N T D"], token_NT: Int[Tensor, "N T"], mask_NT: Bool[Tensor, "N T"]
    ) -> Float[Tensor, " N"]:
        """Mean over each sequence's tokens but the first of -log p(token | those before)."""
        counted_NT = mask_NT[:, 1:]
        logits_MV = self.decoder.logits(hidden_NTD[:, :-1][counted_NT])
        loss_M = F.cross_entropy(logits_MV.float() if logits_MV.dtype == torch.bfloat16 else logits_MV,
                                 token_NT[:, 1:][counted_NT], reduction="none")  # fmt: skip
        loss_NT = torch.zeros(counted_NT.shape, dtype=loss_M.dtype, device=loss_M.device)
        loss_NT = loss_NT.masked_scatter(counted_NT, loss_M)
        return loss_NT.sum(1) / counted_NT.sum(1)


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
