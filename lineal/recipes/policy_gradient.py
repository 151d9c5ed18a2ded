"""The one loop of every policy-gradient method: sample, score, weigh, step. The algorithm is a value it is given."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import Any

import torch

from lineal.models.policy import ActorCritic
from lineal.objectives.algorithm import (
    Adam,
    Algorithm,
    Batch,
    complete,
    initial_state,
    needs,
    prepare,
    statistics,
    summarise,
    update_state,
)
from lineal.optim.groups import select_parameters
from lineal.optim.schedules import Schedule, make_schedule
from lineal.recipes.config import PolicyGradientConfig
from lineal.train.buffer import load_experience, save_experience
from lineal.train.build import build_model
from lineal.train.collect import Experience, collect
from lineal.train.distributed import ALONE, Ranks, joined
from lineal.train.evaluate import Evaluation, evaluate
from lineal.train.guard import Guard
from lineal.train.metrics import to_host
from lineal.train.parts import Parts, Progressed, build, read_algorithm, room
from lineal.train.progress import Progress
from lineal.train.run import Run
from lineal.train.score import Sheet, score_all
from lineal.train.session import evaluated, finish, log_final, model_card, over, restore, save, scheduled
from lineal.train.tasks import longest_completion, read_task
from lineal.train.update import Problem, Sums, adam_update, critic_update, natural_update, silent
from lineal.types import Rollout

SHOWN = ("reward", "eval/accuracy", "entropy", "kl", "completions/mean_length")


def plan(config: PolicyGradientConfig) -> list[str]:
    """What a run would do, without doing it: the objective, the batch in prompts x samples, the model, the memory."""
    task = read_task(config.data, config.model)
    limit = longest_completion(task, config.sampling.max_new_tokens)
    algorithm = complete(read_algorithm(config), limit)
    decoder, tokenizer = build_model(config.model, task.alphabet, room(task, limit), config.run.seed)
    samples = config.algorithm.prompts * algorithm.group.size
    size = sum(p.numel() for p in decoder.parameters())
    copies = 4 + sum((needs(algorithm).kl, needs(algorithm).reference, needs(algorithm).critic is not None))
    cache = 2 * decoder.config.layers * decoder.config.kv_heads * decoder.config.head_width * limit
    cache *= min(samples, config.sampling.max_batch)
    return [
        str(algorithm),
        f"task {task.name}: {len(task.train)} prompts to train on, {len(task.held_out)} held out",
        f"model {decoder.config.layout}: {size:,} parameters, vocabulary {tokenizer.vocab_size}",
        f"a step: {config.algorithm.prompts} prompts x {algorithm.group.size} samples = {samples} completions "
        f"of at most {limit} tokens ({samples * limit:,} tokens), {algorithm.optimiser_steps} optimiser steps",
        f"memory, about: weights, gradients and optimiser {copies * size * 4 / 2**20:.0f} MiB, "
        f"key-value cache at most {cache * 4 / 2**20:.0f} MiB",
    ]


@dataclass
class Loop:
    """A run in progress: what it works with, its own state, and the guard of its weights."""

    config: PolicyGradientConfig
    run: Run
    parts: Parts
    now: Progressed
    guard: Guard
    schedule: Schedule
    done: int


def open_loop(config: PolicyGradientConfig, run: Run, ranks: Ranks = ALONE) -> Loop:
    """Build everything, and take up the newest checkpoint when there is one."""
    parts = build(config, run, ranks)
    done, saved = restore(run, parts.policy, parts.optimisers, ranks)
    now = Progressed.from_json(saved) if saved else Progressed(initial_state(parts.algorithm))
    schedule = make_schedule(
        config.algorithm.schedule, config.run.steps, min(config.algorithm.warmup, config.run.steps)
    )
    guard = Guard(run.refused if ranks.first else None, in_a_row=now.refused)
    return Loop(config, run, parts, now, guard, schedule, done)


def run(config: PolicyGradientConfig, run: Run) -> None:
    """Post-train a model; resumes by itself when the run folder holds a checkpoint."""
    with joined(config.model.device) as ranks:
        _train(open_loop(config, run, ranks), ranks)


def _train(loop: Loop, ranks: Ranks) -> None:
    config, run = loop.config, loop.run
    live = False if config.run.quiet else None
    show = Progress(
        config.run.steps, SHOWN, start=loop.done, stream=ranks.voice, live=live, seconds=config.run.time_limit
    )
    with loop.parts.scorer, show as progress:
        started = time.monotonic()
        if loop.done == 0:
            _evaluate(loop, 0, whole=True)
        while loop.done < config.run.steps and not loop.now.finished:
            step = loop.done + 1
            metrics, experience = train_step(loop, step)
            (late,) = ranks.any(over(config.run, started, loop.now.tokens))
            loop.now.finished = late or step == config.run.steps
            if config.run.eval_every and step % config.run.eval_every == 0 and not loop.now.finished:
                metrics |= _evaluate(loop, step, whole=False).metrics()
            write_step(run, step, metrics, experience)
            if not config.run.quiet:
                progress.update(step, metrics, _shown(experience))
            loop.done = step
            (stop,) = ranks.any(run.stop_requested)
            if loop.now.finished or step % config.run.save_every == 0 or stop:
                save(run, step, loop.parts.policy, loop.parts.optimisers, loop.now.to_json(), ranks)
            if stop and not loop.now.finished:
                run.exit()
        _finish(loop)


def train_step(loop: Loop, step: int) -> tuple[dict[str, Any], Experience]:
    """Sample, score, learn: one step, its metrics and what was sampled; its times go to timing.jsonl."""
    parts, now, begun = loop.parts, loop.now, time.monotonic()
    rate = 0.0
    if isinstance(parts.algorithm.step, Adam):
        rate = scheduled(
            loop.schedule, parts.algorithm.step.learning_rate, step - 1, parts.optimisers["policy"]
        )
    experience = _experience(loop, step)
    sampled = time.monotonic()
    learnt = _learn(loop, experience.rollout, step) if experience.rollout is not None else {}
    now.position, now.refused = experience.position, loop.guard.in_a_row
    now.tokens += int(experience.metrics["tokens"])
    spent = time.monotonic() - begun
    loop.run.time(
        step,
        {
            "step_time": spent,
            "sample_time": sampled - begun,
            "tokens_per_second": experience.metrics["tokens"] / spent,
        },
    )
    return {**experience.metrics, **learnt, "learning_rate": rate, "num_tokens": now.tokens}, experience


def write_step(run: Run, step: int, metrics: dict[str, Any], experience: Experience) -> None:
    """Log a step: its metrics, and some of what was sampled."""
    run.log(step, metrics)
    for record in experience.samples:
        run.sample(step, record)


def _experience(loop: Loop, step: int) -> Experience:
    """This step's rollout: the one that survived a kill, or a new one."""
    parts = loop.parts
    decoder = parts.sampler()
    found = load_experience(loop.run, step, decoder.device)
    if found is not None:
        return found
    experience = collect(decoder, parts.source, loop.config.algorithm.prompts, step, loop.now.position)
    if any(reward.path is not None for reward in parts.scorer.rewards):
        # A user's reward may differ when called again; the built-in ones and the sampler cannot.
        save_experience(loop.run, step, experience)
    return experience


