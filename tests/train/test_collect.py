"""Experience: which prompts, which completions, which groups are kept, and what is logged of them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lineal.environments.rewards import Reward
from lineal.environments.scoring import Scorer
from lineal.environments.text import Example
from lineal.errors import RewardError
from lineal.generate.sampling import Sampling
from lineal.models.decoder import Decoder, llama_config
from lineal.objectives.algorithm import Group
from lineal.tokenizers import CharTokenizer
from lineal.train.collect import EVALUATION, Source, collect, to_rollout
from lineal.train.gathered import Gathered
from lineal.train.order import Order
from lineal.types import Completion

TOKENIZER = CharTokenizer.train("0123456789=")
EXAMPLES = [Example(f"{i}=", {"answer": str(i), "index": i}, str(i)) for i in range(10)]


@pytest.fixture(scope="module")
def decoder() -> Decoder:
    """A tiny model, fresh."""
    return Decoder(llama_config(TOKENIZER.vocab_size, 16, 1, 2, 32, 16)).initialise(0).eval()


def source(reward: Callable[..., Any], group: Group | None = None, **options: Any) -> Source:
    """Ten prompts, at most four tokens each, scored by a function."""
    given = {key: options.pop(key) for key in ("on_error",) if key in options}
    scorer = Scorer([Reward("test", "test", function=reward)], **given)
    sampling = Sampling(max_new_tokens=4)
    made = Source(EXAMPLES, Order(len(EXAMPLES), 3), TOKENIZER, scorer, group or Group(4), sampling, 3)
    return replace(made, **options)


def length(completions, **_: Any) -> list[float]:
    """A reward that differs between completions."""
    return [float(len(text)) for text in completions]


def test_a_step_takes_the_next_prompts_in_order(decoder: Decoder) -> None:
    some = source(length)
    found = collect(decoder, some, 6, step=1, position=7)
    assert found.position == 13 and found.rollout is not None
    asked = [TOKENIZER.decode(list(prompt)) for prompt in found.rollout.prompts]
    assert asked == [EXAMPLES[i].prompt for i in some.order.items(7, 6)]
    assert found.rollout.group_B.tolist() == [p for p in range(6) for _ in range(4)]
    assert found.metrics["completions"] == 24 and found.metrics["rounds"] == 1
    assert [record["prompt"] for record in found.samples] == asked[:2]


def test_rewards_reach_their_completions(decoder: Decoder) -> None:
    found = collect(decoder, source(length), 4, step=1, position=0)
    rollout = found.rollout
    assert rollout is not None
    reward_B = rollout.reward_BT.sum(1)
    texts = [TOKENIZER.decode(row[mask].tolist()) for row, mask in zip(rollout.action_BT, rollout.mask_BT)]
    assert reward_B.tolist() == [float(len(text)) for text in texts]
    record = found.samples[0]
    assert record["completions"] == texts[:4] and record["rewards"] == reward_B[:4].tolist()
    assert found.metrics["reward"] == pytest.approx(float(reward_B.mean()))
    spread = [float(group.std()) for group in reward_B.view(4, 4)]
    assert found.metrics["reward_std"] == pytest.approx(sum(spread) / 4, rel=1e-6)
    assert found.metrics["rewards/test/mean"] == pytest.approx(found.metrics["reward"])


def test_the_draw_depends_on_seed_and_step_alone(decoder: Decoder) -> None:
    some = source(length)

    def drawn(of: Source, step: int) -> list[list[int]]:
        found = collect(decoder, of, 3, step, 0).rollout
        assert found is not None
        return [row[mask].tolist() for row, mask in zip(found.action_BT, found.mask_BT)]

    once = drawn(some, 1)
    assert drawn(replace(some, sampling=replace(some.sampling, max_batch=2)), 1) == once
    assert drawn(some, 2) != once
    assert drawn(replace(some, seed=4), 1) != once
    assert drawn(some, EVALUATION + 1) != once, "evaluations have draws of their own"


def test_groups_without_spread_are_replaced_by_new_prompts(decoder: Decoder) -> None:
    def even(index, completions, **_: Any) -> list[float]:
        return [float(j % 2) * (i % 2) for j, i in enumerate(index)]

    some = source(even, Group(4, keep="mixed"))
    found = collect(decoder, some, 4, step=1, position=0)
    assert found.rollout is not None and len(found.rollout.prompts) == 4
    used = [EXAMPLES[i].columns["index"] for i in some.order.items(0, found.position)]
    kept = [i for i in used if i % 2]
    assert [TOKENIZER.decode(list(p)) for p in found.rollout.prompts] == [f"{i}=" for i in kept[:4]]
    assert found.metrics["groups_dropped"] == len(used) - 4
    assert found.metrics["rounds"] > 1
    # What is logged is about everything that was sampled, or dropping would flatter it.
    assert found.metrics["frac_reward_zero_std"] == pytest.approx((len(used) - 4) / len(used))
    assert found.metrics["completions"] == 4 * len(used)


def test_refilling_ends(decoder: Decoder, capsys: pytest.CaptureFixture[str]) -> None:
    calls = []

    def flat(completions, **_: Any) -> list[float]:
        calls.append(len(completions))
        return [1.0] * len(completions)

    found = collect(decoder, source(flat, Group(4, keep="mixed", refill=2)), 3, step=9, position=0)
    assert found.rollout is None and found.position == 9 and calls == [12, 12, 12]
    assert "step 9: 0 of 3 groups kept after 3 rounds" in capsys.readouterr().err
    assert found.metrics["reward"] == 1.0 and found.samples
    found = collect(decoder, source(flat), 3, step=9, position=0)
    assert found.rollout is not None and found.metrics["groups_dropped"] == 0


def test_no_two_rounds_share_their_draws(decoder: Decoder) -> None:
    """A prompt that comes again within a step must not get the completions that were dropped."""
    seen: list[tuple[str, ...]] = []

    def flat(prompts, completions, **_: Any) -> list[float]:
        seen.extend(tuple(completions[i : i + 4]) for i in range(0, len(completions), 4))
        return [0.0] * len(completions)

    one = replace(source(flat, Group(4, keep="mixed", refill=3)), examples=EXAMPLES[:1], order=Order(1, 0))
    collect(decoder, one, 1, step=1, position=0)
    assert len(seen) == 4 and len(set(seen)) > 1


def test_an_early_stop_keeps_what_there_is(decoder: Decoder) -> None:
    some = source(lambda completions, **_: [0.0] * len(completions), Group(4, keep="mixed"))
    found = collect(decoder, some, 2, 1, 0, should_stop=lambda: True)
    assert found.metrics["rounds"] == 1 and found.rollout is None


def test_shuffling_moves_rewards_between_completions(decoder: Decoder) -> None:
    plain = collect(decoder, source(length), 8, 1, 0).rollout
    mixed = collect(decoder, source(length, shuffle_rewards=True), 8, 1, 0).rollout
    assert plain is not None and mixed is not None
    assert torch.equal(plain.action_BT, mixed.action_BT)
    one, other = plain.reward_BT.sum(1), mixed.reward_BT.sum(1)
    assert sorted(one.tolist()) == sorted(other.tolist()) and one.tolist() != other.tolist()


def test_a_failing_reward_stops_or_is_shown(decoder: Decoder, capsys: pytest.CaptureFixture[str]) -> None:
    def sometimes(completions, index, **_: Any) -> list[float]:
        return [math.nan if i == 4 else float(j) for j, i in enumerate(index)]

    with pytest.raises(RewardError, match="test gave nan"):
        collect(decoder, source(sometimes), 10, 1, 0)
    capsys.readouterr()
    dropped = collect(decoder, source(sometimes, on_error="drop"), 10, 1, 0)
    assert "step 1: reward test failed on 4 of 40 samples; sample" in capsys.readouterr().err
    assert dropped.rollout is not None and len(dropped.rollout.prompts) == 9
    assert dropped.metrics["groups_dropped"] == 1 and dropped.metrics["rewards/test/failed"] == 4
    assert math.isfinite(dropped.metrics["reward"])
    zero = collect(decoder, source(sometimes, on_error="zero"), 10, 1, 0)
    assert zero.rollout is not None and len(zero.rollout.prompts) == 10


def test_what_a_reward_logs_is_logged(decoder: Decoder) -> None:
    from lineal.environments.worker_child import score

    def logging(completions, log_metric, log_extra, trainer_state, **_: Any) -> list[float]:
        log_metric("mine", trainer_state.global_step)
        log_extra("shout", [completion + "!" for completion in completions])
        log_extra("too few", ["x"])
        log_metric("reward", -1.0)
        return [1.0] * len(completions)

    class Worker:
        """Stands for the process that runs a user's function."""

        output = ""

        def call(self, arguments: dict[str, Any], state: dict[str, Any]) -> dict[str, Any]:
            """The same call, here."""
            return score(logging, arguments, state)

    some = source(logging)
    vars(some.scorer)["_workers"] = {"test": Worker()}
    found = collect(decoder, some, 2, step=5, position=0)
    assert found.metrics["mine"] == 5.0
    assert found.metrics["reward"] == 1.0, "a name of ours keeps its meaning"
    assert len(found.samples) == 2
    for record in found.samples:
        assert record["extra"] == {"shout": [text + "!" for text in record["completions"]]}


