"""Prompts that wait: read in chunks, longest first, handed out as slots come free."""

from __future__ import annotations

import torch

from lineal.generate import prefill
from lineal.generate.prefill import Request, Waiting, evaluating, read_prompts
from lineal.models.decoder import Decoder

PROMPTS = [(1,), (2, 3, 4), (5, 6), (2, 3, 4), (7, 8, 9, 10)]


def requests(samples: int) -> list[Request]:
    return [Request(samples * i + j, p, 0, 5) for i, p in enumerate(PROMPTS) for j in range(samples)]


@torch.no_grad()
def test_reading_prompts_together_is_reading_each(model: Decoder) -> None:
    cache, logits_PV = read_prompts(model, PROMPTS, torch.float64)
    assert cache.lengths == [len(p) for p in PROMPTS]
    for prompt, logits_V in zip(PROMPTS, logits_PV, strict=True):
        torch.testing.assert_close(
            logits_V, model.logits(model(torch.tensor([prompt])))[0, -1], rtol=0, atol=1e-12
        )


@torch.no_grad()
def test_everyone_gets_their_own_prompts_logits_and_keys(model: Decoder, monkeypatch) -> None:
    for chunk in (1, 2, 64):
        monkeypatch.setattr(prefill, "CHUNK_PROMPTS", chunk)
        waiting, numbers = Waiting(model, requests(2), 4, torch.float64), []
        while waiting:
            joiners = waiting.take(3)
            assert 1 <= len(joiners.requests) <= 3
            for request, source, logits_V in zip(
                joiners.requests, joiners.sources, joiners.logits_NV, strict=True
            ):
                whole = model.logits(model(torch.tensor([request.prompt])))[0, -1]
                torch.testing.assert_close(logits_V, whole, rtol=0, atol=1e-12)
                assert joiners.cache.lengths[source] == len(request.prompt)
                numbers.append(request.number)
        assert sorted(numbers) == list(range(10))


@torch.no_grad()
def test_a_chunk_holds_no_more_than_can_start(model: Decoder) -> None:
    waiting = Waiting(model, requests(2), 4, torch.float64)
    joiners = waiting.take(1)
    # The longest prompt comes first, then the one asked for twice: six rows for four slots.
    assert joiners.requests[0].prompt == (7, 8, 9, 10)
    assert joiners.cache.slots == 2


def test_evaluating_restores_each_modules_mode(make) -> None:
    model = make()
    model.train()
    model.blocks[1].eval()
    before = [module.training for module in model.modules()]
    with evaluating(model):
        assert not any(module.training for module in model.modules())
        assert not torch.is_grad_enabled()
    assert [module.training for module in model.modules()] == before
    assert torch.is_grad_enabled()
