"""A bidirectional LSTM that tags words, given vectors of its own and features of other models."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from lineal.models.elmo import reversed_places


class Tagger(nn.Module):
    """softmax(W [forward; backward] + b) for each word, the LSTMs reading [own vector; features].

    Id 0 of the words is any that the training sentences lack. features: their width, 0 for none.
    """

    def __init__(
        self, words: int, tags: int, word_width: int, lstm_width: int, features: int, dropout: float
    ):
        super().__init__()
        self.embedding = nn.Embedding(words, word_width)
        width = word_width + features
        self.ahead = nn.LSTM(width, lstm_width, batch_first=True)
        self.back = nn.LSTM(width, lstm_width, batch_first=True)
        self.linear = nn.Linear(2 * lstm_width, tags)
        self.dropout = dropout

    def forward(
        self,
        word_BT: Int[Tensor, "B T"],
        mask_BT: Bool[Tensor, "B T"],
        feature_BTF: Float[Tensor, "B T F"] | None = None,
    ) -> Float[Tensor, "B T C"]:
        """Scores of each tag; what stands in the padding (mask_BT False, after all words) changes nothing."""
        x_BTD = self.embedding(word_BT)
        if feature_BTF is not None:
            x_BTD = torch.cat([x_BTD, feature_BTF], -1)
        x_BTD = F.dropout(x_BTD, self.dropout, self.training)
        row_B1 = torch.arange(len(word_BT), device=word_BT.device)[:, None]
        turned_BT = reversed_places(mask_BT)
        ahead_BTD, _ = self.ahead(x_BTD)
        back_BTD, _ = self.back(x_BTD[row_B1, turned_BT])
        both_BTD = torch.cat([ahead_BTD, back_BTD[row_B1, turned_BT]], -1)
        return self.linear(F.dropout(both_BTD, self.dropout, self.training))

    @torch.no_grad()
    def initialise(self, seed: int) -> Tagger:
        """Embeddings N(0, 0.1), matrices uniform in +-1/sqrt(inputs), biases 0 but for the forget gates' 1."""
        generator = torch.Generator().manual_seed(seed)
        for name, parameter in self.named_parameters():
            if name == "embedding.weight":
                parameter.copy_(0.1 * torch.randn(parameter.shape, generator=generator))
            elif parameter.ndim < 2:
                parameter.zero_()
                if "bias_ih" in name:
                    parameter.chunk(4)[1].fill_(1.0)
            else:
                draw = torch.rand(parameter.shape, generator=generator)
                parameter.copy_((2 * draw - 1) * parameter.shape[-1] ** -0.5)
        return self
