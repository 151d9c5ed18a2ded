"""What each process takes of a batch, and that the shares of all of them are the whole."""

from __future__ import annotations

import copy
import math
import os
import sys
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from lineal.environments.text import Example
from lineal.errors import UsageError
from lineal.models.decoder import Decoder, llama_config
from lineal.models.policy import ActorCritic
from lineal.objectives.algorithm import complete, initial_state, needs, prepare, split
from lineal.objectives.policy import ALGORITHMS, named
from lineal.recipes.config import OptimiserOptions
from lineal.tokenizers import CharTokenizer
from lineal.train.distributed import ALONE, BUCKET, Ranks, deal, is_sharded, joined, sum_gradients, world_size
from lineal.train.language import Text, gold_sheet, held_out_figures, pair_losses, text_losses
from lineal.train.score import ROUND, Scoring, Sheet, score_all, shared_micro_batches
from lineal.train.update import Problem, accumulate, frozen_copy, mean_kl
from lineal.types import Rollout

VOCABULARY, PROMPTS, GROUP, WIDTH = 11, 5, 3, 7
NAMES = [*ALGORITHMS, "grpo-reference-kl", "gspo-token", "dapo-token-mean"]


def make_policy(critic: str | None = None) -> ActorCritic:
    """A tiny policy in float64, its critic not at zero."""
    decoder = Decoder(llama_config(VOCABULARY, 8, 2, 2, 16, 16)).initialise(0).double()
    with torch.no_grad():
        # Initial weights are so small that every distribution is nearly uniform.
        for parameter in decoder.parameters():
            parameter.mul_(8 if parameter.ndim > 1 else 1)
    policy = ActorCritic(decoder, critic).eval()
    if policy.value_head is not None:
        policy.value_head.weight.data.fill_(0.1)
    return policy


def make_rollout(group: int = GROUP, seed: int = 0) -> Rollout:
    """Completions of 1 to WIDTH tokens to prompts of 1 to 4, with rewards that differ."""
    made = torch.Generator().manual_seed(seed)
    rows = PROMPTS * group
    length_B = torch.randint(1, WIDTH + 1, (rows,), generator=made)
    mask_BT = torch.arange(WIDTH) < length_B[:, None]
    last_BT = torch.arange(WIDTH) == length_B[:, None] - 1
    prompts = tuple(tuple(range(1, 2 + p % 4)) for p in range(PROMPTS))
    return Rollout(
        action_BT=torch.randint(0, VOCABULARY, (rows, WIDTH), generator=made) * mask_BT,
        mask_BT=mask_BT,
        reward_BT=last_BT * torch.rand(rows, 1, generator=made).double(),
        behaviour_logp_BT=-torch.rand(rows, WIDTH, generator=made).double() * mask_BT,
        group_B=torch.arange(PROMPTS).repeat_interleave(group),
        terminated_BT=last_BT,
        truncated_BT=torch.zeros_like(last_BT),
        segment_BT=torch.zeros(rows, WIDTH, dtype=torch.int64),
        prompts=prompts,
    )


def gradients(policy: ActorCritic) -> Tensor:
    """All gradients as one vector, zeros where there is none."""
    found = [torch.zeros_like(p) if p.grad is None else p.grad for p in policy.parameters()]
    return torch.cat([gradient.reshape(-1) for gradient in found])


@given(st.lists(st.integers(0, 50), max_size=40), st.integers(1, 6))
def test_dealt_parts_are_consecutive_and_balanced(costs: list[int], world: int) -> None:
    parts = deal(costs, world)
    assert len(parts) == world
    assert [item for part in parts for item in part] == list(range(len(costs)))
    share, most = sum(costs) / world, max(costs, default=0)
    assert all(abs(sum(costs[item] for item in part) - share) <= most for part in parts)


def test_equal_items_are_dealt_evenly() -> None:
    assert [len(part) for part in deal([3] * 12, 4)] == [3, 3, 3, 3]
    assert [len(part) for part in deal([7], 3)] == [0, 1, 0]


