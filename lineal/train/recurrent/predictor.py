"""A trained classifier of documents in use: texts in, classes with probabilities out; its folder, written and read."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from lineal.errors import ModelError, UsageError
from lineal.generate.prefill import evaluating
from lineal.models.awd_lstm import AWDLSTM, Directions
from lineal.models.documents import POOLINGS, DocumentReader, Pieces, TwoLayerHead
from lineal.models.hf.awd import load_awd, save_awd
from lineal.tokenizers import Tokenizer, load_tokenizer
from lineal.train.checkpoint import tensor_chunks
from lineal.train.device import pick_device
from lineal.train.files import replace_file
from lineal.train.finetune.inputs import micro_batches
from lineal.train.finetune.predictor import CHUNK, HEAD, RECORD, Prediction


@dataclass(frozen=True)
class DocumentFacts:
    """What the folder must know beside its weights: the classes by number, how documents are pooled and read, and the
    task's options of columns."""

    labels: tuple[str, ...]
    pooling: str = "concat"
    head_width: int = 50
    chunk: int = 70
    kind: str = "documents"
    columns: dict[str, Any] = field(default_factory=dict)


@dataclass
class DocumentPredictor:
    """A classifier of documents with its tokenizer; `load_predictor` opens it, and calling it gives a Prediction a text.

    module: a DocumentReader by direction; their probabilities are averaged.
    """

    module: Directions
    tokenizer: Tokenizer
    facts: DocumentFacts
    token_budget: int = 8192

    def __call__(self, rows: Sequence[str | Sequence[str]]) -> list[Prediction]:
        """One prediction per text; independent of the texts beside it."""
        found: list[Prediction] = []
        for start in range(0, len(rows), CHUNK):
            texts = [row if isinstance(row, str) else row[0] for row in rows[start : start + CHUNK]]
            probability_BC = self.probabilities(self.encode(texts))
            for p_C in probability_BC:
                each = dict(zip(self.facts.labels, p_C.tolist(), strict=True))
                found.append(Prediction(self.facts.labels[int(p_C.argmax())], each))
        return found

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """The ids of each text between two end-of-text tokens, as texts stand in a corpus; the same from either end."""
        mark = [] if self.tokenizer.eos_id is None else [self.tokenizer.eos_id]
        return [[*mark, *self.tokenizer.encode(text), *mark] for text in texts]

    def probabilities(self, rows: Sequence[list[int]]) -> Float[Tensor, "B C"]:
        """Mean over directions of softmax(scores), in float64 on the CPU."""
        if not rows:
            raise UsageError("there is no text to tell: give at least one.")
        found = torch.zeros(len(rows), len(self.facts.labels), dtype=torch.float64)
        with evaluating(self.module):
            for group in micro_batches([[row] for row in rows], self.token_budget):
                told_BC = [
                    reader.head(pooled_of(reader, [rows[i] for i in group], direction, Pieces(self.facts.chunk, 0)))
                    for direction, reader in self.module.items()
                ]  # fmt: skip
                found[group] = torch.stack(told_BC).double().softmax(-1).mean(0).cpu()
        return found


def pooled_of(
    reader: DocumentReader, rows: Sequence[list[int]], direction: str, pieces: Pieces, noise: Any = None
) -> Float[Tensor, "B D"]:
    """The pooled outputs of encoded documents, read from their end by a backward reader."""
    turned = [row[::-1] for row in rows] if direction == "backward" else rows
    length_B = torch.tensor([len(row) for row in turned])
    token_BT = torch.zeros(len(turned), int(length_B.max()), dtype=torch.int64)
    for row_T, row in zip(token_BT, turned, strict=True):
        row_T[: len(row)] = torch.tensor(row)
    device = reader.reader.device
    return reader.pooled(token_BT.to(device), length_B.to(device), pieces, noise)


def document_readers(models: dict[str, AWDLSTM], facts: DocumentFacts, seed: int = 0) -> Directions:
    """A reader with a fresh head for each direction."""
    outputs = len(facts.labels)
    found = {}
    for direction, model in models.items():
        width = model.config.width * (3 if facts.pooling == "concat" else 1)
        head = TwoLayerHead(width, facts.head_width, outputs, seed).to(model.embedding.weight)
        found[direction] = DocumentReader(model, head, facts.pooling)
    return Directions(found)


def save_document_predictor(folder: Path, predictor: DocumentPredictor) -> None:
    """Write the models, the tokenizer, the heads and what they mean."""
    tokenizer = predictor.tokenizer
    save_awd(
        {d: reader.reader for d, reader in predictor.module.items()}, folder,
        eos_id=tokenizer.eos_id, pad_id=tokenizer.pad_id, bos_id=tokenizer.bos_id,
    )  # fmt: skip
    tokenizer.save(folder)
    heads = {f"{d}.{n}": t for d, r in predictor.module.items() for n, t in r.head.state_dict().items()}
    replace_file(folder / HEAD, b"".join(map(bytes, tensor_chunks(heads))))
    replace_file(folder / RECORD, json.dumps(asdict(predictor.facts), indent=2).encode() + b"\n")


def load_document_predictor(folder: Path, device: str = "auto") -> DocumentPredictor:
    """The classifier of a folder; ModelError where it is not whole."""
    models = load_awd(folder)
    try:
        record = json.loads((folder / RECORD).read_bytes())
        facts = DocumentFacts(**record | {"labels": tuple(record["labels"])})
        names = facts.labels if isinstance(record["labels"], list) else ()
        if len(names) < 2 or len(set(names)) < len(names) or not all(isinstance(name, str) for name in names):
            raise ValueError(
                f"{RECORD}: the labels {record['labels']} are not names that differ, two or more"
            )
        if facts.kind != "documents" or facts.pooling not in POOLINGS:
            raise ValueError(f"{RECORD}: {facts.kind} with the pooling {facts.pooling}")
        Pieces(facts.chunk, 0)
        module = document_readers(models, facts)
        heads = load_file(folder / HEAD)
        for direction, reader in module.items():
            own = {n.removeprefix(f"{direction}."): t for n, t in heads.items() if n.startswith(direction)}
            reader.head.load_state_dict(own)
    except (OSError, SafetensorError, ValueError, KeyError, TypeError, RuntimeError) as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise ModelError(f"{folder} holds no whole classifier ({reason}).") from error
    tokenizer = load_tokenizer(folder)
    have = next(iter(models.values())).config.vocab_size
    if tokenizer.vocab_size > have:
        raise ModelError(
            f"{folder}: the tokenizer has {tokenizer.vocab_size} tokens, and the model rows for {have}: they do not belong "
            "together."
        )
    return DocumentPredictor(module.to(pick_device(device)).eval(), tokenizer, facts)
