"""What elmo trains: both directions on windows of a corpus, with the softmax over all words or over a sample."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from lineal.errors import UsageError
from lineal.models.char_cnn import CharacterConfig
from lineal.models.dropout import drop
from lineal.models.elmo import DIRECTIONS, BiLM, ElmoConfig, State
from lineal.models.hf.elmo import save_elmo
from lineal.objectives.sampled import log_uniform, sampled_cross_entropy
from lineal.ops.smoothing import smoothed_loss
from lineal.recipes import staged
from lineal.recipes.config import ElmoRecipeConfig
from lineal.train.console import note
from lineal.train.device import Shape
from lineal.train.files import replace_file
from lineal.train.guard import Guard
from lineal.train.recurrent.corpus import TypedCorpus, count_words, sentences, typed, vocabulary
from lineal.train.recurrent.reading import Carried, Listener, both_directions, held_out_figures, spoken
from lineal.train.recurrent.stage import RecurrentStage
from lineal.train.recurrent.steps import make_optimiser, take_step
from lineal.train.recurrent.text import read_parts
from lineal.train.recurrent.windows import Columns, uniform
from lineal.train.run import Run
from lineal.train.session import place_as

EVAL_TOKENS = 1 << 15
"""Most held-out words that an evaluation on the way reads; the final one reads all."""
VOCABULARY = "vocab.txt"


@dataclass
class BiLMStage(RecurrentStage):
    """What the loop works with; see `Stage`."""

    config: ElmoRecipeConfig
    module: Carried
    words: list[str]
    train: TypedCorpus
    held: TypedCorpus
    columns: dict[str, Columns]
    optimiser: torch.optim.Optimizer
    steps: int
    shown: tuple[str, ...] = ("loss", "eval/loss")

    @property
    def model(self) -> BiLM:
        """The model of both directions."""
        assert isinstance(self.module.models, BiLM)
        return self.module.models

    def rate_scale(self, step: int) -> float:
        """The window's length over the mean one."""
        columns = self.columns["forward"]
        epoch, index = columns.place(step - 1)
        return columns.windows(epoch)[index][1] / columns.mean if self.config.optimiser.vary_block else 1.0

    def epoch(self, step: int) -> float:
        """Passes over the text."""
        columns = self.columns["forward"]
        epoch, index = columns.place(step)
        return epoch + index / len(columns.windows(epoch))

    def step(self, step: int, guard: Guard) -> dict[str, float]:
        """A window in each direction; the words of both are read once."""
        seed, model = self.config.run.seed, self.model
        model.train()
        # Dropout draws from torch's own generator: seeded by the step, so that a resumed run draws the same.
        torch.manual_seed((seed << 32) + step)
        self.optimiser.zero_grad(set_to_none=True)
        windows = {d: self.columns[d].window(step - 1) for d in DIRECTIONS}
        types_U, place_N = torch.cat([w.input_BT.flatten() for w in windows.values()]).unique(
            return_inverse=True
        )
        word_UD = model.words(self.train.character_UC[types_U].long().to(model.device))
        losses, states = [], {}
        for number, (direction, window) in enumerate(windows.items()):
            if window.first:
                self.module.carry(direction, None)
            size = window.input_BT.numel()
            own_N = place_N[number * size : (number + 1) * size].to(model.device)
            word_BTD = word_UD[own_N].view(*window.input_BT.shape, -1)
            outputs, states[direction] = model.read(word_BTD, direction, self.module.state(direction))
            target_N = self.train.target_U[window.target_BT.flatten()].to(model.device)
            losses.append(self._loss(outputs[-1].flatten(0, 1), target_N, step, number))
        loss = torch.stack(losses).mean()
        loss.backward()
        guard.watch(step)
        layers = [dict(model.named_parameters())]
        norm = take_step(
            self.optimiser, [layers], {"loss": loss.detach()}, self.config.optimiser.max_grad_norm, guard
        )
        for direction, state in states.items():
            self.module.carry(direction, state)
        model.eval()
        tokens = sum(w.input_BT.numel() for w in windows.values())
        found = {"loss": float(loss.detach()), "grad_norm": norm, "tokens": float(tokens)}
        return found | {"epoch": self.epoch(step)}

    def _loss(self, hidden_ND: Tensor, target_N: Tensor, step: int, number: int) -> Tensor:
        p, samples, model = self.config.model.dropout, self.config.sentences.samples, self.model
        hidden_ND = drop(hidden_ND, p) if p else hidden_ND
        if not samples or model.softmax is None:
            weight_VD, bias_V = model.output_layer()
            return smoothed_loss(hidden_ND, weight_VD, target_N, bias_V=bias_V)[0] / len(target_N)
        place_K = np.arange(samples, dtype=np.uint64)
        uniform_K = torch.from_numpy(uniform(self.config.run.seed, step, number, place_K))
        sample_K = log_uniform(uniform_K, len(self.words)).to(hidden_ND.device)
        return sampled_cross_entropy(hidden_ND, target_N, model.softmax.weight, model.softmax.bias, sample_K)

    def evaluate(self, whole: bool) -> dict[str, float]:
        """Loss over the whole vocabulary, perplexity and words right, in both directions."""
        self.model.eval()
        stream_N = torch.cat(self.held.documents)
        most = 0 if whole else EVAL_TOKENS
        return both_directions({
            d: held_out_figures(self._listener(d), stream_N.flip(0) if d == "backward" else stream_N, most)
            for d in DIRECTIONS
        })  # fmt: skip

    def _listener(self, direction: str) -> Listener:
        model, held = self.model, self.held

        def read(type_BT: Tensor, state: State) -> tuple[Tensor, State]:
            types_U, place_N = type_BT.flatten().unique(return_inverse=True)
            word_UD = model.words(held.character_UC[types_U].long().to(model.device))
            outputs, after = model.read(word_UD[place_N].view(*type_BT.shape, -1), direction, state)
            return outputs[-1], after

        def target(type_N: Tensor) -> Tensor:
            return held.target_U[type_N].to(model.device)

        return Listener(model.zero_state, read, *model.output_layer(), target)

    def write(self, run: Run, step: int) -> None:
        """The figures on all held-out text, and the model folder."""
        found = self.evaluate(True)
        run.log(step, {**found, "eval/unknown": self.held.unknown_share(), "eval/final": True})
        note(f"step {step}: held-out {spoken(found)}")
        with run.final_folder() as folder:
            save_elmo(self.model, folder)
            replace_file(folder / VOCABULARY, "".join(word + "\n" for word in self.words).encode())
            (folder / "README.md").write_text(card(self.model, {"steps": step, **found}), encoding="utf-8")