@given(st.integers(1, 5), st.integers(1, 40), st.sets(st.integers(0, PROMPTS * GROUP - 1)))
def test_each_row_is_one_process_s_and_all_make_as_many_passes(
    world: int, budget: int, chosen: set[int]
) -> None:
    sheet = Sheet.of(make_rollout())
    row_N = torch.tensor(sorted(chosen), dtype=torch.int64)
    rows: list[int] = []
    passes = set()
    for rank in range(world):
        scoring = Scoring(token_budget=budget, ranks=Ranks(rank, world))
        found = list(shared_micro_batches(sheet, row_N, scoring))
        rows += [row for micro, counts in found if counts for row in micro.row_N.tolist()]
        passes.add(len(found))
        assert all(micro.token_1N.numel() < budget + ROUND or len(micro.row_N) == 1 for micro, _ in found)
    assert sorted(rows) == sorted(chosen)
    assert len(passes) == 1


def test_alone_the_micro_batches_are_those_of_the_sheet() -> None:
    sheet, row_N = Sheet.of(make_rollout()), torch.arange(PROMPTS * GROUP)
    shared = [
        micro.row_N.tolist() for micro, _ in shared_micro_batches(sheet, row_N, Scoring(token_budget=20))
    ]
    assert shared == [micro.row_N.tolist() for micro in sheet.micro_batches(row_N, 20)]


@pytest.mark.parametrize("world", [2, 3])
@pytest.mark.parametrize("name", NAMES)
def test_shares_add_up_to_the_gradient_of_one_process(name: str, world: int) -> None:
    algorithm = complete(named(name), WIDTH)
    wanted, state = needs(algorithm), initial_state(algorithm)
    policy = make_policy(wanted.critic.kind if wanted.critic else None)
    reference = frozen_copy(make_policy().decoder)
    alone = Scoring(token_budget=20, reference=reference)
    sheet = Sheet.of(make_rollout(max(1, min(GROUP, algorithm.group.size))))
    scores = score_all(policy, sheet, alone)
    # As if the policy had moved since it sampled, so that ratios are not 1 and some are clipped.
    moved_BT = scores.logp_BT + 0.3 * torch.sin(torch.arange(scores.logp_BT.numel())).view_as(scores.logp_BT)
    rollout = replace(
        sheet.rollout, old_logp_BT=moved_BT, reference_logp_BT=scores.logp_BT, value_BT=scores.value_BT
    )
    batch = split(algorithm, prepare(algorithm, rollout, state), seed=1)[0]
    if algorithm.optimiser_steps == 1 and not wanted.old_logp:
        batch = replace(batch, old_logp_BT=None)

    def total(ranks: list[Ranks]) -> tuple[Tensor, dict[str, Tensor]]:
        policy.zero_grad(set_to_none=True)
        sums: dict[str, Tensor] = {}
        for one in ranks:
            part = accumulate(
                Problem(policy, algorithm, state, sheet, batch, replace(alone, ranks=one)), batch, reference
            )
            assert not sums or set(sums) == set(part)
            sums = {key: value + sums.get(key, 0) for key, value in part.items()}
        return gradients(policy), sums

    whole, counted = total([ALONE])
    assert float(whole.norm()) > 0
    pieces, added = total([Ranks(rank, world) for rank in range(world)])
    torch.testing.assert_close(pieces, whole, rtol=1e-10, atol=1e-13)
    for key in counted:
        assert float(added[key]) == pytest.approx(float(counted[key]), rel=1e-9, abs=1e-12), key


def test_more_processes_than_rows() -> None:
    algorithm, policy = named("grpo"), make_policy()
    sheet, state = Sheet.of(make_rollout()), initial_state(named("grpo"))
    whole_batch = split(algorithm, prepare(algorithm, sheet.rollout, state))[0]
    batch = whole_batch.rows(torch.tensor([0, 1]))

    def total(world: int) -> Tensor:
        policy.zero_grad(set_to_none=True)
        for rank in range(world):
            accumulate(
                Problem(policy, algorithm, state, sheet, batch, Scoring(ranks=Ranks(rank, world))), batch
            )
        return gradients(policy)

    torch.testing.assert_close(total(5), total(1), rtol=1e-10, atol=1e-13)


def test_a_batch_without_any_advantage_is_passed_by_no_one() -> None:
    algorithm, policy = named("grpo"), make_policy()
    rollout = replace(make_rollout(), reward_BT=torch.zeros(PROMPTS * GROUP, WIDTH).double())
    sheet, state = Sheet.of(rollout), initial_state(algorithm)
    batch = split(algorithm, prepare(algorithm, rollout, state))[0]
    for rank in range(2):
        assert (
            accumulate(Problem(policy, algorithm, state, sheet, batch, Scoring(ranks=Ranks(rank, 2))), batch)
            == {}
        )
    assert all(parameter.grad is None for parameter in policy.parameters())