def _learn(loop: Loop, rollout: Rollout, step: int) -> dict[str, float]:
    """One update from one rollout; moves the algorithm's state on, and returns the metrics."""
    parts, now, guard = loop.parts, loop.now, loop.guard
    algorithm, sheet = parts.algorithm, Sheet.of(rollout, loop.config.algorithm.routing_replay)
    rollout = _scored(loop, sheet)
    batch = prepare(algorithm, rollout, now.state)
    extra: dict[str, float] = {}

    def accept(norm: float, part: Batch) -> bool:
        tensors = {name: x for name, x in vars(part).items() if isinstance(x, torch.Tensor)}
        guard.watch(step, lambda: tensors)
        return guard.finite(norm)

    problem = Problem(parts.policy, algorithm, now.state, sheet, batch, parts.scoring)
    if isinstance(algorithm.step, Adam):
        sums, norms = adam_update(problem, parts.optimisers["policy"], accept, step)
        extra["grad_norm"] = sum(norms) / len(norms)
    else:
        chosen = select_parameters(parts.policy.actor_parameters(), algorithm.step.parameters)
        sums, report = natural_update(problem, list(chosen.values()))
        extra |= {f"trust_region/{k}": float(x) for k, x in vars(report).items() if not isinstance(x, str)}
        if needs(algorithm).critic is not None:
            sums |= critic_update(problem, parts.optimisers["critic"])
    metrics = _summary(algorithm, sums) | extra
    statistic = statistics(algorithm, rollout, now.state)
    if "measured_kl" in metrics:
        statistic["kl"] = metrics["measured_kl"]
    now.state = update_state(algorithm, now.state, statistic)
    if now.state.beta is not None:
        metrics["beta"] = now.state.beta
    return metrics