@given(
    st.lists(
        st.tuples(st.integers(1, 6), st.booleans(), st.floats(-5, 5, width=32), st.integers(0, 3)),
        min_size=1,
        max_size=8,
    )
)
def test_a_rollout_is_a_faithful_rectangle(rows: list[tuple[int, bool, float, int]]) -> None:
    rows.sort(key=lambda row: row[3])
    order = sorted({group for *_, group in rows})
    groups = [[r for r in rows if r[3] == g] for g in order]
    answers = [
        [Completion((7,) * n, (-0.5,) * n, "stop" if ended else "length") for n, ended, *_ in group]
        for group in groups
    ]
    rewards = [[reward for _, _, reward, _ in group] for group in groups]
    found = to_rollout(Gathered([], [[1]] * len(groups), answers, [], rewards), "cpu")
    assert found.mask_BT.sum(1).tolist() == [n for n, *_ in rows]
    assert found.group_B.tolist() == [order.index(group) for *_, group in rows]
    assert found.reward_BT.sum(1).tolist() == [reward for _, _, reward, _ in rows]
    last_BT = found.terminated_BT | found.truncated_BT
    assert torch.equal(last_BT.sum(1), torch.ones(len(rows), dtype=torch.long))
    assert not (found.terminated_BT & found.truncated_BT).any()
    assert found.terminated_BT.any(1).tolist() == [ended for _, ended, *_ in rows]
    assert not found.reward_BT[~last_BT].any() and not found.behaviour_logp_BT[~found.mask_BT].any()
    assert (found.action_BT[found.mask_BT] == 7).all() and not found.action_BT[~found.mask_BT].any()