def test_scores_of_no_rows_are_zero() -> None:
    sheet = Sheet.of(make_rollout())
    scores = score_all(make_policy(), sheet, Scoring(), row_N=torch.zeros(0, dtype=torch.int64))
    assert scores.logp_BT.shape == sheet.rollout.mask_BT.shape
    assert not scores.logp_BT.any()


def test_mean_kl_is_a_mean_over_all_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    algorithm, policy = named("ppo-kl"), make_policy("head")
    sheet, state = Sheet.of(make_rollout(1)), initial_state(algorithm)
    scores = score_all(policy, sheet, Scoring())
    rollout = replace(sheet.rollout, old_logp_BT=scores.logp_BT, value_BT=scores.value_BT)
    batch = split(algorithm, prepare(algorithm, rollout, state))[0]
    old = frozen_copy(policy.decoder)
    with torch.no_grad():
        for parameter in policy.decoder.parameters():
            parameter.add_(0.05)
    alone = mean_kl(Problem(policy, algorithm, state, sheet, batch, Scoring()), batch, old)
    monkeypatch.setattr(Ranks, "sum", lambda self, x: x)
    shares = [
        mean_kl(Problem(policy, algorithm, state, sheet, batch, Scoring(ranks=Ranks(r, 3))), batch, old)
        for r in range(3)
    ]
    assert float(sum(shares)) == pytest.approx(float(alone), rel=1e-10)
    assert float(alone) > 1e-3


@pytest.mark.parametrize(("rows", "budget", "world"), [(5, 12, 2), (7, 100, 3), (2, 6, 4)])
def test_text_losses_add_up(rows: int, budget: int, world: int) -> None:
    decoder = make_policy().decoder
    text = Text(torch.arange(60) % VOCABULARY, torch.arange(50) % VOCABULARY)
    options = OptimiserOptions(batch_size=rows, block=6, token_budget=budget)

    def total(count: int) -> tuple[float, int, set[int]]:
        found = [
            list(text_losses(decoder, text, options, Scoring(ranks=Ranks(rank, count)), seed=1, step=2))
            for rank in range(count)
        ]
        loss = math.fsum(float(loss.detach()) for part in found for loss, _ in part)
        return loss, sum(tokens for part in found for _, tokens in part), {len(part) for part in found}

    (alone, tokens, _), (shared, same, passes) = total(1), total(world)
    assert shared == pytest.approx(alone, rel=1e-10)
    assert tokens == same == rows * 6
    assert len(passes) == 1


def test_pair_losses_add_up() -> None:
    tokenizer = CharTokenizer.train("0123456789+=")
    decoder = Decoder(llama_config(tokenizer.vocab_size, 8, 1, 2, 16, 16)).initialise(0).double()
    examples = [Example(f"{i}+{i}=", completion=str(2 * i)) for i in range(3, 9)]
    sheet = gold_sheet(examples, tokenizer, decoder)

    def total(world: int) -> tuple[float, int]:
        found = [
            pair
            for r in range(world)
            for pair in pair_losses(decoder, sheet, Scoring(token_budget=12, ranks=Ranks(r, world)))
        ]
        return math.fsum(float(loss.detach()) for loss, _ in found), sum(tokens for _, tokens in found)

    (alone, tokens), (shared, same) = total(1), total(4)
    assert shared == pytest.approx(alone, rel=1e-10)
    assert tokens == same == sum(sheet.length_B)


def test_held_out_loss_reads_every_token_once() -> None:
    decoder = make_policy().decoder
    text = Text(torch.arange(30), torch.arange(50) % VOCABULARY)
    whole = held_out_figures(decoder, text, Scoring(), 16)["eval/loss"]
    with torch.no_grad():
        logp = torch.zeros((), dtype=torch.float64)
        for start in range(0, 49, 16):
            window = text.held_N[start : start + 17]
            scores = torch.log_softmax(decoder.logits(decoder(window[None, :-1]))[0], -1)
            logp += scores.gather(1, window[1:, None]).sum()
    assert whole == pytest.approx(float(-logp) / 49, rel=1e-6)


