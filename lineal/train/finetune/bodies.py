"""The models that can be fine-tuned: how each is opened for it, which tokens it puts around texts, and how it is written.

One more family of models is one more entry of BODIES.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from lineal.errors import ModelError
from lineal.models.bert import Bert, BertBody
from lineal.models.decoder import Decoder
from lineal.models.finetuned import Body, DecoderBody, widened
from lineal.models.hf import load_model, save_model
from lineal.models.hf.bert import is_bert, load_bert, save_bert
from lineal.tokenizers import Tokenizer, load_tokenizer
from lineal.tokenizers.opening import open_tokenizer
from lineal.tokenizers.pipeline import Pipeline
from lineal.train.finetune.inputs import ClassMarks, Framing, Marks, extended

Opened = tuple[Body, Tokenizer, Framing]


@dataclass(frozen=True)
class Family:
    """A family of models.

    marks: the class of its framing, whose fields go into the record. prepare: (folder, tokenizer's folder, fresh, seed) -> a
    model with its tokenizer, before fine-tuning; fresh: with new weights of the same shape. load: a body from a finished
    folder. save: its files into a folder. alone: the framing of a text that is only embedded, None for none.
    """

    marks: type
    prepare: Callable[[Path, Path, bool, int], Opened]
    load: Callable[[Path, torch.device | str], Body]
    save: Callable[[Body, Path, Tokenizer], None]
    alone: Callable[[Tokenizer, str], Framing | None]


def family_of(folder: Path) -> str:
    """The name of the family of a model folder."""
    return "encoder" if is_bert(folder) else "decoder"


def _prepare_decoder(folder: Path, tokenizer: Path, fresh: bool, seed: int) -> Opened:
    decoder, _ = load_model(folder)
    if fresh:
        decoder = Decoder(decoder.config).initialise(seed)
    wider, marks = extended(load_tokenizer(tokenizer))
    return DecoderBody(widened(decoder, marks.extract + 1, seed)), wider, marks


def _load_decoder(folder: Path, device: torch.device | str) -> Body:
    return DecoderBody(load_model(folder, device=device)[0])


def _save_decoder(body: Body, folder: Path, tokenizer: Tokenizer) -> None:
    assert isinstance(body, DecoderBody)
    ids = {name: getattr(tokenizer, name) for name in ("eos_id", "pad_id", "bos_id")}
    save_model(body.decoder, folder, **ids)


def _prepare_encoder(folder: Path, tokenizer: Path, fresh: bool, seed: int) -> Opened:
    encoder, words = load_bert(folder), open_tokenizer(tokenizer)
    if words.vocab_size > encoder.config.vocab_size:
        raise ModelError(
            f"{tokenizer} has {words.vocab_size:,} tokens and the model of {folder} {encoder.config.vocab_size:,}: the "
            "vocabulary is another model's."
        )
    if fresh:
        encoder = Bert(encoder.config).initialise(seed)
    return BertBody(encoder), words, class_marks(words, str(tokenizer))


def class_marks(tokenizer: Tokenizer, where: str) -> ClassMarks:
    """The ids of [CLS] and [SEP]; ModelError where the vocabulary lacks them."""
    found = [tokenizer.id(name) if isinstance(tokenizer, Pipeline) else None for name in ("[CLS]", "[SEP]")]
    if found[0] is None or found[1] is None:
        raise ModelError(
            f"{where}: the vocabulary has no [CLS] or no [SEP], which BERT reads: it is another model's."
        )
    return ClassMarks(found[0], found[1])


def _load_encoder(folder: Path, device: torch.device | str) -> Body:
    return BertBody(load_bert(folder, device))


def _save_encoder(body: Body, folder: Path, tokenizer: Tokenizer) -> None:
    assert isinstance(body, BertBody)
    save_bert(body.encoder, folder)


def _unframed(tokenizer: Tokenizer, where: str) -> None:
    return None


BODIES: dict[str, Family] = {
    "decoder": Family(Marks, _prepare_decoder, _load_decoder, _save_decoder, _unframed),
    "encoder": Family(ClassMarks, _prepare_encoder, _load_encoder, _save_encoder, class_marks),
}
"""Every family, by the name that a fine-tuned model's record has."""


def read_marks(family: str, marks: dict[str, Any]) -> Framing:
    """The framing of a record; TypeError for fields that it does not have."""
    return BODIES[family].marks(**marks)
