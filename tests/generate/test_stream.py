"""Tokens as they are drawn against the completions of `generate`."""

from __future__ import annotations

from collections import defaultdict
from itertools import islice

import pytest
import torch

from lineal.generate.engine import Interrupted, generate
from lineal.generate.sampling import Sampling
from lineal.generate.stream import stream
from lineal.models.decoder import Decoder
from lineal.types import Completion

PROMPTS = [[3], [5, 1, 7], [2, 2]]
SETTINGS = Sampling(max_new_tokens=9, top_p=0.9, frequency_penalty=0.3, max_batch=4)


def test_the_stream_is_the_completions_token_by_token(model: Decoder) -> None:
    asked = {"samples": 3, "seed": [1, 2, 3], "eos_id": 0}
    found: dict[tuple[int, int], list] = defaultdict(list)
    for drawn in stream(model, PROMPTS, SETTINGS, **asked):
        found[drawn.prompt, drawn.sample].append(drawn)
    for p, group in enumerate(generate(model, PROMPTS, SETTINGS, **asked)):
        for s, completion in enumerate(group):
            own = found[p, s]
            assert [one.finish for one in own[:-1]] == [None] * (len(own) - 1)
            ids, logp = tuple(one.token for one in own), tuple(one.logp for one in own)
            assert Completion(ids, logp, own[-1].finish) == completion


def test_tokens_come_before_the_completion_is_done(model: Decoder) -> None:
    first = list(islice(stream(model, PROMPTS, SETTINGS, samples=1), 3))
    assert sorted(one.prompt for one in first) == [0, 1, 2]


def test_the_model_is_as_it_was_between_two_tokens(model: Decoder) -> None:
    model.train()
    try:
        for _ in stream(model, PROMPTS[:1], SETTINGS):
            assert model.training and torch.is_grad_enabled()
    finally:
        model.eval()


def test_it_stops_when_told_to(model: Decoder) -> None:
    asked = iter([False, False, True])
    with pytest.raises(Interrupted):
        list(stream(model, PROMPTS[:1], SETTINGS, should_stop=lambda: next(asked)))


def test_nothing_asked_is_nothing_drawn(model: Decoder) -> None:
    assert list(stream(model, [], SETTINGS)) == []
