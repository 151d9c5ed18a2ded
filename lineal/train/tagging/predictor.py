"""A trained tagger in use: sentences in, a tag for each word out; its folder, written and read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lineal.errors import ModelError
from lineal.generate.prefill import evaluating
from lineal.models.hf.files import (
    CONFIG,
    making,
    read_shape,
    read_tensors,
    write_json,
    write_tensors,
)
from lineal.models.tagger import Tagger
from lineal.train.device import pick_device
from lineal.train.finetune.inputs import micro_batches
from lineal.train.finetune.predictor import CHUNK, Prediction
from lineal.train.options import to_json
from lineal.train.tagging.features import ElmoFeatures, StaticFeatures, make_features
from lineal.train.tagging.options import TaggerOptions, TagOptions

KIND = "lineal_tagger"
TOKENS = 4096
"""Words of a group of sentences that are tagged together, padding included."""


@dataclass(frozen=True)
class TaggerFacts:
    """What the folder must know beside its weights: tags and known words by number, the features, and the shape."""

    tags: tuple[str, ...]
    words: tuple[str, ...]
    options: TagOptions
    tagger: TaggerOptions

    @property
    def columns(self) -> dict[str, Any]:
        """How `lineal predict` reads rows: each is a list of words, or a text that is cut at its spaces."""
        return {"task": "tagging"}


class WordTagger(nn.Module):
    """A tagger and what it is given of each word."""

    def __init__(self, facts: TaggerFacts, features: ElmoFeatures | StaticFeatures | None, seed: int = 0):
        super().__init__()
        shape, width = facts.tagger, 0 if features is None else features.width
        self.tagger = Tagger(
            len(facts.words) + 1, len(facts.tags), shape.word_width, shape.lstm_width, width, shape.tagger_dropout
        ).initialise(seed)  # fmt: skip
        self.features, self.number = features, {word: i for i, word in enumerate(facts.words, 1)}

    def forward(self, rows: Sequence[tuple[str, ...]]) -> tuple[Tensor, Tensor]:
        """Scores [B, T, C] of sentences, and where there are words."""
        device = self.tagger.linear.weight.device
        length_B1 = torch.tensor([[len(words)] for words in rows])
        mask_BT = torch.arange(int(length_B1.max())) < length_B1
        word_BT = torch.zeros(mask_BT.shape, dtype=torch.int64)
        for row_T, words in zip(word_BT, rows, strict=True):
            row_T[: len(words)] = torch.tensor([self.number.get(word.lower(), 0) for word in words])
        given = None if self.features is None else self.features(rows)
        return self.tagger(word_BT.to(device), mask_BT.to(device), given), mask_BT

    def probabilities(self, rows: Sequence[tuple[str, ...]]) -> list[Tensor]:
        """softmax(scores) [T, C] of each sentence, in float64 on the CPU; independent of the sentences beside it."""
        found: list[Tensor] = [torch.zeros(0)] * len(rows)
        with evaluating(self):
            for group in micro_batches([[words] for words in rows], TOKENS):
                score_BTC, _ = self([rows[i] for i in group])
                for i, score_TC in zip(group, score_BTC.double().softmax(-1).cpu(), strict=True):
                    found[i] = score_TC[: len(rows[i])]
        return found


@dataclass
class TaggerPredictor:
    """A tagger as `load_predictor` opens it. Three lines use it::

    model = load_predictor("RUN")
    for prediction in model(["Ada was born in London", ("New York", "is", "far")]):
        print(prediction.tags)
    """

    module: WordTagger
    facts: TaggerFacts

    def __call__(self, rows: Sequence[str | Sequence[str]]) -> list[Prediction]:
        """A tag for each word of each sentence: a list of words, or a text that is cut at its spaces."""
        found: list[Prediction] = []
        for start in range(0, len(rows), CHUNK):
            part = [
                tuple(row.split() if isinstance(row, str) else row) for row in rows[start : start + CHUNK]
            ]
            filled = iter(self.module.probabilities([words for words in part if words]))
            for words in part:
                best_T = next(filled).argmax(-1).tolist() if words else []
                found.append(Prediction(None, {}, tags=tuple(self.facts.tags[i] for i in best_T)))
        return found


def save_tagger(folder: Path, module: WordTagger, facts: TaggerFacts) -> None:
    """Write what was trained; features that were only read stay where they are, and the record says where."""
    held = isinstance(module.features, ElmoFeatures) and not module.features.tune
    tensors = {n: p for n, p in module.state_dict().items() if not (held and n.startswith("features.model"))}
    write_tensors(folder, tensors)
    absolute = {
        name: str(Path(path).resolve())
        for name in ("model", "vectors")
        if (path := getattr(facts.options, name)) and not path.startswith("hf:")
    }
    write_json(
        folder / CONFIG,
        {"model_type": KIND, "tags": list(facts.tags), "words": list(facts.words),
         "options": to_json(facts.options) | absolute, "tagger": asdict(facts.tagger)},
    )  # fmt: skip


def load_tagger(folder: Path, device: str = "auto") -> TaggerPredictor:
    """The tagger of a folder, in eval mode; ModelError where it, or the features that it was trained with, are not whole."""
    content, path = read_shape(folder, KIND, "tagger"), folder / CONFIG
    with making(path):
        tags, words = (tuple(map(_name, content[kind])) for kind in ("tags", "words"))
        facts = TaggerFacts(tags, words, TagOptions(**content["options"]), TaggerOptions(**content["tagger"]))
        module = WordTagger(facts, make_features(facts.options))
        tensors = read_tensors(folder)
        present = module.state_dict()
        for name in sorted({*tensors, *(n for n in present if not n.startswith("features.model"))}):
            shapes = [tuple(part[name].shape) if name in part else "absent" for part in (tensors, present)]
            if shapes[0] != shapes[1]:
                raise ModelError(f"{name} is {shapes[0]} in the file, and the record implies {shapes[1]}.")
        module.load_state_dict(present | tensors)
    return TaggerPredictor(module.to(pick_device(device)).eval(), facts)


def _name(word: Any) -> str:
    if not isinstance(word, str):
        raise TypeError(f"{word!r} is no name")
    return word
