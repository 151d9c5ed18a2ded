"""Completions token by token, as they are drawn (`Tokenizer.stream` makes text of them)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Unpack

from lineal.generate.engine import Batch, Interrupted, Options, requests_of
from lineal.generate.prefill import Speaker, evaluating
from lineal.generate.sampling import Sampling


@dataclass(frozen=True)
class Drawn:
    """A token as it is drawn: of which prompt's which sample, its log-probability, and how it ended the completion.

    finish: None while the completion goes on; at its last token what `Completion.finish` says.
    """

    prompt: int
    sample: int
    token: int
    logp: float
    finish: str | None


def stream(
    model: Speaker, prompts: Sequence[Sequence[int]], settings: Sampling, **options: Unpack[Options]
) -> Iterator[Drawn]:
    """The tokens of `generate(model, prompts, settings, **options)`, each as soon as it is drawn.

    The same completions come out, token for token: a step of the batch gives the next token of every row in it.
    Abandoning the iterator abandons what is left. `progress` is not called.
    """
    requests = requests_of(model, prompts, settings, options)
    samples, should_stop = options.get("samples", 1), options.get("should_stop")
    if not requests:
        return
    with evaluating(model):
        batch = Batch(model, requests, settings, options)
    while batch.busy:
        if should_stop is not None and should_stop():
            raise Interrupted("stopped before the last token")
        # Entered anew for each step: what the caller does between two tokens keeps its own mode and gradients.
        with evaluating(model):
            batch.step()
            numbers = [row.number for row in batch.rows]
            tokens, logps = batch.token_N.tolist(), batch.logp_N.tolist()
            finish = {number: completion.finish for number, completion in batch.leave()}
        for number, token, logp in zip(numbers, tokens, logps, strict=True):
            yield Drawn(number // samples, number % samples, token, logp, finish.get(number))
