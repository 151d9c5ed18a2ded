"""What each filter does to one distribution: the probabilities before and after every one of them, in order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from lineal.generate.draw import draw
from lineal.generate.penalties import Memory, act
from lineal.generate.prefill import Speaker, evaluating, room
from lineal.generate.random import row_key, uniform_int
from lineal.generate.sampling import Sampling

FORMULAS = {
    "repetition": "logit / {value:g}^n, n = times generated",
    "frequency": "logit - {value:g} n, n = times generated",
    "presence": "logit - {value:g} where generated",
    "no_repeat_ngram": "no {value:g} tokens occur twice",
    "temperature": "softmax(logit / {value:g})",
    "top_k": "the {value:g} most probable",
    "top_p": "the fewest that sum to {value:g}",
    "min_p": "at least {value:g} of the most probable",
}
"""What each filter does, in a few words."""
SIGNED = "logit / {value:g} where positive, x {value:g} where negative, once if seen"
"""The same of repetition in its mode huggingface."""


@dataclass(frozen=True)
class Stage:
    """The distribution after a filter.

    name: the filter, "model" before all of them. what: its formula with its number. probability_V: softmax(logits).
    logit_V: -inf where a token was cut.
    """

    name: str
    what: str
    logit_V: Float[Tensor, " V"]
    probability_V: Float[Tensor, " V"]

    @property
    def kept(self) -> int:
        """Tokens that can still be drawn."""
        return int((self.logit_V > -torch.inf).sum())

    @property
    def entropy(self) -> float:
        """-sum p log p in nats: exp of it is about how many tokens are open."""
        return float(torch.special.entr(self.probability_V).sum())


@dataclass(frozen=True)
class Explanation:
    """The stages of one distribution, and the token that the seed draws from the last (the most probable when greedy)."""

    stages: tuple[Stage, ...]
    token: int

    def notable(self, count: int) -> list[int]:
        """The tokens worth showing: the most probable at the start or at the end, in the order of the start."""
        first_V, last_V = self.stages[0].probability_V, self.stages[-1].probability_V
        best_V = torch.maximum(first_V, last_V)
        chosen = best_V.topk(min(count, len(best_V))).indices.tolist()
        chosen += [] if self.token in chosen else [self.token]
        return sorted(chosen, key=lambda token: (-first_V[token].item(), token))


def explain(
    model: Speaker,
    prompt: Sequence[int],
    settings: Sampling,
    *,
    generated: Sequence[int] = (),
    seed: int = 0,
) -> Explanation:
    """The next token's distribution after `prompt` and `generated`, filter by filter.

    generated: tokens taken to have been generated already: repetition (as a power), frequency and presence count these.
    Raises UsageError for a prompt that leaves no room.
    """
    room(model, 0, [*prompt, *generated], 1)
    with evaluating(model):
        hidden_1TD = model(torch.tensor([[*prompt, *generated]], device=model.device))
        logit_1V = model.logits(hidden_1TD[:, -1]).double().cpu()
    memory = Memory(settings, 1, model.config.vocab_size) if settings.penalises else None
    if memory is not None:
        memory.join(0, [tuple(prompt)])
        for number, token in enumerate(generated, 1):
            memory.push(torch.tensor([token]), len(prompt) + number)
    stages = [_stage("model", "softmax(logit)", logit_1V)]
    for name in settings.filters:
        logit_1V = act(name, logit_1V, settings, memory)
        stages.append(_stage(name, _words(name, settings), logit_1V))
    if settings.temperature == 0:
        return Explanation(tuple(stages), int(logit_1V.argmax()))
    position_1 = torch.tensor([len(generated)])
    uniform_1 = uniform_int(torch.tensor([row_key(seed, 0, 0)]), position_1)
    return Explanation(tuple(stages), int(draw(logit_1V.log_softmax(-1), uniform_1)))


def _stage(name: str, what: str, logit_1V: Tensor) -> Stage:
    return Stage(name, what, logit_1V[0], logit_1V[0].softmax(-1))


def _words(name: str, settings: Sampling) -> str:
    if name == "temperature" and settings.temperature == 0:
        return "greedy: the most probable of what is left"
    signed = name == "repetition" and settings.repetition_mode == "huggingface"
    return (SIGNED if signed else FORMULAS[name]).format(value=settings.value(name))
