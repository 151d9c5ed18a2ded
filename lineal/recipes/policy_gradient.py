"""The one loop of every policy-gradient method: sample, score, weigh, step. The algorithm is a value it is given."""

from __future__ import annotations

import importlib.util
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from lineal.environments.chat import load_chat_template
from lineal.environments.scoring import Scorer
from lineal.environments.text import TextTask
from lineal.errors import UsageError
from lineal.generate.sampling import Sampling
from lineal.models.decoder import Decoder
from lineal.models.policy import ActorCritic
from lineal.objectives.algorithm import (
    Adam,
    Algorithm,
    AlgorithmState,
    Batch,
    complete,
    initial_state,
    needs,
    override,
    prepare,
    statistics,
    summarise,
    update_state,
)
from lineal.objectives.policy import named
from lineal.optim.groups import adamw, select_parameters
from lineal.optim.schedules import make_schedule
from lineal.recipes.config import PolicyGradientConfig
from lineal.tokenizers import Tokenizer
from lineal.train.buffer import load_experience, save_experience
from lineal.train.build import build_model, model_folder
from lineal.train.collect import Experience, Source, collect
from lineal.train.console import note
from lineal.train.evaluate import Evaluation, evaluate
from lineal.train.guard import Guard
from lineal.train.metrics import to_host
from lineal.train.order import Order
from lineal.train.progress import Progress
from lineal.train.run import Run
from lineal.train.score import Scoring, Sheet, score_all
from lineal.train.session import autocast_dtype, evaluated, finish, model_card, over, place, restore, save, scheduled
from lineal.train.tasks import build_scorer, build_task
from lineal.train.update import Sums, adam_update, critic_update, frozen_copy, natural_update, silent
from lineal.types import Rollout

SHOWN = ("reward", "eval/accuracy", "entropy", "kl", "completions/mean_length")


def read_algorithm(config: PolicyGradientConfig) -> Algorithm:
    """The algorithm that the options name (a name, or path.py:NAME), with their numbers put in."""
    options = config.algorithm
    file, colon, name = options.algorithm.rpartition(":")
    if colon and file.endswith(".py"):
        spec = importlib.util.spec_from_file_location("user_algorithm", file)
        if spec is None or spec.loader is None or not Path(file).is_file():
            raise UsageError(f"--algorithm {options.algorithm}: there is no file {file}.")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        algorithm = getattr(module, name, None)
        if not isinstance(algorithm, Algorithm):
            raise UsageError(f"--algorithm {options.algorithm}: {name} is not an Algorithm in {file}.")
    else:
        algorithm = named(options.algorithm)
    numbers = {
        name: getattr(options, name)
        for name in (
            "group_size", "epochs", "minibatches", "learning_rate", "clip_low", "clip_high", "max_kl", "reference_kl",
            "entropy", "discount", "trace_decay", "whiten", "critic", "value_clip", "max_grad_norm",
        )
    }  # fmt: skip
    numbers["reward_scaling"] = options.reward_scaling or None
    numbers["subset"] = tuple(options.subset.split(",")) if options.subset else None
    return override(algorithm, **numbers)


@dataclass
class Parts:
    """What the loop works with; everything that changes is in `policy`, the optimisers and `Progressed`."""

    algorithm: Algorithm
    task: TextTask
    scorer: Scorer
    tokenizer: Tokenizer
    policy: ActorCritic
    reference: Decoder | None
    optimisers: dict[str, torch.optim.Optimizer]
    source: Source
    scoring: Scoring
    sampling: Sampling


@dataclass
class Progressed:
    """The loop's own state: the algorithm's, prompts used so far, tokens sampled so far, refusals in a row."""

    state: AlgorithmState
    position: int = 0
    tokens: int = 0
    refused: int = 0

    def to_json(self) -> dict[str, Any]:
        """As it goes into checkpoints."""
        return {**vars(self), "state": self.state.to_json()}

    @staticmethod
    def from_json(saved: dict[str, Any]) -> Progressed:
        """What `to_json` wrote."""
        return Progressed(**{**saved, "state": AlgorithmState.from_json(saved["state"])})


def plan(config: PolicyGradientConfig) -> list[str]:
    """What a run would do, without doing it: the objective, the batch in prompts x samples, the model, the memory."""
    task, template = _task(config)
    if template is not None:
        template.close()
    limit = config.sampling.max_new_tokens or task.max_new_tokens or 256
    algorithm = complete(read_algorithm(config), limit)
    decoder, tokenizer = build_model(config.model, task.alphabet, _context(task, limit), config.run.seed)
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


