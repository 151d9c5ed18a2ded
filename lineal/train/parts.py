"""What the policy-gradient loop works with, built from a configuration: task, model, algorithm, optimisers."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from lineal.environments.scoring import Scorer
from lineal.environments.text import TextTask
from lineal.errors import UsageError
from lineal.generate.sampling import Sampling
from lineal.models.decoder import Decoder
from lineal.models.policy import ActorCritic
from lineal.objectives.algorithm import Adam, Algorithm, AlgorithmState, complete, needs, override
from lineal.objectives.policy import named
from lineal.optim.groups import adamw
from lineal.tokenizers import Tokenizer
from lineal.train.build import build_model
from lineal.train.collect import Source
from lineal.train.console import note
from lineal.train.device import Device
from lineal.train.distributed import ALONE, Ranks
from lineal.train.order import Order
from lineal.train.run import Run
from lineal.train.score import Scoring
from lineal.train.session import autocast_dtype, place
from lineal.train.sharding import refresh, spread
from lineal.train.tasks import build_scorer, longest_completion, read_task
from lineal.train.update import frozen_copy

if TYPE_CHECKING:
    from lineal.train.options import PolicyGradientConfig


def open_algorithm(wanted: str) -> Algorithm:
    """The algorithm of a name, or of path.py:NAME."""
    file, colon, name = wanted.rpartition(":")
    if not (colon and file.endswith(".py")):
        return named(wanted)
    spec = importlib.util.spec_from_file_location("user_algorithm", file)
    if spec is None or spec.loader is None or not Path(file).is_file():
        raise UsageError(f"--algorithm {wanted}: there is no file {file}.")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise UsageError(f"--algorithm {wanted}: {file} raised {type(error).__name__}: {error}.") from error
    algorithm = getattr(module, name, None)
    if not isinstance(algorithm, Algorithm):
        raise UsageError(f"--algorithm {wanted}: {name} is not an Algorithm in {file}.")
    return algorithm


def read_algorithm(config: PolicyGradientConfig) -> Algorithm:
    """The algorithm that the options name (a name, or path.py:NAME), with their numbers put in."""
    options = config.algorithm
    algorithm = open_algorithm(options.algorithm)
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
    half: Decoder | None = None
    """A bfloat16 copy of the policy that completions are drawn from, where there is one."""

    @property
    def actor(self) -> ActorCritic:
        """The policy as it samples: itself, or where it is sharded its whole copy."""
        return self.scoring.twin or self.policy

    def sampler(self) -> Decoder:
        """The decoder that completions are drawn from, with the policy's weights as they are now."""
        refresh(self.scoring.twin, self.policy)
        refresh(self.half, self.actor.decoder)
        return self.half or self.actor.decoder


@dataclass
class Progressed:
    """The loop's own state: the algorithm's, prompts and tokens used so far, refusals in a row, whether it is over."""

    state: AlgorithmState
    position: int = 0
    tokens: int = 0
    refused: int = 0
    finished: bool = False

    def to_json(self) -> dict[str, Any]:
        """As it goes into checkpoints."""
        return {**vars(self), "state": self.state.to_json()}

    @staticmethod
    def from_json(saved: dict[str, Any]) -> Progressed:
        """What `to_json` wrote."""
        return Progressed(**{**saved, "state": AlgorithmState.from_json(saved["state"])})


def room(task: TextTask, limit: int) -> int:
    """The context that a fresh model needs for the longest prompt and an answer of `limit` tokens."""
    return max(len(example.prompt) for example in (*task.train, *task.held_out)) + limit + 1


def build(config: PolicyGradientConfig, run: Run, ranks: Ranks = ALONE) -> Parts:
    """Everything the loop works with, placed on its device."""
    task = read_task(config.data, config.model)
    for line in task.notes:
        note(line)
    limit = longest_completion(task, config.sampling.max_new_tokens)
    algorithm = complete(read_algorithm(config), limit)
    decoder, tokenizer = build_model(config.model, task.alphabet, room(task, limit), config.run.seed)
    if config.algorithm.routing_replay and decoder.config.experts is None:
        raise UsageError(
            "--routing-replay: the model has no experts, so there is nothing to replay; leave it out."
        )
    wanted = needs(algorithm)
    device = place(decoder, run, config.model, config.algorithm.token_budget // 8, ranks)
    policy = ActorCritic(decoder, wanted.critic.kind if wanted.critic else None, config.algorithm.orthogonal)
    policy.eval()
    reference = frozen_copy(decoder) if wanted.reference or wanted.reference_kl else None
    # A natural step's line search compares numbers that bfloat16 could not tell apart.
    autocast = autocast_dtype(device) if isinstance(algorithm.step, Adam) else None
    sampling = Sampling(
        max_new_tokens=limit,
        temperature=config.sampling.temperature,
        max_batch=config.sampling.max_batch,
        stop_ids=tokenizer.stop_ids,
        half=autocast == torch.bfloat16,
    )
    if not sampling.faithful:
        raise UsageError(
            f"--temperature {sampling.temperature:g}: a policy is trained on softmax(logits / temperature), which needs "
            "a temperature above 0."
        )
    scorer = build_scorer(config.data, task, limit)
    source = Source(
        task.train, Order(len(task.train), config.run.seed), tokenizer, scorer, algorithm.group, sampling,
        config.run.seed, config.data.shuffle_rewards, ranks,
    )  # fmt: skip
    half = half_copy(decoder, device, autocast)
    twin = spread(policy, ranks, config.model.shard, second_derivatives=not isinstance(algorithm.step, Adam))
    scoring = Scoring(sampling.temperature, config.algorithm.token_budget, autocast, reference, ranks, twin)
    for line in str(algorithm).splitlines():
        note(line)
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
        half,
    )


def half_copy(decoder: Decoder, device: Device, autocast: torch.dtype | None) -> Decoder | None:
    """A frozen bfloat16 copy, where a policy trains under autocast on a GPU; else None.

    Decoding reads all weights for every token, so half the bytes are half the time. A CPU multiplies in bfloat16 with
    float32 around it (`Sampling.half`). The sampler's rounding shows in `sampling/sampling_logp_difference`.
    """
    if device.kind != "cuda" or autocast != torch.bfloat16:
        return None
    return frozen_copy(decoder).to(torch.bfloat16)


def _optimisers(algorithm: Algorithm, policy: ActorCritic) -> dict[str, torch.optim.Optimizer]:
    step, critic = algorithm.step, needs(algorithm).critic
    if isinstance(step, Adam):
        options = {"betas": step.betas, "eps": step.eps, "weight_decay": step.weight_decay}
        return {"policy": adamw(dict(policy.named_parameters()), step.learning_rate, **options)}
    return {} if critic is None else {"critic": adamw(policy.critic_parameters(), critic.learning_rate)}