def test_alone_nothing_is_sent() -> None:
    x = torch.arange(3.0)
    assert ALONE.sum(x) is x
    assert ALONE.add_up({"a": x[1]}) == {"a": x[1]}
    assert ALONE.any(True, False) == [True, False]
    assert ALONE.gather(x)[0] is x
    value = {"any": "value"}
    assert ALONE.gather_json(value)[0] is value
    assert ALONE.tell(value) is value
    assert ALONE.mine([1, 2, 3]) == [1, 2, 3]
    assert ALONE.voice is sys.stderr
    assert Ranks(1, 3).mine(range(8)) == range(1, 8, 3)


def test_only_the_first_process_speaks() -> None:
    with Ranks(1, 2).voice as silence:
        assert silence is not sys.stderr
        assert os.fstat(silence.fileno()).st_rdev == os.stat(os.devnull).st_rdev
    assert Ranks(0, 2).first and not Ranks(1, 2).first


def test_joined_alone_sets_nothing_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert world_size() == 1
    with joined() as ranks:
        assert ranks == ALONE
        assert not torch.distributed.is_initialized()


def test_more_processes_than_gpus_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from lineal.train import distributed

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setenv("LOCAL_RANK", "1")
    with pytest.raises(UsageError, match="--nproc-per-node 1, or --device cpu"):
        distributed._backend("auto")
    assert distributed._backend("cpu") == "gloo"
    monkeypatch.setattr(torch.cuda, "set_device", lambda index: None)
    monkeypatch.setenv("LOCAL_RANK", "0")
    assert distributed._backend("auto") == "cpu:gloo,cuda:nccl"


def test_several_processes_on_an_apple_gpu_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from lineal.train import distributed

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    for device in ("auto", "mps"):
        with pytest.raises(UsageError, match="--device cpu"):
            distributed._backend(device)


def test_gradients_travel_in_buckets_of_one_dtype(monkeypatch: pytest.MonkeyPatch) -> None:
    from lineal.train import distributed

    sent: list[tuple[torch.dtype, int]] = []

    def doubled(self: Ranks, x: Tensor) -> Tensor:
        sent.append((x.dtype, x.numel()))
        return 2 * x

    monkeypatch.setattr(Ranks, "sum", doubled)
    monkeypatch.setattr(distributed, "BUCKET", 10)
    shapes = [(3, 2), (4,), (20,), (1, 5), (2,)]
    parameters = [torch.nn.Parameter(torch.zeros(shape)) for shape in shapes]
    parameters[3] = torch.nn.Parameter(torch.zeros(1, 5, dtype=torch.float64))
    parameters.append(torch.nn.Parameter(torch.zeros(4)))
    for number, parameter in enumerate(parameters[:-1]):
        parameter.grad = torch.full_like(parameter, number + 1.0)
    before = copy.deepcopy([p.grad for p in parameters[:-1]])
    sum_gradients(parameters, ALONE)
    assert not sent
    sum_gradients(parameters, Ranks(0, 2))
    assert sent.pop(0) == (torch.int64, 6)
    assert sent == [(torch.float32, 10), (torch.float32, 20), (torch.float64, 5), (torch.float32, 2)]
    for parameter, old in zip(parameters[:-1], before, strict=True):
        assert old is not None and parameter.grad is not None
        torch.testing.assert_close(parameter.grad, 2 * old)
    assert parameters[-1].grad is None
    assert BUCKET > 10
    assert not is_sharded(parameters[0])


def test_what_only_another_process_reached_counts_as_zero_here(monkeypatch: pytest.MonkeyPatch) -> None:
    others = {torch.int64: torch.tensor([1, 1, 0]), torch.float32: torch.arange(5.0)}
    monkeypatch.setattr(Ranks, "sum", lambda self, x: x + others[x.dtype])
    here, there, nowhere = (torch.nn.Parameter(torch.zeros(size)) for size in (2, 3, 4))
    here.grad = torch.ones(2)
    sum_gradients([here, there, nowhere], Ranks(0, 2))
    assert here.grad.tolist() == [1.0, 2.0] and nowhere.grad is None
    assert there.grad is not None and there.grad.tolist() == [2.0, 3.0, 4.0]
    sum_gradients([], Ranks(0, 2))
