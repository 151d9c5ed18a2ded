"""Vocabularies that are a plain list: vocab.json with merges.txt (GPT-2 and its kin), and BERT's vocab.txt."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from lineal.errors import ModelError
from lineal.tokenizers import decode
from lineal.tokenizers.added import AddedToken
from lineal.tokenizers.base import write_whole
from lineal.tokenizers.bpe import BPE
from lineal.tokenizers.files.models import printed, read_model, vocabulary_of
from lineal.tokenizers.files.reading import Field, read_json, read_text
from lineal.tokenizers.pipeline import Pipeline
from lineal.tokenizers.settings import Settings
from lineal.tokenizers.template import Template
from lineal.tokenizers.text.normalise import Bert
from lineal.tokenizers.text.split import BertSplit, Gpt2, WhitespaceSplit
from lineal.tokenizers.wordpiece import WordPiece

END = "<|endoftext|>"
BERT = {"unk": "[UNK]", "sep": "[SEP]", "pad": "[PAD]", "cls": "[CLS]", "mask": "[MASK]"}


def read_merges(path: str | Path) -> list[list[str]]:
    """The merges of a merges.txt (GPT-2's vocab.bpe, subword-nmt's codes): two tokens a line, a version line on top."""
    path = Path(path)
    found: list[list[str]] = []
    for number, line in enumerate(read_text(path).split("\n"), 1):
        line = line.removesuffix("\r")
        if not line or (number == 1 and line.startswith("#version")):
            continue
        pair = line.split(" ")
        if len(pair) != 2 or not all(pair):
            raise ModelError(f"{path}:{number}: {line[:60]!r} are not two tokens with a space between them.")
        found.append(pair)
    return found


def read_vocabulary_and_merges(
    vocabulary: str | Path,
    merges: str | Path,
    *,
    byte_level: bool = True,
    suffix: str = "",
    unknown: str | None = None,
    special: Sequence[str] = (END,),
) -> Pipeline:
    """The BPE of a vocab.json (encoder.json) and a merges.txt (vocab.bpe).

    byte_level: GPT-2's kind, bytes printed as characters and split by its pattern; else characters of words between
    white space, `suffix` being the end of a word ("</w>"). unknown: the token for what the vocabulary can't say.
    special: those of these that the vocabulary has are special tokens. Raises ModelError naming file and line or field.
    """
    field = read_json(Path(vocabulary))
    content = {
        "type": "BPE",
        "vocab": field.object(),
        "merges": read_merges(merges),
        "end_of_word_suffix": suffix or None,
        "unk_token": unknown,
    }
    wanted = [name for name in special if name in content["vocab"]]
    model = read_model(Field(field.file, "", content), byte_level, set(wanted))
    added = [AddedToken(name, content["vocab"][name]) for name in wanted]
    named = {"eos_token": END} if END in wanted else {}
    back = decode.ByteLevel() if byte_level else decode.BPEDecoder(suffix) if suffix else decode.Spaced()
    settings = Settings({**named, **({"unk_token": unknown} if unknown else {})})
    splitter = Gpt2() if byte_level else WhitespaceSplit()
    return Pipeline(model, splitter=splitter, decoder=back, added=added, settings=settings)


def write_vocabulary_and_merges(pipeline: Pipeline, folder: str | Path) -> None:
    """Write vocab.json and merges.txt. ModelError when the model is no BPE, or its merges cannot be lines."""
    folder, model = Path(folder), pipeline.model
    if not isinstance(model, BPE) or model.by_rank:
        raise ModelError(
            f"vocab.json and merges.txt hold a BPE with merges, not a {type(model).__name__}: save() writes it."
        )
    names = printed(list(model.tokens), model.initial == "bytes")
    names += [""] * (pipeline.vocab_size - len(names))
    for token in pipeline.added:
        names[token.id] = token.content
    odd = next((names[i] for pair in model.merges for i in pair if set(names[i]) & {" ", "\n", "\r"}), None)
    if odd is not None:
        raise ModelError(
            f"the token {odd!r} cannot stand in a merges.txt, whose lines are cut at spaces: use save()."
        )
    vocabulary = json.dumps(vocabulary_of(names), ensure_ascii=False)
    lines = ["#version: 0.2", *(f"{names[left]} {names[right]}" for left, right in model.merges)]
    write_whole(folder / "vocab.json", vocabulary + "\n")
    write_whole(folder / "merges.txt", "\n".join(lines) + "\n")


def read_vocab_txt(path: str | Path, *, lowercase: bool = True, unknown: str = "[UNK]") -> Pipeline:
    """BERT's tokenizer from a vocab.txt, whose line numbers are the ids.

    lowercase: also takes accents off, as BERT's uncased models do. Raises ModelError for a token that is there twice, or
    when `unknown` is not there.
    """
    path = Path(path)
    names = [line.removesuffix("\r") for line in read_text(path).split("\n")]
    while names and not names[-1]:
        names.pop()
    ids: dict[str, int] = {}
    for number, name in enumerate(names, 1):
        if name and ids.setdefault(name, number - 1) != number - 1:
            raise ModelError(f"{path}:{number}: {name!r} stands in line {ids[name] + 1} already.")
    if unknown not in ids:
        raise ModelError(
            f"{path} has no {unknown!r} for unknown words: name another, or choose BERT's vocab.txt."
        )
    added = [AddedToken(name, ids[name]) for name in (*BERT.values(), unknown) if name in ids]
    hidden = {token.id for token in added} - {ids[unknown]}
    tokens = [b"" if i in hidden else name.encode() for i, name in enumerate(names)]
    template = None
    if {"[CLS]", "[SEP]"} <= ids.keys():
        template = Template.parse("[CLS] $A [SEP]", "[CLS] $A [SEP] $B:1 [SEP]:1", ids)
    return Pipeline(
        WordPiece(tokens, unknown=ids[unknown]),
        normaliser=Bert(lowercase=lowercase),
        splitter=BertSplit(),
        decoder=decode.WordPieceDecoder(),
        template=template,
        added=list(dict.fromkeys(added)),
        settings=Settings({f"{role}_token": name for role, name in BERT.items() if name in ids}),
    )


def write_vocab_txt(pipeline: Pipeline, path: str | Path) -> None:
    """Write a vocab.txt, a token a line. ModelError when the model is no WordPiece or a token has a line break."""
    if not isinstance(pipeline.model, WordPiece):
        raise ModelError(
            f"a vocab.txt holds a WordPiece vocabulary, not a {type(pipeline.model).__name__}: use save()."
        )
    names = printed(pipeline.tokens, byte_level=False)
    odd = next((name for name in names if "\n" in name or name.endswith("\r")), None)
    if odd is not None:
        raise ModelError(f"the token {odd!r} has a line break: a vocab.txt cannot hold it, save() can.")
    write_whole(Path(path), "".join(f"{name}\n" for name in names))