def card(model: BiLM, facts: dict) -> str:
    """A model card with the front matter that hubs read."""
    size = sum(p.numel() for p in model.parameters())
    rows = "\n".join(f"| {name} | {value} |" for name, value in facts.items())
    return (
        "---\nlibrary_name: lineal\ntags: [lineal, elmo]\n---\n# A bidirectional language model trained by `lineal run elmo`"
        f"\n\n{size:,} parameters.\n\n| fact | value |\n|---|---|\n{rows}\n"
    )


def shape_of(config: ElmoRecipeConfig, words: int) -> ElmoConfig:
    """The shape that the options ask for."""
    options, clip = config.model, config.model.clip or None
    if len(options.filter_widths) != len(options.filter_counts):
        raise UsageError(
            f"--filter-widths names {len(options.filter_widths)} widths, --filter-counts {len(options.filter_counts)} "
            "numbers: give as many."
        )
    reader = CharacterConfig(
        tuple(zip(options.filter_widths, options.filter_counts, strict=True)), options.highway,
        options.character_width, options.projection, options.activation,
    )  # fmt: skip
    return ElmoConfig(
        reader, options.cells, options.layers, options.residual, clip, clip, options.dropout, words
    )


def read_corpora(config: ElmoRecipeConfig, run: Run | None) -> tuple[list[str], TypedCorpus, TypedCorpus]:
    """The vocabulary, which a run keeps in its folder, and the corpora to train on and to evaluate on."""
    options = config.sentences
    train, held = read_parts(options, "elmo")
    train_texts, held_texts = ([sentences(document) for document in part] for part in (train, held))
    words = _remembered(run, lambda: vocabulary(count_words(train_texts), options.vocab_size))
    most = CharacterConfig.max_characters
    return words, typed(train_texts, words, most), typed(held_texts, words, most)


def _remembered(run: Run | None, make) -> list[str]:
    path = None if run is None else run.path / VOCABULARY
    if path is not None and path.is_file():
        return read_vocabulary(path)
    words = make()
    if path is not None:
        replace_file(path, "".join(word + "\n" for word in words).encode())
    return words


def read_vocabulary(path: Path) -> list[str]:
    """The words of a vocab.txt, one a line."""
    return path.read_text(encoding="utf-8").removesuffix("\n").split("\n")


def build(config: ElmoRecipeConfig, run: Run | None) -> BiLMStage:
    """Corpora, model and optimiser, on their device."""
    words, train, held = read_corpora(config, run)
    options = config.optimiser
    columns = {
        d: Columns(
            train.documents, options.batch_size, options.block, config.run.seed, options.vary_block, d == "backward"
        )
        for d in DIRECTIONS
    }  # fmt: skip
    note(
        f"{columns['forward'].tokens:,} words to train on, of {len(train.target_U):,} types, vocabulary {len(words):,}, "
        f"{100 * train.unknown_share():.1f} % unknown"
    )
    model = BiLM(shape_of(config, len(words))).initialise(config.run.seed)
    module = Carried(model, {d: model.zero_state(options.batch_size) for d in DIRECTIONS})
    if run is not None:
        _place(config, run, module, model)
    optimiser = make_optimiser(options, [[dict(model.named_parameters())]])
    steps = columns["forward"].steps(options.epochs) if options.epochs else config.run.steps
    return BiLMStage(config, module, words, train, held, columns, optimiser, steps)


def _place(config: ElmoRecipeConfig, run: Run, module: nn.Module, model: BiLM) -> None:
    tokens = config.optimiser.batch_size * config.optimiser.block
    place_as(Shape(model.config.projection, model.config.inner, tokens), module, run, config.model)


def plan(config: ElmoRecipeConfig) -> list[str]:
    """What a run would do, without doing it."""
    stage, options = build(config, None), config.optimiser
    size = sum(p.numel() for p in stage.model.parameters())
    over = f"{config.sentences.samples:,} sampled words" if config.sentences.samples else "all words"
    return [
        "maximise mean over words of log p(next | before) + log p(previous | after)",
        f"model: {size:,} parameters; softmax over {over} of {len(stage.words):,}",
        f"a step: {options.batch_size} columns x {options.block} words in each direction, {stage.steps:,} steps",
        f"memory, about: weights, gradients and optimiser {16 * size / 2**20:.0f} MiB",
    ]


def run(config: ElmoRecipeConfig, run: Run) -> None:
    """Train both directions; resumes by itself when the run folder holds a checkpoint."""
    with staged.alone("elmo", config.model.device):
        staged.train(config.run, run, build(config, run))
