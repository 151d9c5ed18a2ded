"""What tagger trains: scores of tags for every word, and with ELMo the mixture of its layers."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lineal.recipes import staged
from lineal.recipes.config import TaggerConfig
from lineal.train.console import note
from lineal.train.device import Shape
from lineal.train.finetune.scores import Scores, scores
from lineal.train.guard import Guard
from lineal.train.order import Order
from lineal.train.recurrent.reading import spoken
from lineal.train.recurrent.stage import RecurrentStage
from lineal.train.recurrent.steps import make_optimiser, take_step
from lineal.train.run import Run
from lineal.train.session import place_as
from lineal.train.tagging.conll import Tagged, TaggingTask, read_tagging
from lineal.train.tagging.features import ElmoFeatures, make_features
from lineal.train.tagging.predictor import TaggerFacts, WordTagger, save_tagger
from lineal.train.tagging.spans import span_scores


@dataclass
class TagStage(RecurrentStage):
    """What the loop works with; see `Stage`."""

    config: TaggerConfig
    module: WordTagger
    facts: TaggerFacts
    task: TaggingTask
    optimiser: torch.optim.Optimizer
    steps: int
    order: Order
    shown: tuple[str, ...] = ("loss", "accuracy", "eval/accuracy")

    def epoch(self, step: int) -> float:
        """Passes over the sentences."""
        return self.order.epoch(step, self.config.optimiser.batch_size)

    def step(self, step: int, guard: Guard) -> dict[str, float]:
        """A batch of sentences."""
        self.module.train()
        # Dropout draws from torch's own generator: seeded by the step, so that a resumed run draws the same.
        torch.manual_seed((self.config.run.seed << 32) + step)
        self.optimiser.zero_grad(set_to_none=True)
        rows = [self.task.train[i] for i in self.order.batch(step - 1, self.config.optimiser.batch_size)]
        score_BTC, mask_BT = self.module([row.words for row in rows])
        target_N = self._targets(rows)
        score_NC = score_BTC[mask_BT.to(score_BTC.device)]
        loss = F.cross_entropy(score_NC, target_N.to(score_NC.device))
        extra = loss.new_zeros(())
        if isinstance(self.module.features, ElmoFeatures):
            extra = self.config.tagger.mix_decay * self.module.features.mix.score.square().sum()
        (loss + extra).backward()
        guard.watch(step)
        layers = [moving(self.module)]
        norm = take_step(
            self.optimiser, [layers], {"loss": loss.detach()}, self.config.optimiser.max_grad_norm, guard
        )
        self.module.eval()
        right = (score_NC.detach().argmax(-1).cpu() == target_N).double().mean()
        found = {"loss": float(loss.detach()), "accuracy": float(right), "grad_norm": norm}
        return found | {"tokens": float(len(target_N)), "epoch": self.epoch(step)} | self._mix()

    def _targets(self, rows: list[Tagged]) -> Tensor:
        number = {tag: i for i, tag in enumerate(self.task.tags)}
        return torch.tensor([number[tag] for row in rows for tag in row.tags])

    def _mix(self) -> dict[str, float]:
        features = self.module.features
        if not isinstance(features, ElmoFeatures):
            return {}
        shares = {f"mix/layer_{i}": w for i, w in enumerate(features.mix.weights.tolist())}
        return shares | {"mix/gamma": features.mix.gamma.item()}

    def evaluate(self, whole: bool) -> dict[str, float]:
        """The scores of the sentences to evaluate on."""
        return self.judged()[1]

    def judged(self) -> tuple[Scores, dict[str, float]]:
        """Of single tags; and all figures, F1 of spans among them where the tags are spans."""
        held = self.task.held
        probability = self.module.probabilities([row.words for row in held])
        found = scores(torch.cat(probability), self._targets(held), self.task.tags)
        figures = found.metrics()
        if self.config.tags.spans:
            told = [[self.task.tags[int(n)] for n in p_TC.argmax(-1)] for p_TC in probability]
            spans = span_scores(told, [row.tags for row in held])
            figures |= {f"eval/span_{n}": float(getattr(spans, n)) for n in ("precision", "recall", "f1")}
        return found, figures

    def write(self, run: Run, step: int) -> None:
        """The scores, the mixture, and the folder of the tagger."""
        found, figures = self.judged()
        run.log(step, {**figures, **self._mix(), "eval/prompts": len(self.task.held), "eval/final": True})
        run.sample(step, found.record())
        if mix := self._mix():
            run.sample(step, {"kind": "mix", "task": str(self.config.tags.data), "weights": mix})
        note(f"step {step}: {len(self.task.held):,} sentences: {spoken(figures)}")
        with run.final_folder() as folder:
            save_tagger(folder, self.module, self.facts)
            rows = "\n".join(f"| {n} | {v:.4f} |" for n, v in {**figures, **self._mix()}.items())
            text = f"---\nlibrary_name: lineal\ntags: [lineal, tagger]\n---\n# A tagger\n\n| fact | value |\n|---|---|\n{rows}\n"
            (folder / "README.md").write_text(text, encoding="utf-8")


def moving(module: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that are trained."""
    return {name: p for name, p in module.named_parameters() if p.requires_grad}


def build(config: TaggerConfig, run: Run | None) -> TagStage:
    """Sentences, tagger and optimiser, on their device."""
    task, options = read_tagging(config.tags), config.optimiser
    counts = Counter(word.lower() for row in task.train for word in row.words)
    # A word seen once teaches the vector of unknown words instead.
    words = tuple(sorted(word for word, n in counts.items() if n > 1))
    facts = TaggerFacts(task.tags, words, config.tags, config.tagger)
    module = WordTagger(facts, make_features(config.tags), config.run.seed)
    if run is not None:
        width = 2 * config.tagger.lstm_width
        place_as(Shape(width, 2 * width, options.batch_size * 20), module, run, config.tagger)
        if module.features is not None:
            module.features.keep([row.words for row in (*task.train, *task.held)])
    optimiser = make_optimiser(options, [[moving(module)]])
    order = Order(len(task.train), config.run.seed)
    steps = config.run.steps
    if options.epochs:
        steps = max(1, math.ceil(options.epochs * len(task.train) / options.batch_size))
    note(
        f"{len(task.train):,} sentences to train on, {len(task.held):,} to evaluate on, {len(task.tags)} tags"
    )
    return TagStage(config, module, facts, task, optimiser, steps, order)


def plan(config: TaggerConfig) -> list[str]:
    """What a run would do, without doing it."""
    stage = build(config, None)
    size = sum(p.numel() for p in moving(stage.module).values())
    return [
        "maximise mean over words of log p(tag | sentence)",
        f"data: {len(stage.task.train):,} sentences to train on, {len(stage.task.held):,} to evaluate on; "
        f"{len(stage.task.tags)} tags",
        f"model: {size:,} parameters that are trained; features: {config.tags.features}",
        f"a step: {config.optimiser.batch_size} sentences, {stage.steps:,} steps",
    ]


def run(config: TaggerConfig, run: Run) -> None:
    """Train a tagger; resumes by itself when the run folder holds a checkpoint."""
    with staged.alone("tagger", config.tagger.device):
        staged.train(config.run, run, build(config, run))
