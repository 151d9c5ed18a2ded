"""What the recipe moe adds to the loop of pretrain: its models, its losses of balance, and who takes which tokens."""

from __future__ import annotations

from dataclasses import replace

import torch

from lineal.errors import UsageError
from lineal.models.decoder import MIXTURES, Decoder, active_parameters, llama_config, parameter_count
from lineal.models.gating import ExpertsConfig
from lineal.models.lstm import LSTMConfig, RecurrentModel, recurrent_parameters
from lineal.objectives.balance import Balance
from lineal.recipes import next_token
from lineal.recipes.config import ExpertOptions, MixtureConfig, ModelOptions
from lineal.tokenizers import Tokenizer
from lineal.train.build import build_model, fresh_tokenizer
from lineal.train.distributed import ALONE, Ranks, joined
from lineal.train.language import Reader
from lineal.train.run import Run


def plan(config: MixtureConfig) -> list[str]:
    """What a run would do, without doing it."""
    _, documents, alphabet, context = next_token.read(config)
    options, model = config.experts, config.model
    tokenizer = fresh_tokenizer(model, alphabet)
    whole, active = _sizes(shape_of(model, options, tokenizer.vocab_size, context))
    rows, block = config.optimiser.batch_size, config.optimiser.block
    tokens, flops = rows * block, 6 * active * rows * block
    balance = balance_of(options)
    return [
        "maximise mean over tokens of log π(next token) - w_importance CV²(importance) - w_load CV²(load), "
        f"w = {balance.importance:g}, {balance.load:g}",
        f"data: {sum(map(len, documents)):,} characters of text, {config.data.held_out:g} of it held out",
        f"model {options.body}: {whole:,} parameters, of which each token meets {active:,}; vocabulary "
        f"{tokenizer.vocab_size}",
        f"a step: {rows} sequences x {block} tokens = {tokens:,} tokens, about {flops / 1e9:,.0f} GFLOP",
        f"memory, about: weights, gradients and optimiser {4 * whole * 4 / 2**20:.0f} MiB",
        f"time, about: {config.run.steps * flops / _speed() / 60:,.0f} minutes for {config.run.steps:,} steps on this "
        "machine's CPU (from one matrix product; a GPU is 100 times as fast)",
    ]


def run(config: MixtureConfig, run: Run) -> None:
    """Train a mixture of experts on text; resumes by itself when the run folder holds a checkpoint."""
    with joined(config.model.device) as ranks:
        next_token.train(config, run, build(config, run, ranks))


def build(config: MixtureConfig, run: Run, ranks: Ranks = ALONE) -> next_token.Parts:
    """Data, model and optimiser, placed on their device, and the losses of balance."""
    balance = balance_of(config.experts)
    if config.experts.expert_parallel and ranks.world == 1:
        raise UsageError("--expert-parallel spreads experts over processes: start several with torchrun.")

    def make(model: ModelOptions, alphabet: str, context: int, seed: int) -> tuple[Reader, Tokenizer]:
        return mixture(model, config.experts, alphabet, context, seed)

    parts = next_token.build(config, run, ranks, make)
    return replace(parts, balance=balance)


def balance_of(options: ExpertOptions) -> Balance:
    """The two losses with the options' weights."""
    if options.load_weight and options.gate != "noisy_top_k" and options.experts > 1:
        raise UsageError(
            f"--gate {options.gate} has no noise, and without noise there is no smooth estimate of the load: give "
            "--load-weight 0, or --gate noisy_top_k."
        )
    return Balance(options.importance_weight, options.load_weight)


def mixture(
    model: ModelOptions, options: ExpertOptions, alphabet: str, context: int, seed: int
) -> tuple[Reader, Tokenizer]:
    """The model with its experts and its tokenizer: fresh, or one of a folder that has experts."""
    if model.model is not None:
        decoder, tokenizer = build_model(model, alphabet, context, seed)
        if decoder.config.experts is None:
            raise UsageError(
                f"--model {model.model} has no experts: lineal run pretrain trains it further, and {', '.join(MIXTURES)} "
                "are the layouts that have them."
            )
        return decoder, tokenizer
    tokenizer = fresh_tokenizer(model, alphabet)
    shape = shape_of(model, options, tokenizer.vocab_size, model.context or context)
    built = RecurrentModel(shape) if isinstance(shape, LSTMConfig) else Decoder(shape)
    return built.initialise(seed), tokenizer


def shape_of(model: ModelOptions, options: ExpertOptions, vocab_size: int, context: int):
    """The configuration of a fresh model around its experts."""
    recurrent = options.body == "lstm"
    experts = ExpertsConfig(
        options.experts,
        options.chosen,
        model.inner or 4 * model.width,
        activation=options.expert_activation or ("relu" if recurrent else "swiglu"),
        gate=options.gate,
        groups=options.groups,
        capacity=options.capacity,
        overflow=options.overflow,
    )
    if recurrent:
        return LSTMConfig(vocab_size, model.width, context, layers=2, experts=experts, dropout=model.dropout)
    plain = experts.groups == 1 and experts.activation == "swiglu"
    return llama_config(
        vocab_size,
        model.width,
        model.layers,
        model.heads,
        experts.inner,
        context,
        kv_heads=model.kv_heads or model.heads,
        dropout=model.dropout,
        layout="mixtral" if plain else "lineal_moe",
        experts=experts,
    )


def _sizes(shape) -> tuple[int, int]:
    if isinstance(shape, LSTMConfig):
        return recurrent_parameters(shape)
    return parameter_count(shape), active_parameters(shape)


def _speed() -> float:
    """Floating-point operations a second of one matrix product, here and now."""
    import time

    x = torch.ones(512, 512)
    best = 1.0
    for _ in range(5):
        begun = time.perf_counter()
        torch.mm(x, x)
        best = min(best, time.perf_counter() - begun)
    return 2 * 512**3 / best
