"""A fine-tuned model in use: texts in, classes with probabilities or scores out; its folder, written and read."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from lineal.errors import ModelError, UsageError
from lineal.generate.prefill import evaluating
from lineal.models.finetuned import FineTuned, Inputs
from lineal.models.hf.awd import is_awd
from lineal.models.hf.files import is_kind
from lineal.tokenizers import Tokenizer, load_tokenizer
from lineal.train.build import model_folder
from lineal.train.checkpoint import tensor_chunks
from lineal.train.device import pick_device
from lineal.train.files import replace_file
from lineal.train.finetune.answers import best_span
from lineal.train.finetune.bodies import BODIES, read_marks
from lineal.train.finetune.inputs import (
    Framed,
    Framing,
    decisions,
    lay_out,
    micro_batches,
    places,
    sequences,
)
from lineal.train.finetune.options import KINDS

RECORD, HEAD = "finetuned.json", "head.safetensors"
CHUNK = 1024
"""Rows that are read, scored and given back together."""


@dataclass(frozen=True)
class Prediction:
    """What is told of one row: the label with every label's probability; the score; a label for each word; or an answer.

    certainty: of an answer, p(begins there) p(ends there) within its window.
    """

    label: str | None
    probabilities: dict[str, float]
    score: float | None = None
    tags: tuple[str, ...] = ()
    answer: str | None = None
    certainty: float = 0.0


@dataclass(frozen=True)
class Facts:
    """What a folder must know beside its weights.

    labels: the classes by number, () where none are told. marks: the tokens around texts. mean, spread: of the training
    scores. columns: the task's options of columns, by which `lineal predict` reads rows. family: of the model (BODIES).
    """

    kind: str
    labels: tuple[str, ...]
    marks: Framing
    mean: float = 0.0
    spread: float = 1.0
    columns: dict[str, Any] | None = None
    family: str = "decoder"


@runtime_checkable
class Teller(Protocol):
    """A trained model in use: texts in, a prediction for each out."""

    @property
    def facts(self) -> Any:
        """What its folder knows beside the weights; `columns` are the task's options."""
        ...

    def __call__(self, rows: Sequence[str | Sequence[str]]) -> list[Prediction]:
        """One prediction per row."""
        ...


@dataclass
class Predictor:
    """A fine-tuned model with its tokenizer. Three lines use it::

    model = load_predictor("RUN")
    for prediction in model(["a fine film", "a waste of time"]):
        print(prediction.label, prediction.probabilities)
    """

    model: FineTuned
    tokenizer: Tokenizer
    facts: Facts
    half: torch.dtype | None = None
    token_budget: int = 16384

    def __call__(self, rows: Sequence[str | Sequence[str]]) -> list[Prediction]:
        """One prediction per row: a text, or as many texts as the task takes; independent of the rows beside it."""
        found: list[Prediction] = []
        for start in range(0, len(rows), CHUNK):
            part = [(row,) if isinstance(row, str) else tuple(row) for row in rows[start : start + CHUNK]]
            framed = self.encode(part)
            found += [self._said(*row) for row in zip(part, framed, self.decided(framed), strict=True)]
        return found

    def encode(self, rows: Sequence[tuple[str, ...]]) -> list[list[Framed]]:
        """The sequences of each row."""
        self._check(rows)
        context, encode, facts = self.model.body.context, self.tokenizer.encode, self.facts
        return [sequences(facts.kind, [encode(text) for text in row], facts.marks, context) for row in rows]

    def decided(self, rows: Sequence[list[Framed]]) -> list[Tensor]:
        """The head's scores [M, C] of each encoded row's decisions, on the CPU in float32 or wider."""
        found: list[Tensor | None] = [None] * len(rows)
        with evaluating(self.model):
            for group, inputs in self._batches(rows):
                with self.precision():
                    score_MC, _ = self.model(inputs)
                wide_MC = score_MC.float() if score_MC.dtype == torch.bfloat16 else score_MC
                counts = [decisions(self.facts.kind, rows[i]) for i in group]
                for i, score_mC in zip(group, wide_MC.cpu().split(counts), strict=True):
                    found[i] = score_mC
        return [score_mC for score_mC in found if score_mC is not None]

    def raw(self, rows: Sequence[list[Framed]]) -> Tensor:
        """The scores of all decisions of at least one encoded row together, [B, C] where each row has one."""
        if not rows:
            raise UsageError("there is no row to score: give at least one.")
        return torch.cat(self.decided(rows))

    def _batches(self, rows: Sequence[list[Framed]]) -> Iterator[tuple[list[int], Inputs]]:
        for group in micro_batches(rows, self.token_budget):
            yield group, lay_out([rows[i] for i in group], self.model.body.device)

    def precision(self) -> Any:
        """Autocast where the device's probe chose it."""
        if self.half is None:
            return nullcontext()
        return torch.autocast(self.model.body.device.type, self.half)

    def _check(self, rows: Sequence[tuple[str, ...]]) -> None:
        if self.facts.kind == "tagging":
            return
        wanted = {"classification": 1, "pair": 2, "similarity": 2, "span": 2}.get(self.facts.kind)
        wanted = wanted or 1 + len(self.facts.labels)
        for number, row in enumerate(rows):
            if len(row) != wanted:
                raise UsageError(f"row {number} has {len(row)} texts, and {self.facts.kind} takes {wanted}.")

    def _said(self, texts: tuple[str, ...], row: list[Framed], score_mC: Tensor) -> Prediction:
        facts = self.facts
        if facts.kind == "span":
            first, last, certainty = best_span(row, score_mC)
            stands = places(self.tokenizer, texts[1])[1]
            answer = texts[1][stands[first][0] : stands[last][1]] if stands else ""
            return Prediction(None, {}, answer=answer, certainty=certainty)
        if facts.kind == "tagging":
            tags = tuple(facts.labels[i] for i in score_mC.argmax(-1).tolist())
            return Prediction(None, {}, tags=tags)
        score_C = score_mC[0]
        if not facts.labels:
            return Prediction(None, {}, facts.mean + facts.spread * score_C[0].item())
        probabilities = dict(zip(facts.labels, score_C.double().softmax(-1).tolist(), strict=True))
        return Prediction(facts.labels[int(score_C.argmax())], probabilities)


