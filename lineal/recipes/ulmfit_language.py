"""Stages lm and tune of ulmfit: an AWD-LSTM language model, trained by truncated back-propagation through time."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace

import torch
from torch import Tensor, nn

from lineal.errors import UsageError
from lineal.models.awd_lstm import AWDLSTM, AWDConfig, Directions, activation_penalties, with_vocabulary
from lineal.models.dropout import Masks
from lineal.models.hf.awd import DIRECTIONS, load_awd, save_awd
from lineal.ops.smoothing import smoothed_loss
from lineal.recipes.config import ULMFiTConfig
from lineal.tokenizers import Tokenizer, load_tokenizer
from lineal.train.build import model_folder
from lineal.train.console import note
from lineal.train.device import Shape
from lineal.train.guard import Guard
from lineal.train.recurrent.options import StageOptions
from lineal.train.recurrent.reading import Carried, both_directions, held_out_figures, listener, spoken
from lineal.train.recurrent.stage import RecurrentStage
from lineal.train.recurrent.steps import Layers, make_optimiser, take_step
from lineal.train.recurrent.text import read_parts
from lineal.train.recurrent.vocabulary import encoded, learn_words, origins, unknown_share
from lineal.train.recurrent.windows import Columns
from lineal.train.run import Run
from lineal.train.session import place_as
from lineal.train.translation.vocabulary import remembered

EVAL_TOKENS = 1 << 16
"""Most held-out tokens that an evaluation on the way reads; the final one reads all."""


def open_models(config: ULMFiTConfig, asked: str) -> tuple[dict[str, AWDLSTM], Tokenizer]:
    """The models of a folder, with the dropout that the options ask for, and their tokenizer."""
    folder = model_folder(asked)
    models = load_awd(folder)
    for model in models.values():
        model.config = replace(model.config, **config.reader.dropouts())
    return models, load_tokenizer(folder)


def fresh_models(config: ULMFiTConfig, shape: AWDConfig, directions: tuple[str, ...]) -> dict[str, AWDLSTM]:
    """Fresh weights for each direction."""
    return {d: AWDLSTM(shape).initialise(config.run.seed + DIRECTIONS.index(d)) for d in directions}


def fresh_shape(config: ULMFiTConfig, vocab_size: int) -> AWDConfig:
    """The shape that the options ask for."""
    reader = config.reader
    shape = AWDConfig(vocab_size, reader.width, reader.hidden, reader.layers, reader.tied)
    return replace(shape, **reader.dropouts())


def asked_directions(options: StageOptions) -> tuple[str, ...]:
    """The directions of a fresh model."""
    return DIRECTIONS if options.directions == "both" else (options.directions,)


def begin(
    config: ULMFiTConfig, documents: list[str], run: Run | None
) -> tuple[dict[str, AWDLSTM], Tokenizer]:
    """The models that the stage starts from, and the tokenizer, which a run keeps in its folder."""
    options = config.stage

    def learned() -> Tokenizer:
        return learn_words(documents, options.vocab_size, options.min_frequency)

    def mine() -> Tokenizer:
        return learned() if run is None else remembered(run.path / "tokenizer", learned)

    if options.stage == "lm":
        if options.model is not None:
            raise UsageError("--stage lm starts from nothing: --stage tune goes on with --model.")
        tokenizer = mine()
        shape = fresh_shape(config, tokenizer.vocab_size)
        return fresh_models(config, shape, asked_directions(options)), tokenizer
    if options.model is None:
        raise UsageError("--stage tune needs --model: a run of --stage lm.")
    models, old = open_models(config, options.model)
    if options.vocabulary == "keep":
        return models, old
    tokenizer = mine()
    origin_V = origins(tokenizer, old)
    known = sum(origin is not None for origin in origin_V)
    note(f"{known:,} of {len(origin_V):,} words were in the vocabulary of {options.model}")
    return {
        direction: with_vocabulary(model, replace(model.config, vocab_size=len(origin_V)), origin_V)
        for direction, model in models.items()
    }, tokenizer


def language_layers(model: AWDLSTM) -> Layers:
    """Layers of a language model: the LSTMs from the lowest, and above them the embedding with the output layer."""
    table, *lstms, output = model.groups()
    return [*lstms, {**table, **output}]


@dataclass
class LanguageStage(RecurrentStage):
    """What the loop works with; see `Stage`."""

    config: ULMFiTConfig
    module: Carried
    tokenizer: Tokenizer
    columns: dict[str, Columns]
    held: list[Tensor]
    optimiser: torch.optim.Optimizer
    steps: int
    shown: tuple[str, ...] = ("loss", "eval/loss")

    @property
    def models(self) -> dict[str, AWDLSTM]:
        """The language models by direction."""
        assert isinstance(self.module.models, Directions)
        return dict(self.module.models.items())

    def before(self) -> dict[str, float]:
        """How well the model of the stage before reads the new text; nothing of a fresh one."""
        return self.evaluate(True) if self.config.stage.stage == "tune" else {}

    def rate_scale(self, step: int) -> float:
        """The window's length over the mean one: a long window is more text for one step."""
        columns = next(iter(self.columns.values()))
        epoch, index = columns.place(step - 1)
        return columns.windows(epoch)[index][1] / columns.mean

    def epoch(self, step: int) -> float:
        """Passes over the text."""
        columns = next(iter(self.columns.values()))
        epoch, index = columns.place(step)
        return epoch + index / len(columns.windows(epoch))

    def step(self, step: int, guard: Guard) -> dict[str, float]:
        """A window in each direction."""
        options = self.config.optimiser
        self.module.train()
        self.optimiser.zero_grad(set_to_none=True)
        losses, penalties, states, tokens = {}, 0.0, {}, 0
        for direction, model in self.models.items():
            window = self.columns[direction].window(step - 1)
            if window.first:
                self.module.carry(direction, None)
            noise = model.draw(
                Masks(self.config.run.seed, step, DIRECTIONS.index(direction)), options.batch_size
            )
            reading = model.read(window.input_BT.to(model.device), self.module.state(direction), noise)
            target_N = window.target_BT.flatten().to(model.device)
            hidden_ND = reading.dropped_BTD.flatten(0, 1)
            total, _, _ = smoothed_loss(hidden_ND, model.head_weight, target_N, bias_V=model.bias)
            loss = total / len(target_N)
            small, slow = activation_penalties(reading, options.activation_penalty, options.temporal_penalty)
            (loss + small + slow).backward()
            losses[direction], states[direction] = loss.detach(), reading.state
            penalties, tokens = penalties + (small + slow).detach(), tokens + window.input_BT.numel()
        guard.watch(step)
        layers = [language_layers(model) for model in self.models.values()]
        norm = take_step(self.optimiser, layers, losses, options.max_grad_norm, guard)
        for direction, state in states.items():
            self.module.carry(direction, state)
        self.module.eval()
        mean = float(torch.stack(list(losses.values())).mean())
        penalty = float(penalties) / len(losses)
        found = {"loss": mean, "penalty": penalty, "grad_norm": norm, "tokens": float(tokens)}
        return found | {"epoch": self.epoch(step)}

    def evaluate(self, whole: bool) -> dict[str, float]:
        """Loss, perplexity and tokens right, of each direction where there are two, and of their mean loss."""
        self.module.eval()
        most, stream_N = 0 if whole else EVAL_TOKENS, torch.cat(self.held)
        turned_N = stream_N.flip(0)
        return both_directions(
            {
                d: held_out_figures(listener(m), turned_N if d == "backward" else stream_N, most)
                for d, m in self.models.items()
            }
        )

    def write(self, run: Run, step: int) -> None:
        """The figures on all held-out text, and the model folder."""
        found = self.evaluate(True)
        run.log(step, {**found, "eval/unknown": unknown_share(self.held, self.tokenizer), "eval/final": True})
        note(f"step {step}: held-out {spoken(found)}")
        tokenizer = self.tokenizer
        with run.final_folder() as folder:
            save_awd(
                self.models, folder, eos_id=tokenizer.eos_id, pad_id=tokenizer.pad_id, bos_id=tokenizer.bos_id
            )
            tokenizer.save(folder)
            facts = {"stage": self.config.stage.stage, "steps": step, **found}
            (folder / "README.md").write_text(card(self.models, facts), encoding="utf-8")


