"""Hugging Face's tokenizer.json, read into a pipeline and written from one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lineal.errors import ModelError
from lineal.tokenizers.added import AddedToken
from lineal.tokenizers.base import TOKENIZER, write_whole
from lineal.tokenizers.bpe import BPE
from lineal.tokenizers.files import after
from lineal.tokenizers.files.models import printed, read_model, written_model
from lineal.tokenizers.files.reading import Field, read_json
from lineal.tokenizers.files.texts import (
    quickened,
    read_normaliser,
    read_splitter,
    written_normaliser,
    written_splitter,
)
from lineal.tokenizers.pipeline import Lengths, Pipeline
from lineal.tokenizers.settings import Settings
from lineal.tokenizers.unigram import Unigram


def read_huggingface(path: str | Path, settings: Settings | None = None) -> Pipeline:
    """The tokenizer of a tokenizer.json, or of a folder that has one (then with the settings beside it).

    Raises MissingPart (a ModelError) naming a part that we lack, ModelError naming the field that is damaged.
    Departures: ids are those that the file says, where the library counts added tokens anew; a special token in the
    vocabulary of a WordPiece, WordLevel or Unigram model is never made from a text without `special=True`, where the
    library's models may; a charsmap is applied as sentencepiece does it, where the library drops part of some characters
    with marks.
    """
    path = Path(path)
    if path.is_dir():
        settings = Settings.read(path) if settings is None else settings
        path = path / TOKENIZER
    return pipeline_of(read_json(path), settings or Settings())


def pipeline_of(field: Field, settings: Settings) -> Pipeline:
    """The tokenizer that the content of a tokenizer.json describes."""
    field.object()
    if field["version"].text("1.0") != "1.0":
        raise field["version"].lacks(f"version {field['version'].value}")
    added = after.read_added(field["added_tokens"])
    splitter, byte_level = read_splitter(field["pre_tokenizer"])
    model = read_model(field["model"], byte_level, {token.content for token in added if token.special})
    lengths = Lengths(after.read_truncation(field["truncation"]), after.read_padding(field["padding"]))
    _check_added(field, model.tokens, added)
    try:
        return Pipeline(
            model,
            normaliser=read_normaliser(field["normalizer"]),
            splitter=splitter
            if byte_level or isinstance(model, Unigram)
            else quickened(splitter, model.tokens),
            decoder=after.read_decoder(field["decoder"]),
            template=after.read_template(field["post_processor"]),
            added=added,
            settings=settings,
            lengths=lengths,
        )
    except ModelError as error:
        raise error if str(error).startswith(field.file) else type(error)(f"{field.file}: {error}") from error


def _check_added(field: Field, tokens: Any, added: list[AddedToken]) -> None:
    for token in added:
        here = tokens[token.id] if token.id < len(tokens) else b""
        name = field["model"]["vocab"].value
        known = name.get(token.content) if isinstance(name, dict) else None
        if known is not None and known != token.id:
            raise ModelError(
                f"{field.file}: added_tokens gives {token.content!r} the id {token.id}, but model.vocab {known}: it is "
                "damaged."
            )
        if known is None and here and isinstance(name, dict):
            raise ModelError(
                f"{field.file}: added_tokens gives {token.content!r} the id {token.id}, which is {here[:40]!r} in "
                "model.vocab: it is damaged."
            )


def content_of(pipeline: Pipeline) -> dict[str, Any]:
    """The content of a tokenizer.json for a pipeline. ModelError for a part that the format cannot say."""
    model = pipeline.model
    byte_level = isinstance(model, BPE) and model.initial == "bytes"
    inside = {token.id: token.content for token in pipeline.added}
    size = len(model.tokens)
    names = printed(list(model.tokens), byte_level)
    for index, content in inside.items():
        if index < size:
            names[index] = content
    shown = [inside.get(i) or name for i, name in enumerate([*names, *[""] * (pipeline.vocab_size - size)])]
    return {
        "version": "1.0",
        "truncation": after.written_truncation(pipeline.lengths.truncation),
        "padding": after.written_padding(pipeline.lengths.padding),
        "added_tokens": after.written_added(pipeline.added),
        "normalizer": written_normaliser(pipeline.normaliser),
        "pre_tokenizer": written_splitter(pipeline.splitter, byte_level),
        "post_processor": after.written_template(pipeline.template, shown.__getitem__),
        "decoder": after.written_decoder(pipeline.decoder),
        "model": written_model(model, names),
    }


def write_huggingface(pipeline: Pipeline, folder: str | Path) -> None:
    """Write tokenizer.json and tokenizer_config.json into a folder, each whole or not at all."""
    folder = Path(folder)
    content = content_of(pipeline)
    text = _lines({**content, "model": None})
    model = _lines(content["model"], indent=4)
    write_whole(folder / TOKENIZER, text.replace('"model": null', f'"model": {model}', 1) + "\n")
    pipeline.settings.write(folder)


def _lines(content: Mapping[str, Any], indent: int = 2) -> str:
    """A JSON object with a line for each field: an indented vocabulary takes ten times as long to write."""
    fields = [f"{json.dumps(key)}: {json.dumps(value, ensure_ascii=False)}" for key, value in content.items()]
    blank = " " * indent
    return "{\n" + ",\n".join(blank + line for line in fields) + "\n" + blank[2:] + "}"
