"""Scoring without padding says what a plain padded forward says, however the rows are cut and the vocabulary is read."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import lineal.train.score as module
from lineal.generate.engine import generate
from lineal.generate.sampling import Sampling
from lineal.models.decoder import PRESETS, Decoder
from lineal.models.policy import ActorCritic
from lineal.train.collect import to_rollout
from lineal.train.gathered import Gathered
from lineal.train.score import Scoring, Sheet, Want, score, score_all
from lineal.types import Completion, Rollout, Scores

VOCABULARY = 13
PROMPTS = ((1, 2, 3), (4,), (5, 6, 7, 8, 9), (2, 2))


def decoder(layout: str = "llama", seed: int = 0, dtype: torch.dtype = torch.float64) -> Decoder:
    """A two-layer decoder whose weights are far enough from zero for mistakes to show."""
    grouped = {} if "gpt" in layout else {"kv_heads": 2}
    config = PRESETS[layout](VOCABULARY, 16, 2, 4, 64, 24, **grouped)
    made = Decoder(config).initialise(seed).to(dtype).eval()
    generator = torch.Generator().manual_seed(seed + 1)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter += 0.3 * torch.randn(parameter.shape, generator=generator).to(dtype)
    return made


def policy(
    layout: str = "llama", critic: str | None = None, dtype: torch.dtype = torch.float64
) -> ActorCritic:
    """An actor, and a critic whose head is not zero."""
    made = ActorCritic(decoder(layout, dtype=dtype), critic).eval()
    generator = torch.Generator().manual_seed(5)
    if made.value_head is not None:
        with torch.no_grad():
            for parameter in made.value_head.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator).to(dtype))
    if made.critic is not None:
        made.critic = decoder(layout, seed=9, dtype=dtype)
    return made


def rollout(sizes: tuple[int, ...] = (3, 1, 4, 2), seed: int = 0, longest: int = 7) -> Rollout:
    """Random completions of unequal lengths, `sizes[p]` of prompt p."""
    generator = torch.Generator().manual_seed(seed)

    def draw(low: int, high: int, count: int) -> list[int]:
        return torch.randint(low, high, (count,), generator=generator).tolist()

    lengths = [draw(1, longest + 1, size) for size in sizes]
    answers = [
        [Completion(tuple(draw(0, VOCABULARY, n)), (0.0,) * n, "stop") for n in group] for group in lengths
    ]
    rewards = [[float(r) for r in draw(0, 3, size)] for size in sizes]
    prompts = [list(PROMPTS[p]) for p in range(len(sizes))]
    return to_rollout(Gathered([], prompts, answers, [], rewards), "cpu")


def padded(model: Decoder, some: Rollout) -> tuple[Tensor, Tensor]:
    """The definition: each row is its prompt and its completion, padded on the right; hidden states before each step."""
    width = some.action_BT.shape[1]
    rows = [
        [*some.prompts[group], *tokens]
        for group, tokens in zip(some.group_B.tolist(), some.action_BT.tolist())
    ]
    longest = max(map(len, rows))
    token_BT = torch.tensor([row + [0] * (longest - len(row)) for row in rows])
    hidden_BTD = model(token_BT)
    start_B = torch.tensor([len(some.prompts[group]) - 1 for group in some.group_B.tolist()])
    place_BT = start_B[:, None] + torch.arange(width)
    hidden_BTD = hidden_BTD.gather(1, place_BT[:, :, None].expand(-1, -1, hidden_BTD.shape[2]))
    return hidden_BTD, model.logits(hidden_BTD)


def by_definition(
    actor: ActorCritic, some: Rollout, temperature: float, old: Decoder, reference: Decoder
) -> Scores:
    """Everything a scoring pass can tell, from full distributions."""
    hidden_BTD, logits_BTV = padded(actor.decoder, some)
    logp_BTV = torch.log_softmax(logits_BTV / temperature, -1)
    old_BTV, reference_BTV = (
        torch.log_softmax(padded(m, some)[1] / temperature, -1) for m in (old, reference)
    )
    read = hidden_BTD if actor.critic is None else padded(actor.critic, some)[0]
    value_BT = None if actor.value_head is None else actor.value_head(read)
    found = Scores(
        logp_BTV.gather(2, some.action_BT[:, :, None])[:, :, 0],
        -(logp_BTV.exp() * logp_BTV).sum(-1),
        (old_BTV.exp() * (old_BTV - logp_BTV)).sum(-1),
        value_BT,
        (logp_BTV.exp() * (logp_BTV - reference_BTV)).sum(-1),
    )
    masked = {name: torch.where(some.mask_BT, x, 0.0) for name, x in vars(found).items() if x is not None}
    return Scores(**masked)


def close(one: Scores, other: Scores, width: int | None = None) -> None:
    """Equal to 1e-10, field by field."""
    for name, x in vars(one).items():
        y = vars(other)[name]
        assert (x is None) == (y is None), name
        if x is not None:
            torch.testing.assert_close(x, y[:, :width], rtol=0, atol=1e-10, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("critic", ["head", "separate"])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("layout", list(PRESETS))
def test_ragged_is_padded(layout: str, temperature: float, critic: str) -> None:
    actor, some = policy(layout, critic), rollout()
    old, reference = decoder(layout, seed=3), decoder(layout, seed=4)
    sheet = Sheet.of(some)
    micro = sheet.micro_batch(list(range(len(sheet))))
    found = score(actor, micro, temperature, Want("gradient", old, reference=reference))
    close(found, by_definition(actor, some, temperature, old, reference), micro.width)


@pytest.mark.parametrize("layout", list(PRESETS))
def test_gradients_are_those_of_the_padded_forward(layout: str) -> None:
    actor, some = policy(layout, "head"), rollout(seed=2)
    parameters = list(actor.parameters())
    sheet = Sheet.of(some)
    weight_BT = torch.randn(
        some.mask_BT.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64
    )
    micro = sheet.micro_batch(list(range(len(sheet))))
    found = score(actor, micro, 1.0, Want("gradient"))
    plain = by_definition(actor, some, 1.0, actor.decoder, actor.decoder)
    gradients = []
    for scores in (found, plain):
        terms = [x for x in (scores.logp_BT, scores.entropy_BT, scores.value_BT) if x is not None]
        total = sum(((x * weight_BT[:, : x.shape[1]]).sum() for x in terms), torch.zeros(()))
        gradients.append(torch.autograd.grad(total, parameters))
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-10)


@pytest.mark.parametrize("budget", [1, 9, 20, 10_000])
def test_any_budget_gives_the_same_table(budget: int) -> None:
    actor, some = policy(critic="head"), rollout(seed=1)
    sheet = Sheet.of(some)
    found = score_all(actor, sheet, Scoring(token_budget=budget))
    plain = by_definition(actor, some, 1.0, actor.decoder, actor.decoder)
    close(replace(found, kl_BT=None), replace(plain, kl_BT=None, reference_kl_BT=None))
    assert not found.logp_BT.requires_grad


def test_rows_that_are_not_asked_for_keep_0() -> None:
    actor, some = policy(), rollout()
    everything = score_all(actor, Sheet.of(some), Scoring())
    row_N = torch.tensor([6, 0])
    found = score_all(actor, Sheet.of(some), Scoring(), row_N=row_N, entropy="none")
    assert found.entropy_BT is None
    torch.testing.assert_close(found.logp_BT[row_N], everything.logp_BT[row_N], rtol=0, atol=1e-12)
    rest = [row for row in range(len(some.mask_BT)) if row not in (0, 6)]
    assert not found.logp_BT[rest].any()
    nobody = score_all(actor, Sheet.of(some), Scoring(), row_N=torch.zeros(0, dtype=torch.int64))
    assert nobody.logp_BT.shape == some.mask_BT.shape and not nobody.logp_BT.any()


def test_reading_the_vocabulary_in_chunks_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    actor, some = policy(critic="head"), rollout()
    old, reference = decoder(seed=3), decoder(seed=4)
    sheet, parameters = Sheet.of(some), list(actor.parameters())
    micro = sheet.micro_batch(list(range(len(sheet))))
    want = Want("gradient", old, reference)

    def everything() -> tuple[Scores, tuple[Tensor, ...]]:
        scores = score(actor, micro, 0.8, want)
        total = sum(((i + 1) * x).sin().sum() for i, x in enumerate(vars(scores).values()) if x is not None)
        assert isinstance(total, Tensor)
        return scores, torch.autograd.grad(total, parameters)

    whole, gradients = everything()
    sizes: list[int] = []
    monkeypatch.setattr(module, "LOGITS_AT_ONCE", 5 * VOCABULARY)
    monkeypatch.setattr(Decoder, "logits", counting(Decoder.logits, sizes))
    chunked, again = everything()
    assert len(sizes) > 3 and max(sizes) <= 5, "no chunk may be larger than what was allowed at once"
    close(chunked, whole)
    for one, other in zip(gradients, again, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-10)


def counting(real, sizes: list[int]):
    """The output layer, which notes how many rows it is given."""

    def logits(self: Decoder, hidden: Tensor) -> Tensor:
        sizes.append(hidden.shape[0])
        return real(self, hidden)

    return logits


def test_a_detached_critic_cannot_move_the_actor() -> None:
    actor, some = policy(critic="head"), rollout()
    micro = Sheet.of(some).micro_batch([0, 1])
    for detach in (True, False):
        actor.zero_grad(set_to_none=True)
        value_BT = score(actor, micro, 1.0, Want("none", detach_critic=detach)).value_BT
        assert value_BT is not None
        value_BT.sum().backward()
        moved = [p.grad is not None and bool(p.grad.any()) for p in actor.decoder.parameters()]
        assert any(moved) is not detach
        assert all(p.grad is not None for p in actor.critic_parameters().values())


def test_the_entropy_of_the_log_takes_no_gradient() -> None:
    micro = Sheet.of(rollout()).micro_batch([0, 1])
    held, free = (score(policy(), micro, 1.0, Want(kind)).entropy_BT for kind in ("value", "gradient"))
    assert held is not None and free is not None
    assert not held.requires_grad and free.requires_grad
    assert torch.equal(held, free.detach())


@pytest.mark.parametrize("layout", list(PRESETS))
def test_the_sampler_and_the_trainer_agree(layout: str) -> None:
    """behaviour_logp, from a cache, is what the trainer says of the same tokens, to the precision of float32."""
    actor = policy(layout, dtype=torch.float32)
    prompts = [list(prompt) for prompt in PROMPTS]
    settings = Sampling(max_new_tokens=8, temperature=0.9, max_batch=5)
    groups = generate(actor.decoder, prompts, settings, samples=4, seed=1, eos_id=0)
    some = to_rollout(Gathered([], prompts, groups, [], [[0.0] * 4 for _ in prompts]), "cpu")
    assert len({len(c.ids) for group in groups for c in group}) > 2
    logp_BT = score_all(actor, Sheet.of(some), Scoring(temperature=0.9)).logp_BT
    torch.testing.assert_close(logp_BT, some.behaviour_logp_BT, rtol=0, atol=2e-5)


def test_masked_steps_and_padding_tokens_do_not_matter() -> None:
    actor, some = policy(), rollout()
    noise_BT = torch.where(some.mask_BT, some.action_BT, 7)
    one, other = (
        score_all(actor, Sheet.of(replace(some, action_BT=actions)), Scoring()).logp_BT
        for actions in (some.action_BT, noise_BT)
    )
    assert torch.equal(one, other)
    assert not one[~some.mask_BT].any()


def test_half_precision_scores_are_given_in_float32() -> None:
    """A sum of thousands of log-probabilities in bfloat16 would mean nothing."""
    actor = copy.deepcopy(policy(critic="head")).to(torch.bfloat16)
    scores = score(actor, Sheet.of(rollout()).micro_batch([0, 1, 2]), 1.0, Want())
    assert scores.logp_BT.dtype == torch.float32
    assert scores.value_BT is not None and scores.value_BT.dtype == torch.float32


@given(
    lengths=st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=5), min_size=1, max_size=4),
    budget=st.integers(1, 60),
    order=st.randoms(use_true_random=False),
)
def test_runs_hold_every_row_once_within_the_budget(lengths, budget, order) -> None:
    answers = [[Completion((1,) * n, (0.0,) * n, "stop") for n in group] for group in lengths]
    prompts = [list(PROMPTS[p]) for p in range(len(lengths))]
    some = to_rollout(Gathered([], prompts, answers, [], [[0.0] * len(g) for g in lengths]), "cpu")
    sheet = Sheet.of(some)
    asked = order.sample(range(len(sheet)), order.randint(1, len(sheet)))
    micros = list(sheet.micro_batches(torch.tensor(asked), budget))
    assert sorted(row for micro in micros for row in micro.row_N.tolist()) == sorted(asked)
    for micro in micros:
        rows = micro.row_N.tolist()
        groups = list(dict.fromkeys(sheet.group_B[row] for row in rows))
        tokens = sum(len(prompts[g]) for g in groups) + sum(sheet.length_B[row] - 1 for row in rows)
        filled = -(-tokens // module.ROUND) * module.ROUND
        assert micro.token_1N.shape == (1, filled), (
            "each prompt once, and no more padding than makes sizes recur"
        )
        assert tokens <= budget or len(rows) == 1
        assert len(micro.action_N) == sum(sheet.length_B[row] for row in rows)
        assert micro.width == max(sheet.length_B[row] for row in rows)