def _scored(loop: Loop, sheet: Sheet) -> Rollout:
    """The rollout with what the algorithm needs of the policy, the critic and the reference before any step."""
    parts, rollout = loop.parts, sheet.rollout
    wanted, scoring = needs(parts.algorithm), parts.scoring
    if wanted.old_logp or wanted.critic is not None:
        heard_N = None
        if silent(parts.algorithm):
            heard_N = (parts.algorithm.advantage(rollout, loop.now.state) != 0).any(1).nonzero()[:, 0]
        scores = score_all(parts.actor, sheet, scoring, entropy="none", row_N=heard_N)
        rollout = replace(rollout, value_BT=scores.value_BT)
        if wanted.old_logp:
            rollout = replace(rollout, old_logp_BT=scores.logp_BT)
    if parts.reference is not None and wanted.reference:
        scores = score_all(ActorCritic(parts.reference), sheet, scoring, entropy="none")
        rollout = replace(rollout, reference_logp_BT=scores.logp_BT)
    return rollout


def _summary(algorithm: Algorithm, sums: Sums) -> dict[str, float]:
    numbers = to_host(sums)
    batches = algorithm.optimiser_steps
    metrics = summarise(numbers, batches)
    steps, rows = max(numbers.get("steps", 1.0), 1.0), max(numbers.get("completions", 1.0), 1.0)
    if "mismatch" in numbers:
        metrics["sampling/sampling_logp_difference/mean"] = numbers["mismatch"] / steps
        metrics["sampling/sampling_logp_difference/max"] = numbers["mismatch_max"] / rows
    if "changed" in numbers:
        metrics["routing/changed"] = numbers["changed"] / steps
    if "measured_kl" in numbers:
        metrics["measured_kl"] = numbers["measured_kl"]
    return metrics


def _evaluate(loop: Loop, step: int, *, whole: bool) -> Evaluation:
    """Held-out figures: validation prompts on the way, the test prompts at the start and at the end."""
    parts, options = loop.parts, loop.config.run
    examples = evaluated(parts.task, options, whole)
    found = evaluate(parts.sampler(), parts.source, examples, samples=options.eval_samples, step=step)
    if whole:
        log_final(loop.run, step, found)
    return found


def _finish(loop: Loop) -> None:
    ranks, decoder = loop.parts.scoring.ranks, loop.parts.actor.decoder
    if ranks.tell(loop.run.final.exists()):
        return
    found = _evaluate(loop, loop.done, whole=True)
    facts = {
        "algorithm": loop.parts.algorithm.name,
        "steps": loop.done,
        "held-out accuracy": f"{found.sampled:.3f}",
    }
    if ranks.first:
        card = model_card(loop.config.algorithm.algorithm, decoder, facts)
        finish(loop.run, decoder, loop.parts.tokenizer, card)


def _shown(experience: Experience) -> str:
    if not experience.samples:
        return ""
    record = experience.samples[0]
    return f"{record['prompt']}{record['completions'][0]}  reward {record['rewards'][0]:g}"
