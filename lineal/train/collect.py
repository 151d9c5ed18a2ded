"""Collecting experience: prompts in, completions sampled, rewards given, groups kept, a `Rollout` out."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from lineal.environments.scoring import Scored, Scorer
from lineal.environments.shaping import shuffle_rewards
from lineal.environments.text import Example, encode_prompts, samples_of
from lineal.generate.engine import generate
from lineal.generate.prefill import Speaker
from lineal.generate.sampling import Sampling
from lineal.models.decoder import Decoder
from lineal.objectives.algorithm import Group, mixed_groups
from lineal.tokenizers import Tokenizer
from lineal.train.console import warn
from lineal.train.distributed import ALONE, Ranks
from lineal.train.gathered import Gathered, exchange
from lineal.train.order import Order
from lineal.types import Rollout

EVALUATION = 1 << 40
"""Added to the step in the random numbers of evaluations, so that they never share draws with training."""


@dataclass(frozen=True)
class Source:
    """Where completions and rewards come from; the same for every step of a run.

    examples, order: the training prompts and the order they are drawn in. group: how many completions each gets and
    which groups are kept. seed: of order and sampling. ranks: the processes that share the prompts.
    """

    examples: Sequence[Example]
    order: Order
    tokenizer: Tokenizer
    scorer: Scorer
    group: Group
    sampling: Sampling
    seed: int
    shuffle_rewards: bool = False
    ranks: Ranks = ALONE


@dataclass(frozen=True)
class Experience:
    """One step's rollout, what to log of it, and how many prompts of the order have been used.

    rollout: None when every group was dropped, so that there is nothing to train on.
    """

    rollout: Rollout | None
    metrics: dict[str, float]
    samples: list[dict[str, Any]]
    position: int


def collect(
    decoder: Decoder,
    source: Source,
    prompts: int,
    step: int,
    position: int,
    should_stop: Callable[[], bool] | None = None,
) -> Experience:
    """Sample and score groups until `prompts` of them are kept, or the group's refills are used up.

    prompts, position: counted over all processes, and so is everything in the result, equal on each of them.
    """
    kept, first = Gathered(), position
    sums: dict[str, float] = {}
    everything = Gathered()
    missing, rounds = prompts, 0
    while missing > 0 and rounds <= (source.group.refill if source.group.keep == "mixed" else 0):
        index = source.order.items(position, missing)
        fresh, scored = sample_groups(decoder, source, index, step, position - first)
        if source.ranks.first:
            _tell(scored, step)
        position += missing
        everything.extend(fresh, [True] * len(fresh.rewards))
        kept.extend(fresh, _kept(fresh, source.group))
        _add(sums, scored.summary())
        rounds += 1
        missing = prompts - len(kept.rewards)
        if should_stop is not None and should_stop():
            break
    found = prompts - missing
    if found < prompts and source.ranks.first:
        warn(
            f"step {step}: {found} of {prompts} groups kept after {rounds} rounds; in the others all rewards are equal "
            "(or missing). " + ("Training on those." if found else "Nothing to train on in this step.")
        )
    # What a reward function logs under a name of ours does not replace it.
    metrics = {name: value / rounds for name, value in sums.items()} | _metrics(everything, rounds)
    metrics["groups_dropped"] = float(len(everything.rewards) - len(kept.rewards))
    rollout = to_rollout(kept, decoder.device) if found else None
    return Experience(rollout, metrics, _records(everything), position)


def _tell(scored: Scored, step: int) -> None:
    """A reward that fails and may (--on-reward-error zero, drop) is still never silent."""
    for name, problem in scored.problems.items():
        warn(
            f"step {step}: reward {name} failed on {scored.failures[name]} of {len(scored.rewards)} samples; {problem}"
        )


def sample_groups(
    decoder: Speaker, source: Source, index: Sequence[int], step: int, offset: int
) -> tuple[Gathered, Scored]:
    """One group for each prompt, sampled and scored by whichever process has it; `offset` keeps the random numbers of
    rounds apart. Every process gets all of them."""
    ranks = source.ranks
    places = range(offset, offset + len(index))
    groups, scored = _own_groups(decoder, source, ranks.mine(index), step, ranks.mine(places))
    if ranks.world > 1:
        groups, scored = exchange(groups, scored, [source.examples[i] for i in index], ranks)
    assert scored is not None
    total, size = list(scored.rewards), source.group.size
    if source.shuffle_rewards:
        total = shuffle_rewards(total, source.seed, step)
    cuts = [slice(i * size, (i + 1) * size) for i in range(len(index))]
    groups.rewards = [total[cut] for cut in cuts]
    said = {name: values for name, values in scored.extra.items() if len(values) == len(total)}
    groups.extra = [{name: values[cut] for name, values in said.items()} for cut in cuts]
    return groups, scored


def _own_groups(
    decoder: Speaker, source: Source, index: Sequence[int], step: int, places: Sequence[int]
) -> tuple[Gathered, Scored | None]:
    if not index:
        return Gathered(), None
    tokenizer, size = source.tokenizer, source.group.size
    examples = [source.examples[i] for i in index]
    prompts = encode_prompts(examples, tokenizer, decoder.config.context)
    groups = generate(
        decoder,
        prompts,
        source.sampling,
        samples=size,
        seed=source.seed,
        step=step,
        # Places count over all processes, so that a completion does not depend on how many there are.
        sample_ids=[[place * size + g for g in range(size)] for place in places],
        eos_id=tokenizer.eos_id,
        decode=tokenizer.decode,
        routes=decoder.config.experts is not None and step < EVALUATION,
    )
    texts = [[tokenizer.decode(list(c.ids)) for c in group] for group in groups]
    flat = [c for group in groups for c in group]
    scored = source.scorer(
        samples_of(
            [e for e in examples for _ in range(size)],
            [t for group in texts for t in group],
            [list(c.ids) for c in flat],
            [c.finish for c in flat],
        ),
        {"step": step % EVALUATION, "global_step": step % EVALUATION},
    )
    return Gathered(examples, prompts, groups, texts), scored


def _kept(fresh: Gathered, group: Group) -> list[bool]:
    whole = [all(math.isfinite(r) for r in rewards) for rewards in fresh.rewards]
    if group.keep == "all":
        return whole
    flat = torch.tensor([r for rewards in fresh.rewards for r in rewards], dtype=torch.float64)
    index = torch.arange(len(fresh.rewards)).repeat_interleave(group.size)
    mixed = mixed_groups(flat, index, len(fresh.rewards)).tolist()
    return [a and b for a, b in zip(whole, mixed, strict=True)]


def to_rollout(kept: Gathered, device: torch.device | str) -> Rollout:
    """The kept groups as a rectangle: one row per completion, its reward on its last token."""
    rows = [(p, c, r) for p, (cs, rs) in enumerate(zip(kept.completions, kept.rewards, strict=True))
            for c, r in zip(cs, rs, strict=True)]  # fmt: skip
    width = max((len(c.ids) for _, c, _ in rows), default=1)
    length_B = torch.tensor([len(c.ids) for _, c, _ in rows], dtype=torch.long)
    last_BT = torch.arange(width) == (length_B - 1)[:, None]
    mask_BT = torch.arange(width) < length_B[:, None]
    ended_B = torch.tensor([c.finish == "stop" for _, c, _ in rows], dtype=torch.bool)
    reward_B = torch.tensor([r for _, _, r in rows], dtype=torch.float32)
    action_BT = torch.tensor([list(c.ids) + [0] * (width - len(c.ids)) for _, c, _ in rows], dtype=torch.long)
    logp_BT = torch.tensor(
        [list(c.logp) + [0.0] * (width - len(c.ids)) for _, c, _ in rows], dtype=torch.float32
    )
    rollout = Rollout(
        action_BT=action_BT.view(-1, width),
        mask_BT=mask_BT,
        reward_BT=last_BT * reward_B[:, None],
        behaviour_logp_BT=logp_BT.view(-1, width),
        group_B=torch.tensor([p for p, _, _ in rows], dtype=torch.long),
        # A capped text already has its outcome reward, so it ends its episode too: nothing is bootstrapped.
        terminated_BT=last_BT & ended_B[:, None],
        truncated_BT=last_BT & ~ended_B[:, None],
        segment_BT=torch.zeros(len(rows), width, dtype=torch.long),
        prompts=tuple(tuple(p) for p in kept.prompts),
        **_routes(kept, width),
    )
    return on_device(rollout, device)


def _routes(kept: Gathered, width: int) -> dict[str, torch.Tensor]:
    """The experts that tokens went to when they were sampled, where that is known."""
    found = [c.route_NLK for group in kept.completions for c in group]
    if not found or found[0] is None:
        return {}
    asked = [len(prompt) for prompt, group in zip(kept.prompts, kept.completions) for _ in group]
    route_BTLK = found[0].new_full((len(found), width, *found[0].shape[1:]), -1)
    for row_TLK, route_NLK, size in zip(route_BTLK, found, asked, strict=True):
        assert route_NLK is not None
        row_TLK[: len(route_NLK) - size] = route_NLK[size:]
    prompts = [group[0].route_NLK for group in kept.completions]
    parts = [route[: len(prompt)] for route, prompt in zip(prompts, kept.prompts) if route is not None]
    return {"route_BTLK": route_BTLK, "prompt_route_NLK": torch.cat(parts)}


def on_device(rollout: Rollout, device: torch.device | str) -> Rollout:
    """The same rollout with its tensors on a device."""
    moved = {name: x.to(device) for name, x in vars(rollout).items() if isinstance(x, torch.Tensor)}
    return replace(rollout, **moved)


def _add(sums: dict[str, float], part: dict[str, float]) -> None:
    for name, value in part.items():
        sums[name] = sums.get(name, 0.0) + value


def _metrics(groups: Gathered, rounds: int) -> dict[str, float]:
    """Means over everything that was sampled, under the names that users of TRL know."""
    rewards = [[r for r in group if math.isfinite(r)] for group in groups.rewards]
    flat = [r for group in rewards for r in group]
    lengths = [len(c.ids) for group in groups.completions for c in group]
    capped = [c.finish == "length" for group in groups.completions for c in group]
    spread = [_std(group) for group in rewards if len(group) > 1] or [_std(flat)]
    return {
        "reward": _mean(flat),
        "reward_std": _mean(spread),
        "frac_reward_zero_std": _mean([float(s == 0.0) for s in spread]),
        "completions/mean_length": _mean(lengths),
        "completions/min_length": float(min(lengths)),
        "completions/max_length": float(max(lengths)),
        "completions/clipped_ratio": _mean([float(x) for x in capped]),
        "completions": float(len(lengths)),
        "tokens": float(sum(lengths)),
        "rounds": float(rounds),
    }


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values) if values else math.nan


def _std(values: Sequence[float]) -> float:
    if len(values) < 2 or min(values) == max(values):
        return 0.0
    mean = _mean(values)
    return math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (len(values) - 1))


def _records(groups: Gathered, most: int = 2) -> list[dict[str, Any]]:
    """A few groups as they go to samples.jsonl: prompt, each completion with its reward, and the gold answer."""
    return [
        {
            "prompt": groups.examples[i].prompt,
            "completions": groups.texts[i][:8],
            "rewards": groups.rewards[i][:8],
            "answer": groups.examples[i].columns.get("answer"),
            **(
                {"extra": {name: said[:8] for name, said in groups.extra[i].items()}}
                if groups.extra[i]
                else {}
            ),
        }
        for i in range(min(most, len(groups.examples)))
    ]