def run(config: PolicyGradientConfig, run: Run) -> None:
    """Post-train a model; resumes by itself when the run folder holds a checkpoint."""
    parts = _build(config, run)
    with (
        parts.scorer,
        Progress(config.run.steps, SHOWN, live=False if config.run.quiet else None) as progress,
    ):
        done, saved = restore(run, parts.policy, parts.optimisers)
        now = Progressed.from_json(saved) if saved else Progressed(initial_state(parts.algorithm))
        guard = Guard(run.refused, in_a_row=now.refused)
        schedule = make_schedule(config.algorithm.schedule, config.run.steps, config.algorithm.warmup)
        started = time.monotonic()
        if done == 0:
            _evaluate(config, run, parts, 0, whole=True)
        for step in range(done + 1, config.run.steps + 1):
            begun = time.monotonic()
            base = parts.algorithm.step.learning_rate if isinstance(parts.algorithm.step, Adam) else 0.0
            rate = scheduled(schedule, base, step - 1, parts.optimisers["policy"]) if base else 0.0
            experience = _experience(config, run, parts, step, now)
            sampled = time.monotonic()
            metrics = _learn(parts, experience.rollout, now, guard, step) if experience.rollout else {}
            now.position, now.refused = experience.position, guard.in_a_row
            now.tokens += int(experience.metrics["tokens"])
            metrics = {**experience.metrics, **metrics, "learning_rate": rate, "num_tokens": now.tokens}
            last = step == config.run.steps or over(config.run, started, now.tokens)
            if config.run.eval_every and step % config.run.eval_every == 0 and not last:
                metrics |= _evaluate(config, run, parts, step, whole=False).metrics()
            run.log(step, metrics)
            for record in experience.samples:
                run.sample(step, record)
            spent = time.monotonic() - begun
            rates = {
                "step_time": spent,
                "sample_time": sampled - begun,
                "tokens_per_second": metrics["tokens"] / spent,
            }
            run.time(step, rates)
            progress.update(step, metrics, _shown(experience))
            if last or step % config.run.save_every == 0 or run.stop_requested:
                save(run, step, parts.policy, parts.optimisers, now.to_json())
            if run.stop_requested and not last:
                run.exit()
            if last:
                _finish(config, run, parts, step)
                return
        _finish(config, run, parts, done)


def _task(config: PolicyGradientConfig) -> tuple[TextTask, Any]:
    template = None
    if config.model.chat:
        if config.model.model is None:
            raise UsageError("--chat needs --model: a fresh model has no chat template.")
        template = load_chat_template(model_folder(config.model.model))
    return build_task(config.data, template), template


def _context(task: TextTask, limit: int) -> int:
    return max(len(example.prompt) for example in (*task.train, *task.held_out)) + limit + 1


