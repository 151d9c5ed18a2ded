"""Policies with experts: the sampler tells which it used, scoring follows them when told to, and the change is counted."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from lineal.environments.text import Example
from lineal.generate.engine import generate
from lineal.generate.sampling import Sampling
from lineal.models.decoder import Decoder, mixtral_config, qwen3_moe_config
from lineal.models.gating import ExpertsConfig, Routes
from lineal.models.policy import ActorCritic
from lineal.train.buffer import load_experience, save_experience
from lineal.train.collect import Experience, to_rollout
from lineal.train.gathered import Gathered, _routed
from lineal.train.run import Run
from lineal.train.score import Sheet, Want, score
from lineal.types import Completion, Rollout

PROMPTS = [[1, 2, 3], [4, 5], [6, 7, 8, 9]]


def policy(layout: str = "mixtral") -> Decoder:
    if layout == "mixtral":
        config = mixtral_config(17, 16, 2, 2, 12, 40)
    else:
        experts = ExpertsConfig(6, 3, 8, renormalise=False, dense=(0,))
        config = qwen3_moe_config(17, 16, 3, 2, 12, 40, experts=experts)
    decoder = Decoder(config).initialise(0).double().eval()
    made = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in decoder.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=made, dtype=torch.float64))
    return decoder


def sampled(decoder: Decoder, max_batch: int = 4) -> list[list[Completion]]:
    """Three completions of each prompt, more than fit in the batch at once."""
    settings = Sampling(max_new_tokens=9, max_batch=max_batch)
    return generate(decoder, PROMPTS, settings, samples=3, eos_id=0, seed=3, routes=True)


def rollout_of(groups: list[list[Completion]]) -> Rollout:
    examples = [Example("") for _ in groups]
    kept = Gathered(examples, [list(p) for p in PROMPTS], groups, [], [[0.0] * 3 for _ in groups])
    return to_rollout(kept, "cpu")


def moved(decoder: Decoder) -> Decoder:
    """The same policy after a step that its gates did not like."""
    with torch.no_grad():
        for block in decoder.blocks:
            gate = getattr(block.mlp, "gate", None)
            if gate is not None:
                made = torch.Generator().manual_seed(5)
                gate.weight.add_(0.3 * torch.randn(gate.weight.shape, generator=made, dtype=torch.float64))
    return decoder


@torch.no_grad()
@pytest.mark.parametrize("max_batch", [2, 4, 64])
@pytest.mark.parametrize("layout", ["mixtral", "qwen3_moe"])
def test_the_sampler_tells_the_experts_of_every_token_it_read(layout: str, max_batch: int) -> None:
    decoder = policy(layout)
    for prompt, group in zip(PROMPTS, sampled(decoder, max_batch)):
        for completion in group:
            routes = Routes()
            decoder(torch.tensor([[*prompt, *completion.ids[:-1]]]), routes=routes)
            expected = torch.stack([routing.expert_NK for routing in routes.routing], 1)
            assert completion.route_NLK is not None
            assert torch.equal(completion.route_NLK.long(), expected)


def test_who_does_not_ask_is_not_told() -> None:
    found = generate(policy(), PROMPTS, Sampling(max_new_tokens=3), eos_id=0)
    assert all(c.route_NLK is None for group in found for c in group)


@torch.no_grad()
@pytest.mark.parametrize("budget", [12, 40, 10_000])
def test_before_any_step_nothing_changed_and_replay_is_the_policy_itself(budget: int) -> None:
    decoder = policy()
    rollout = rollout_of(sampled(decoder))
    for replay in (False, True):
        for micro in Sheet.of(rollout, replay).micro_batches(torch.arange(9), budget):
            scores = score(ActorCritic(decoder), micro, 1.0, Want(entropy="none"))
            mask_BT = rollout.mask_BT[micro.row_N, : micro.width]
            behaviour_BT = rollout.behaviour_logp_BT[micro.row_N, : micro.width]
            assert scores.changed_BT is not None and not scores.changed_BT.any()
            gap_BT = (scores.logp_BT - behaviour_BT)[mask_BT]
            assert gap_BT.abs().max() < 1e-6


@torch.no_grad()
def test_after_a_step_replay_keeps_the_path_and_the_change_is_counted() -> None:
    decoder = policy()
    groups = sampled(decoder)
    rollout = rollout_of(groups)
    moved(decoder)
    logps = {}
    for replay in (False, True):
        (micro,) = Sheet.of(rollout, replay).micro_batches(torch.arange(9), 10_000)
        scores = score(ActorCritic(decoder), micro, 1.0, Want(entropy="none"))
        logps[replay] = scores.logp_BT
        assert scores.changed_BT is not None
        if not replay:
            row, place = int(micro.row_N[0]), 2
            prompt, completion = PROMPTS[int(rollout.group_B[row])], groups[row // 3][row % 3]
            routes = Routes()
            decoder(torch.tensor([[*prompt, *completion.ids[:-1]]]), routes=routes)
            now = torch.stack([routing.expert_NK for routing in routes.routing], 1)[len(prompt) + place - 1]
            then = completion.route_NLK[len(prompt) + place - 1]  # type: ignore[index]
            lost = [len(set(a) - set(b)) for a, b in zip(then.tolist(), now.tolist())]
            assert scores.changed_BT[0, place].item() == pytest.approx(sum(lost) / then.numel())
        assert 0 < scores.changed_BT.sum() < scores.changed_BT.numel()
    assert (logps[True] - logps[False]).abs().max() > 1e-3
    # Replay is the same as telling every layer its experts by hand.
    row = 0
    prompt, completion = PROMPTS[0], groups[0][0]
    assert completion.route_NLK is not None
    token_1T = torch.tensor([[*prompt, *completion.ids[:-1]]])
    hidden_TD = decoder(token_1T, routes=Routes(replay_NLK=completion.route_NLK.long()))[0]
    logp_TV = decoder.logits(hidden_TD)[len(prompt) - 1 :].log_softmax(-1)
    by_hand = logp_TV.gather(1, torch.tensor(completion.ids)[:, None])[:, 0]
    torch.testing.assert_close(logps[True][row, : len(by_hand)], by_hand)


def test_a_saved_rollout_keeps_its_experts(tmp_path: Path) -> None:
    rollout = rollout_of(sampled(policy()))
    with Run.create(tmp_path / "run", {"recipe": "grpo"}) as run:
        save_experience(run, 1, Experience(rollout, {}, [], 3))
        found = load_experience(run, 1, torch.device("cpu"))
    assert found is not None and found.rollout is not None
    for name in ("route_BTLK", "prompt_route_NLK"):
        assert torch.equal(getattr(found.rollout, name), getattr(rollout, name))
    part = rollout.rows(torch.tensor([4, 2]))
    assert part.route_BTLK is not None and rollout.route_BTLK is not None
    assert torch.equal(part.route_BTLK, rollout.route_BTLK[[4, 2]])
    assert part.prompt_route_NLK is rollout.prompt_route_NLK


def test_experts_arrive_from_other_processes_as_they_left() -> None:
    groups = sampled(policy())
    flat = torch.cat([c.route_NLK.flatten() for group in groups for c in group if c.route_NLK is not None])
    bare = [[replace(c, route_NLK=None) for c in group] for group in groups]
    found = _routed(bare, {"route": [2, 2], "prompts": PROMPTS}, flat.int())
    for group, again in zip(groups, found, strict=True):
        for one, other in zip(group, again, strict=True):
            assert one == other and torch.equal(one.route_NLK, other.route_NLK)  # type: ignore[arg-type]
    assert _routed(bare, {"route": None, "prompts": PROMPTS}, flat.int()) is bare
