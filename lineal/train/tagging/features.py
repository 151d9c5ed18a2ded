"""What a tagger knows of words beside vectors of its own: nothing, a fixed vector each, or ELMo's layers."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from lineal.models.char_cnn import BOS, EOS, character_ids
from lineal.models.elmo import BiLM, ScalarMix
from lineal.models.hf.elmo import load_elmo
from lineal.representations.files import load_vectors
from lineal.representations.vectors import Vectors
from lineal.train.build import model_folder
from lineal.train.tagging.options import TagOptions

Words = tuple[str, ...]
TOGETHER = 32
"""Sentences that are read at once for the cache."""


def layers_of_sentences(model: BiLM, rows: Sequence[Words]) -> tuple[list[Tensor], Bool[Tensor, "B T"]]:
    """h_0 .. h_L, [B, T, W] each, of sentences of words, and where there are words.

    Each is read between <S> and </S>, as the model was trained, whose own outputs are taken away again.
    """
    longest = max(map(len, rows)) + 2
    types: dict[str, int] = {BOS: 0, EOS: 1}
    type_BT = torch.zeros(len(rows), longest, dtype=torch.int64)
    for row, words in zip(type_BT, rows, strict=True):
        marked = (BOS, *words, EOS)
        row[: len(marked)] = torch.tensor([types.setdefault(word, len(types)) for word in marked])
    length_B1 = torch.tensor([[len(words) + 2] for words in rows])
    mask_BT = (torch.arange(longest) < length_B1).to(model.device)
    word_UD = model.words(character_ids(list(types), model.config.characters.max_characters).to(model.device))
    layers = model.layers_of(word_UD[type_BT.to(model.device)], mask_BT)
    return [layer[:, 1:-1] for layer in layers], mask_BT[:, 2:]


class ElmoFeatures(nn.Module):
    """gamma sum_j s_j h_j of sentences, for any model: frozen (the layers are then read once per sentence and kept) or
    trained with it (tune).

    The last bits of a sentence's layers depend on those that are read beside it. Whoever trains with frozen layers calls `keep`
    with all sentences first, so that they are the same after a resume.
    """

    def __init__(self, model: BiLM, normalise: bool = False, tune: bool = False):
        super().__init__()
        self.model, self.tune = model.requires_grad_(tune), tune
        self.mix = ScalarMix(model.config.layers + 1, normalise)
        self.width = model.config.width
        self._kept: dict[Words, Tensor] = {}

    def forward(self, rows: Sequence[Words]) -> Float[Tensor, "B T F"]:
        """The mixture for each word; zeros in the padding."""
        if self.tune:
            layers, mask_BT = layers_of_sentences(self.model, rows)
            return self.mix(layers) * mask_BT[..., None]
        self.keep(rows)
        longest = max(map(len, rows))
        layers_LBTF = torch.zeros(
            len(self.mix.score), len(rows), longest, self.width, device=self.model.device
        )
        layers_LBTF = layers_LBTF.to(self.mix.score.dtype)
        for i, words in enumerate(rows):
            layers_LBTF[:, i, : len(words)] = self._kept[words].to(layers_LBTF)
        return self.mix(list(layers_LBTF))

    def keep(self, rows: Sequence[Words]) -> None:
        """Read the sentences that were not read yet, in an order of their own; nothing where the model is trained."""
        new = set() if self.tune else {words for words in rows if words not in self._kept}
        new = sorted(new, key=lambda words: (len(words), words))
        with torch.no_grad():
            self.model.eval()
            for start in range(0, len(new), TOGETHER):
                part = new[start : start + TOGETHER]
                layers, _ = layers_of_sentences(self.model, part)
                stacked_LBTF = torch.stack(layers).cpu()
                for i, words in enumerate(part):
                    self._kept[words] = stacked_LBTF[:, i, : len(words)].clone()


class StaticFeatures(nn.Module):
    """One fixed vector per word: of a table, as the word stands or else in lower case, 0 for words that it lacks; or of a
    biLM's characters alone."""

    def __init__(self, source: Vectors | BiLM):
        super().__init__()
        self.width = source.dimensions if isinstance(source, Vectors) else source.config.projection
        # In a list: its weights are no part of the tagger's.
        self._source = [source]
        self._found: dict[str, Tensor] = {}
        self.place: Tensor
        self.register_buffer("place", torch.zeros(0), persistent=False)

    def forward(self, rows: Sequence[Words]) -> Float[Tensor, "B T F"]:
        """The vector of each word; zeros in the padding."""
        self.keep(rows)
        found_BTF = torch.zeros(len(rows), max(map(len, rows)), self.width, dtype=self.place.dtype)
        for i, words in enumerate(rows):
            for t, word in enumerate(words):
                found_BTF[i, t] = self._found[word]
        return found_BTF.to(self.place.device)

    def keep(self, rows: Sequence[Words]) -> None:
        """Look up the words that were not looked up yet; see ElmoFeatures."""
        (source,), new = self._source, sorted({word for words in rows for word in words} - self._found.keys())
        if isinstance(source, Vectors):
            for word in new:
                row = source.index.get(word, source.index.get(word.lower()))
                self._found[word] = (
                    torch.zeros(self.width) if row is None else torch.tensor(source.matrix[row])
                )
        elif new:
            with torch.no_grad():
                ids_NC = character_ids(new, source.config.characters.max_characters)
                vector_NF = source.words(ids_NC.to(source.device)).cpu()
            self._found.update(zip(new, vector_NF.unbind(0), strict=True))


def make_features(options: TagOptions) -> ElmoFeatures | StaticFeatures | None:
    """The features that the options name."""
    if options.features == "none":
        return None
    if options.vectors is not None:
        return StaticFeatures(load_vectors(options.vectors, duplicates="first", spaces=True))
    model = load_elmo(model_folder(str(options.model)))
    if options.features == "elmo":
        return ElmoFeatures(model, options.layer_norm, options.tune_features)
    return StaticFeatures(model.requires_grad_(False))
