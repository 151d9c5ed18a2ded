"""One way to open any tokenizer's files, and one to write them for another library."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lineal.errors import ModelError, UsageError
from lineal.tokenizers.base import TOKENIZER, Tokenizer, load_tokenizer

if TYPE_CHECKING:
    from lineal.tokenizers.pipeline import Pipeline

PAIRS = (("vocab.json", "merges.txt"), ("encoder.json", "vocab.bpe"))
"""How the two files of a GPT-2 vocabulary are called: vocabulary, merges."""
LOOKED_FOR = (
    f"{TOKENIZER}, *.model, *.tiktoken, vocab.json with merges.txt, encoder.json with vocab.bpe, vocab.txt"
)


def open_tokenizer(path: str | Path) -> Tokenizer:
    """The tokenizer of a file or folder, of whichever kind its name says.

    A folder is looked through in this order: tokenizer.json, *.model (SentencePiece), *.tiktoken, vocab.json with
    merges.txt (or encoder.json with vocab.bpe), vocab.txt (BERT). Raises ModelError that says what was looked for, or
    what is damaged.
    """
    path = Path(path)
    if path.is_dir():
        return _of_folder(path)
    if not path.is_file():
        raise ModelError(f"{path} does not exist: give a folder or file of a tokenizer ({LOOKED_FOR}).")
    return _of_file(path)


def _of_folder(folder: Path) -> Tokenizer:
    if (folder / TOKENIZER).is_file():
        return load_tokenizer(folder)
    for suffix in ("model", "tiktoken"):
        found = sorted(folder.glob(f"*.{suffix}"))
        if len(found) > 1:
            raise ModelError(
                f"{folder} has {len(found)} files *.{suffix} ({found[0].name}, ...): name the one you mean."
            )
        if found:
            return _of_file(found[0])
    for vocabulary, merges in PAIRS:
        if (folder / vocabulary).is_file() and (folder / merges).is_file():
            return _of_file(folder / vocabulary)
    if (folder / "vocab.txt").is_file():
        return _of_file(folder / "vocab.txt")
    held = ", ".join(sorted(p.name for p in folder.iterdir())[:6]) or "nothing"
    raise ModelError(f"{folder} has no tokenizer: looked for {LOOKED_FOR}; it holds {held}.")


def _of_file(path: Path) -> Tokenizer:
    from lineal.tokenizers.files import huggingface, tiktoken, vocabularies
    from lineal.tokenizers.files.proto import read_sentencepiece
    from lineal.tokenizers.settings import Settings

    if path.suffix == ".model":
        return read_sentencepiece(path)
    if path.suffix == ".tiktoken":
        return tiktoken.read_tiktoken(path)
    for vocabulary, merges in PAIRS:
        if path.name in (vocabulary, merges):
            both = path.with_name(vocabulary), path.with_name(merges)
            lacking = next((file for file in both if not file.is_file()), None)
            if lacking is not None:
                raise ModelError(f"{path} needs {lacking.name} beside it, which is not there: copy it too.")
            return vocabularies.read_vocabulary_and_merges(*both)
    if path.suffix == ".txt" and "vocab" in path.name:
        return vocabularies.read_vocab_txt(path)
    if path.name == TOKENIZER:
        return load_tokenizer(path.parent)
    if path.suffix == ".json":
        return huggingface.read_huggingface(path, Settings.read(path.parent))
    raise ModelError(f"{path} is none of the files of a tokenizer that are known: {LOOKED_FOR}.")


@dataclass(frozen=True)
class Written:
    """What was written, and what of the tokenizer the format could not say."""

    files: tuple[Path, ...]
    lost: tuple[str, ...] = ()


def write_tokenizer(tokenizer: Tokenizer, out: str | Path, to: str) -> Written:
    """Write a tokenizer in another library's files: a name of FORMATS; `out` is a folder.

    Raises UsageError for another name, ModelError naming the part that the format cannot say; then nothing is written.
    """
    if to not in FORMATS:
        raise UsageError(f"{to!r} is no format of a tokenizer: choose one of {', '.join(FORMATS)}.")
    return FORMATS[to](tokenizer, Path(out))


def _huggingface(tokenizer: Tokenizer, out: Path) -> Written:
    from lineal.tokenizers.files.proto import without_charsmap_rules
    from lineal.tokenizers.pipeline import Pipeline

    lost: tuple[str, ...] = ()
    if isinstance(tokenizer, Pipeline):
        tokenizer, lost = without_charsmap_rules(tokenizer)
    tokenizer.save(out)
    return Written((out / TOKENIZER, out / "tokenizer_config.json"), lost)


def _sentencepiece(tokenizer: Tokenizer, out: Path) -> Written:
    from lineal.tokenizers.files.proto import sentencepiece_of
    from lineal.tokenizers.sentencepiece import write_model

    pipeline = _pipeline(tokenizer, "sentencepiece")
    write_model(sentencepiece_of(pipeline), out / "tokenizer.model")
    return Written((out / "tokenizer.model",), _around(pipeline))


def _tiktoken(tokenizer: Tokenizer, out: Path) -> Written:
    from lineal.tokenizers.files.tiktoken import write_tiktoken

    pipeline = _pipeline(tokenizer, "tiktoken")
    write_tiktoken(pipeline, out / "ranks.tiktoken")
    return Written((out / "ranks.tiktoken", out / "ranks.json"), _around(pipeline))


def _vocabulary(tokenizer: Tokenizer, out: Path) -> Written:
    from lineal.tokenizers.files.vocabularies import write_vocab_txt, write_vocabulary_and_merges
    from lineal.tokenizers.text import normalise, split
    from lineal.tokenizers.wordpiece import WordPiece

    pipeline = _pipeline(tokenizer, "vocab")
    if isinstance(pipeline.model, WordPiece):
        write_vocab_txt(pipeline, out / "vocab.txt")
        usual = normalise.Bert() == pipeline.normaliser and pipeline.splitter == split.BertSplit()
        lost = () if usual else ("how a text is normalised and split (readers of a vocab.txt do it as BERT)",)
        return Written((out / "vocab.txt",), (*lost, *_chat(pipeline)))
    write_vocabulary_and_merges(pipeline, out)
    usual = pipeline.normaliser is None and pipeline.splitter in (split.Gpt2(), split.WhitespaceSplit())
    lost = () if usual else (f"how a text is normalised and split ({type(pipeline.splitter).__name__})",)
    special = tuple(token.content for token in pipeline.added if token.special)
    lost += (f"which tokens are special ({', '.join(special)})",) if special else ()
    return Written((out / "vocab.json", out / "merges.txt"), (*lost, *_around(pipeline)))


def _pipeline(tokenizer: Tokenizer, to: str) -> Pipeline:
    from lineal.tokenizers.pipeline import Pipeline

    if not isinstance(tokenizer, Pipeline):
        raise ModelError(f"a {type(tokenizer).__name__} cannot be written as {to}: only as huggingface.")
    return tokenizer


def _around(pipeline: Pipeline) -> tuple[str, ...]:
    template = pipeline.template and pipeline.template.added()
    return (*(("the tokens put around a text",) if template else ()), *_chat(pipeline))


def _chat(pipeline: Pipeline) -> tuple[str, ...]:
    return ("the chat template",) if pipeline.chat_template else ()


FORMATS: dict[str, Callable[[Tokenizer, Path], Written]] = {
    "huggingface": _huggingface,
    "sentencepiece": _sentencepiece,
    "tiktoken": _tiktoken,
    "vocab": _vocabulary,
}
"""Formats that can be written: tokenizer.json; *.model; *.tiktoken; vocab.txt, or vocab.json with merges.txt."""