def card(models: dict[str, AWDLSTM], facts: dict) -> str:
    """A model card with the front matter that hubs read."""
    size = sum(p.numel() for model in models.values() for p in model.parameters())
    rows = "\n".join(
        f"| {n} | {v:.4f} |" if isinstance(v, float) else f"| {n} | {v} |" for n, v in facts.items()
    )
    return (
        f"---\nlibrary_name: lineal\ntags: [lineal, ulmfit]\n---\n# An AWD-LSTM ({', '.join(models)}) trained by `lineal run "
        f"ulmfit`\n\n{size:,} parameters.\n\n| fact | value |\n|---|---|\n{rows}\n"
    )


def build(config: ULMFiTConfig, run: Run | None) -> LanguageStage:
    """Text, models and optimiser, on their device."""
    train, held = read_parts(config.stage, f"ulmfit --stage {config.stage.stage}")
    models, tokenizer = begin(config, train, run)
    options = config.optimiser
    documents, judged = encoded(train, tokenizer), encoded(held, tokenizer)
    columns = {
        d: Columns(documents, options.batch_size, options.block, config.run.seed, options.vary_block, d == "backward")
        for d in models
    }  # fmt: skip
    tokens = next(iter(columns.values())).tokens
    note(
        f"{tokens:,} tokens to train on, {sum(map(len, judged)):,} held out, vocabulary {tokenizer.vocab_size:,}, "
        f"{100 * unknown_share(documents, tokenizer):.1f} % unknown"
    )
    steps = next(iter(columns.values())).steps(options.epochs) if options.epochs else config.run.steps
    module = Carried(Directions(models), {d: m.zero_state(options.batch_size) for d, m in models.items()})
    if run is not None:
        place(config, run, module, next(iter(models.values())).config)
    optimiser = make_optimiser(options, [language_layers(model) for model in models.values()])
    return LanguageStage(config, module, tokenizer, columns, judged, optimiser, steps)


def place(config: ULMFiTConfig, run: Run, module: nn.Module, shape: AWDConfig) -> None:
    """Choose the device and put the module there."""
    tokens = config.optimiser.batch_size * config.optimiser.block
    place_as(Shape(shape.width, shape.inner, tokens), module, run, config.reader)


def plan(config: ULMFiTConfig) -> list[str]:
    """What a run would do, without doing it."""
    stage, options = build(config, None), config.optimiser
    size = sum(p.numel() for p in stage.module.models.parameters())
    shape = {n: v for n, v in asdict(next(iter(stage.models.values())).config).items() if "dropout" not in n}
    return [
        "maximise mean over tokens of log π(next token) - AR - TAR",
        f"model: {', '.join(stage.models)}; {size:,} parameters; {', '.join(f'{n} {v}' for n, v in shape.items())}",
        f"a step: {options.batch_size} columns x about {options.block} tokens, {stage.steps:,} steps",
        f"memory, about: weights, gradients and optimiser {16 * size / 2**20:.0f} MiB",
    ]
