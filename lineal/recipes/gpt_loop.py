"""What the recipe gpt adds to the loop of pretrain: its way from a raw text file to tokens, and the shape of its model."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from lineal.models.decoder import Decoder
from lineal.recipes import next_token
from lineal.recipes.config import CorpusOptions, GPTConfig, with_options
from lineal.tokenizers import Tokenizer
from lineal.tokenizers.opening import open_tokenizer
from lineal.tokenizers.text import normalise, split
from lineal.tokenizers.training import KINDS, Learning, train
from lineal.train.build import build_model, fresh_config, fresh_tokenizer, model_folder
from lineal.train.cleaning import clean
from lineal.train.console import note
from lineal.train.data import read_sources
from lineal.train.distributed import ALONE, Ranks, joined
from lineal.train.estimate import estimate
from lineal.train.language import Text, bytes_of, stream_of, text_of
from lineal.train.run import Run
from lineal.train.translation.vocabulary import remembered


@dataclass(frozen=True)
class Corpus:
    """Documents to train on, and to evaluate on (none where a part of the first is held out)."""

    train: list[str]
    held: list[str]


def read_corpus(options: CorpusOptions) -> Corpus:
    """The documents, cleaned as asked."""
    given, judged = read_sources(options, "gpt")
    found = [
        clean(documents) if options.clean == "paper" else documents for documents in (given, judged or [])
    ]
    return Corpus(*found)


def learn(documents: list[str], options: CorpusOptions) -> Tokenizer:
    """BPE over the characters of lower-case words, their last one marked with </w>, as GPT-1's files have it."""
    cut = split.WhitespaceSplit() if options.clean == "paper" else split.BertSplit()
    lower = normalise.Lowercase() if options.clean == "paper" else normalise.Bert(strip_accents=False)
    parts = replace(
        KINDS["char-bpe"].parts, normaliser=lower, splitter=cut, special=("<unk>", "</s>"),
        roles={"unk": "<unk>", "eos": "</s>"},
    )  # fmt: skip
    return train("char-bpe", texts=documents, parts=parts, learning=Learning(vocab_size=options.vocab_size))


def tokenizer_of(config: GPTConfig, corpus: Corpus, folder: Path | None) -> Tokenizer:
    """The tokenizer that --tokenizer names, the model's own, or one learned from the text and kept in `folder`."""
    named = config.model.tokenizer
    if named in ("char", "byte"):
        return fresh_tokenizer(config.model, "".join(sorted(set("".join(corpus.train)))))
    if named is not None or config.model.model is not None:
        return open_tokenizer(named or model_folder(str(config.model.model)))
    if folder is None:
        return learn(corpus.train, config.corpus)
    return remembered(folder, lambda: learn(corpus.train, config.corpus))


def streams(corpus: Corpus, tokenizer: Tokenizer, held_out: float) -> Text:
    """The tokens to train on and to evaluate on."""
    if not corpus.held:
        return text_of(corpus.train, tokenizer, held_out)
    held_N = stream_of(corpus.held, tokenizer)
    return Text(stream_of(corpus.train, tokenizer), held_N, bytes_of(held_N, tokenizer))


def scheduled(config: GPTConfig, tokens: int) -> GPTConfig:
    """The configuration with the steps that its epochs take: epochs x tokens / (batch x block)."""
    options = config.optimiser
    if not config.corpus.epochs:
        return config
    steps = max(1, round(config.corpus.epochs * tokens / (options.batch_size * options.block)))
    return with_options(config, steps=steps)


def plan(config: GPTConfig) -> list[str]:
    """What a run would do, without doing it."""
    corpus = read_corpus(config.corpus)
    tokenizer = tokenizer_of(config, corpus, None)
    text = streams(corpus, tokenizer, config.corpus.held_out)
    options, config = config.optimiser, scheduled(config, len(text.train_N))
    if config.model.model is None:
        shape = fresh_config(config.model, tokenizer.vocab_size, config.model.context or options.block)
    else:
        shape = build_model(config.model, "", options.block, 0)[0].config
    size = sum(p.numel() for p in Decoder(shape).parameters())
    passes = config.run.steps * options.batch_size * options.block / max(1, len(text.train_N))
    return [
        "maximise mean over tokens of log π(next token)",
        f"data: {sum(map(len, corpus.train)):,} characters, {len(text.train_N):,} tokens to train on, "
        f"{len(text.held_N):,} held out; {passes:.3g} passes",
        f"model {shape.layout}: {size:,} parameters, {shape.layers} layers of width {shape.width}, vocabulary "
        f"{tokenizer.vocab_size:,}",
        *estimate(
            shape, config.run.steps, options.batch_size, options.block, options.token_budget, config.model
        ),
    ]


def run(config: GPTConfig, run: Run) -> None:
    """Pre-train on text; resumes by itself when the run folder holds a checkpoint."""
    with joined(config.model.device) as ranks:
        config, parts = build(config, run, ranks)
        next_token.train(config, run, parts)


def build(config: GPTConfig, run: Run, ranks: Ranks = ALONE) -> tuple[GPTConfig, next_token.Parts]:
    """The configuration with its steps; data, model and optimiser on their device."""
    corpus, folder = read_corpus(config.corpus), run.path / "tokenizer"
    if ranks.first:
        tokenizer_of(config, corpus, folder)
    ranks.gather_json(0)
    tokenizer = tokenizer_of(config, corpus, folder)
    text = streams(corpus, tokenizer, config.corpus.held_out)
    config, options = scheduled(config, len(text.train_N)), config.optimiser
    note(
        f"{len(text.train_N):,} tokens to train on, {len(text.held_N):,} held out, vocabulary {tokenizer.vocab_size:,}"
    )
    if config.model.model is not None:
        decoder, _ = build_model(config.model, "", options.block, config.run.seed)
    else:
        shape = fresh_config(config.model, tokenizer.vocab_size, config.model.context or options.block)
        decoder = Decoder(shape).initialise(config.run.seed)
    return config, next_token.assemble(config, run, ranks, text, decoder, tokenizer)
