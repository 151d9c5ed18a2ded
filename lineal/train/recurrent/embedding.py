"""Texts as vectors from recurrent readers: the outputs of an AWD-LSTM, and the layers of ELMo."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from lineal.errors import DataError, UsageError
from lineal.generate.prefill import evaluating
from lineal.models.awd_lstm import AWDLSTM
from lineal.models.documents import DocumentReader, Pieces, TwoLayerHead
from lineal.models.elmo import BiLM
from lineal.models.hf.awd import is_awd, load_awd
from lineal.models.hf.elmo import load_elmo
from lineal.tokenizers import Tokenizer, load_tokenizer
from lineal.train.embedding import Near
from lineal.train.finetune.inputs import micro_batches
from lineal.train.recurrent.corpus import sentences
from lineal.train.recurrent.predictor import pooled_of
from lineal.train.tagging.features import layers_of_sentences


@dataclass
class DocumentEmbedder(Near):
    """The mean or the last output of an AWD-LSTM over a text, both directions side by side where there are two."""

    models: dict[str, AWDLSTM]
    tokenizer: Tokenizer
    pooling: str = "mean"
    token_budget: int = 8192

    def __call__(self, texts: Sequence[str]) -> Float[Tensor, "N E"]:
        """One vector for each text, float32 on the CPU."""
        mark = [] if self.tokenizer.eos_id is None else [self.tokenizer.eos_id]
        rows = [[*mark, *self.tokenizer.encode(text), *mark] for text in texts]
        widths = [model.config.width for model in self.models.values()]
        found_NE = torch.zeros(len(rows), sum(widths))
        # The head is not used: a reader needs one to be whole.
        readers = {
            d: DocumentReader(m, TwoLayerHead(1, 1, 1), self.pooling).eval() for d, m in self.models.items()
        }
        with torch.no_grad():
            for group in micro_batches([[row] for row in rows], self.token_budget):
                part = [rows[i] for i in group]
                vectors = [pooled_of(reader, part, d, Pieces(140, 0)) for d, reader in readers.items()]
                found_NE[group] = torch.cat(vectors, -1).float().cpu()
        return found_NE


@dataclass
class SentenceEmbedder(Near):
    """The mean over a text's words of ELMo's layers, those asked for side by side; or its last word's."""

    model: BiLM
    pooling: str = "mean"
    layers: tuple[int, ...] = (-1,)

    def __post_init__(self) -> None:
        count = self.model.config.layers
        for layer in self.layers:
            if not -count - 1 <= layer <= count:
                raise UsageError(
                    f"--layers {layer}: the model has {count} (0 is its words without context, -1 its last layer)."
                )

    def __call__(self, texts: Sequence[str]) -> Float[Tensor, "N E"]:
        """One vector for each text, float32 on the CPU; each of its sentences is read by itself."""
        found = []
        with evaluating(self.model), torch.no_grad():
            for text in texts:
                rows = [tuple(words) for words in sentences(text)]
                if not rows:
                    raise DataError(f"there is no word in {text[:40]!r}: it has no vector.")
                layers, mask_BT = layers_of_sentences(self.model, rows)
                state_NE = torch.cat([layers[i] for i in self.layers], -1)[mask_BT].float().cpu()
                found.append(state_NE[-1] if self.pooling == "last" else state_NE.mean(0))
        width = self.model.config.width * len(self.layers)
        return torch.stack(found) if found else torch.zeros(0, width)


def load_recurrent_embedder(folder: Path, device: str, pooling: str, layers: tuple[int, ...]) -> Near:
    """The models of a folder as a source of vectors; UsageError for a pooling or a layer that they do not have."""
    if pooling not in ("mean", "last"):
        raise UsageError(f"--pooling {pooling}: a recurrent model has mean and last.")
    if not is_awd(folder):
        return SentenceEmbedder(load_elmo(folder).to(device), pooling, layers)
    if layers != (-1,):
        raise UsageError("--layers: of an AWD-LSTM only the last layer's outputs are given.")
    models = {d: model.to(device) for d, model in load_awd(folder).items()}
    return DocumentEmbedder(models, load_tokenizer(folder), pooling)