def _build(config: PolicyGradientConfig, run: Run) -> Parts:
    task, template = _task(config)
    if template is not None:
        template.close()
    for line in task.notes:
        note(line)
    limit = config.sampling.max_new_tokens or task.max_new_tokens or 256
    algorithm = complete(read_algorithm(config), limit)
    decoder, tokenizer = build_model(config.model, task.alphabet, _context(task, limit), config.run.seed)
    wanted = needs(algorithm)
    device = place(decoder, run, config.model, config.algorithm.token_budget // 8)
    policy = ActorCritic(decoder, wanted.critic.kind if wanted.critic else None, config.algorithm.orthogonal)
    policy.eval()
    reference = frozen_copy(decoder) if wanted.reference or wanted.reference_kl else None
    sampling = Sampling(
        max_new_tokens=limit, temperature=config.sampling.temperature, max_batch=config.sampling.max_batch
    )
    if not sampling.faithful:
        raise UsageError(
            f"--temperature {sampling.temperature:g}: a policy is trained on softmax(logits / temperature), which needs "
            "a temperature above 0."
        )
    scorer = build_scorer(config.data, task, limit)
    source = Source(
        task.train, Order(len(task.train), config.run.seed), tokenizer, scorer, algorithm.group, sampling,
        config.run.seed, config.data.shuffle_rewards,
    )  # fmt: skip
    # A natural step's line search compares numbers that bfloat16 could not tell apart.
    autocast = autocast_dtype(device) if isinstance(algorithm.step, Adam) else None
    scoring = Scoring(sampling.temperature, config.algorithm.token_budget, autocast, reference)
    note(str(algorithm))
    return Parts(
        algorithm,
        task,
        scorer,
        tokenizer,
        policy,
        reference,
        _optimisers(algorithm, policy),
        source,
        scoring,
        sampling,
    )


def _optimisers(algorithm: Algorithm, policy: ActorCritic) -> dict[str, torch.optim.Optimizer]:
    step, critic = algorithm.step, needs(algorithm).critic
    if isinstance(step, Adam):
        options = {"betas": step.betas, "eps": step.eps, "weight_decay": step.weight_decay}
        return {"policy": adamw(dict(policy.named_parameters()), step.learning_rate, **options)}
    return {} if critic is None else {"critic": adamw(policy.critic_parameters(), critic.learning_rate)}


def _experience(
    config: PolicyGradientConfig, run: Run, parts: Parts, step: int, now: Progressed
) -> Experience:
    """This step's rollout: the one that survived a kill, or a new one, kept until the next checkpoint."""
    found = load_experience(run, step, parts.policy.decoder.device)
    if found is not None:
        return found
    decoder = parts.policy.decoder
    experience = collect(decoder, parts.source, config.algorithm.prompts, step, now.position)
    if any(reward.path is not None for reward in parts.scorer.rewards):
        # A user's reward may differ when called again; the built-in ones and the sampler cannot.
        save_experience(run, step, experience)
    return experience


def _learn(parts: Parts, rollout: Rollout, now: Progressed, guard: Guard, step: int) -> dict[str, float]:
    """One update from one rollout; moves the algorithm's state on, and returns the metrics."""
    algorithm, wanted, scoring = parts.algorithm, needs(parts.algorithm), parts.scoring
    sheet = Sheet.of(rollout)
    rollout = _scored(parts, sheet, now.state)
    batch = prepare(algorithm, rollout, now.state)
    extra: dict[str, float] = {}

    def accept(norm: float, part: Batch) -> bool:
        tensors = {name: x for name, x in vars(part).items() if isinstance(x, torch.Tensor)}
        guard.watch(step, lambda: tensors)
        return guard.finite(norm)

    if isinstance(algorithm.step, Adam):
        sums, norms = adam_update(
            parts.policy,
            parts.optimisers["policy"],
            algorithm,
            sheet,
            batch,
            now.state,
            scoring,
            accept,
            step,
        )
        extra["grad_norm"] = sum(norms) / len(norms)
    else:
        chosen = select_parameters(parts.policy.actor_parameters(), algorithm.step.parameters)
        sums, report = natural_update(
            parts.policy, algorithm, sheet, batch, now.state, scoring, list(chosen.values())
        )
        extra |= {
            f"trust_region/{name}": float(x) for name, x in vars(report).items() if not isinstance(x, str)
        }
        if wanted.critic is not None:
            sums |= critic_update(parts.policy, parts.optimisers["critic"], algorithm, sheet, batch, scoring)
    metrics = _summary(algorithm, sums) | extra
    statistic = statistics(algorithm, rollout, now.state)
    if "measured_kl" in metrics:
        statistic["kl"] = metrics["measured_kl"]
    now.state = update_state(algorithm, now.state, statistic)
    if now.state.beta is not None:
        metrics["beta"] = now.state.beta
    return metrics


def _scored(parts: Parts, sheet: Sheet, state: AlgorithmState) -> Rollout:
    """The rollout with what the algorithm needs of the policy, the critic and the reference before any step."""
    wanted, rollout, scoring = needs(parts.algorithm), sheet.rollout, parts.scoring
    if wanted.old_logp or wanted.critic is not None:
        heard_N = None
        if silent(parts.algorithm):
            heard_N = (parts.algorithm.advantage(rollout, state) != 0).any(1).nonzero()[:, 0]
        scores = score_all(parts.policy, sheet, scoring, entropy="none", row_N=heard_N)
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
    if "measured_kl" in numbers:
        metrics["measured_kl"] = numbers["measured_kl"]
    return metrics


def _evaluate(config: PolicyGradientConfig, run: Run, parts: Parts, step: int, *, whole: bool) -> Evaluation:
    """Held-out figures: validation prompts on the way, the test prompts at the start and at the end."""
    examples = evaluated(parts.task, config.run, whole)
    count = config.run.eval_prompts if whole else min(128, config.run.eval_prompts)
    found = evaluate(
        parts.policy.decoder, parts.tokenizer, examples[:count], parts.scorer, parts.sampling,
        samples=config.run.eval_samples, seed=config.run.seed, step=step,
    )  # fmt: skip
    if whole:
        run.log(step, found.metrics() | {"eval/prompts": found.prompts, "eval/final": True})
        for record in found.records[:4] + found.records[-4:]:
            run.sample(step, {"kind": "eval", **record})
        note(f"step {step}: held-out accuracy {found.sampled:.3f} sampled, {found.greedy:.3f} greedy")
    return found


def _finish(config: PolicyGradientConfig, run: Run, parts: Parts, step: int) -> None:
    if not run.final.exists():
        found = _evaluate(config, run, parts, step, whole=True)
        facts = {
            "algorithm": parts.algorithm.name,
            "steps": step,
            "held-out accuracy": f"{found.sampled:.3f}",
        }
        card = model_card(config.algorithm.algorithm, parts.policy.decoder, facts)
        finish(run, parts.policy.decoder, parts.tokenizer, card)


def _shown(experience: Experience) -> str:
    record = experience.samples[0]
    return f"{record['prompt']}{record['completions'][0]}  reward {record['rewards'][0]:g}"