def save_predictor(folder: Path, predictor: Predictor) -> None:
    """Write the head and what it means beside a model folder's own files."""
    tensors = {"weight": predictor.model.head.weight, "bias": predictor.model.head.bias}
    replace_file(folder / HEAD, b"".join(map(bytes, tensor_chunks(tensors))))
    replace_file(folder / RECORD, json.dumps(asdict(predictor.facts), indent=2).encode() + b"\n")


def _facts(record: Any, outputs: int) -> Facts:
    """The facts of a record that fits a head of so many outputs; ValueError, TypeError or KeyError where it does not."""
    kind, labels, family = record["kind"], record["labels"], record.get("family", "decoder")
    if kind not in KINDS:
        raise ValueError(f"{RECORD}: the kind {kind!r} is not one of {', '.join(KINDS)}")
    if family not in BODIES:
        raise ValueError(f"{RECORD}: the family {family!r} is not one of {', '.join(BODIES)}")
    if not all(isinstance(label, str) for label in labels) or len(set(labels)) < len(labels):
        raise ValueError(f"{RECORD}: the labels {labels} are not names that differ")
    if not all(isinstance(mark, int) for mark in record["marks"].values()):
        raise ValueError(f"{RECORD}: the marks {record['marks']} are not numbers of tokens")
    wanted = 2 if kind == "span" else len(labels) if labels and kind != "choice" else 1
    if outputs != wanted:
        raise ValueError(f"{RECORD} has {len(labels)} labels, and the head of {HEAD} {outputs} rows")
    marks = read_marks(family, record["marks"])
    return Facts(**record | {"marks": marks, "labels": tuple(labels)})


def load_predictor(name: str | Path, device: str = "auto") -> Teller:
    """The fine-tuned model of a run or of its folder; ModelError where there is none."""
    folder = model_folder(str(name))
    if is_awd(folder) and (folder / RECORD).is_file():
        from lineal.train.recurrent.predictor import load_document_predictor

        return load_document_predictor(folder, device)
    if is_kind(folder, "lineal_tagger"):
        from lineal.train.tagging.predictor import load_tagger

        return load_tagger(folder, device)
    if not (folder / RECORD).is_file():
        raise ModelError(
            f"{name} is not fine-tuned (no {RECORD}): lineal run finetune --model {name} makes one that is."
        )
    try:
        head = load_file(folder / HEAD)
        facts = _facts(json.loads((folder / RECORD).read_bytes()), len(head["bias"]))
        body = BODIES[facts.family].load(folder, pick_device(device))
        model = FineTuned(body, facts.kind, len(head["bias"]), 0.0).to(body.device)
        model.head.load_state_dict(head)
    except ModelError:
        raise
    except (OSError, SafetensorError, ValueError, KeyError, TypeError, RuntimeError) as error:
        # Of weights that do not fit torch speaks on several lines.
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise ModelError(f"{folder} holds no whole fine-tuned model ({reason}).") from error
    for mark in vars(facts.marks).values():
        if not 0 <= mark < body.vocab_size:
            raise ModelError(
                f"{folder}: the vocabulary has {body.vocab_size} rows, and {RECORD} names token {mark}: the "
                "weights are another model's."
            )
    return Predictor(model.eval(), load_tokenizer(folder), facts)
