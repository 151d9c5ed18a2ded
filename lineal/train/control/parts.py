"""What a run on an environment works with, built from its options: environment, algorithm, policy, optimisers."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from lineal.environments.control.images import image_shape
from lineal.environments.control.opening import open_environment
from lineal.environments.control.protocol import VectorEnvironment
from lineal.environments.control.spaces import Box, Discrete, MultiDiscrete, Space
from lineal.errors import UsageError
from lineal.models.control import ControlConfig, FlatPolicy
from lineal.models.convolution import filters_of
from lineal.models.pixels import make_policy
from lineal.objectives.advantage import Baselined, RewardToGo
from lineal.objectives.algorithm import Adam, Algorithm, AlgorithmState, Critic, needs, override
from lineal.objectives.baseline import Baseline, Learned, NoBaseline, RunningMean
from lineal.optim.groups import adamw
from lineal.train.control.collect import Collector
from lineal.train.device import usable_cores
from lineal.train.environment_options import EnvironmentConfig, PolicyOptions
from lineal.train.parts import open_algorithm


def read_step_algorithm(config: EnvironmentConfig) -> Algorithm:
    """The algorithm that the options name, with their numbers put in; refused where it needs prompts."""
    options = config.algorithm
    algorithm = open_algorithm(options.algorithm)
    _check_fits(algorithm)
    if options.baseline is not None:
        algorithm = _with_baseline(algorithm, options.baseline)
    numbers: dict[str, Any] = {
        name: getattr(options, name)
        for name in (
            "epochs", "minibatches", "max_kl", "cg_iterations", "damping", "backtrack", "target_kl", "beta", "entropy",
            "discount", "trace_decay", "whiten", "value_coefficient", "value_clip", "critic_epochs", "max_grad_norm",
        )
    }  # fmt: skip
    adam = isinstance(algorithm.step, Adam)
    numbers["clip_low"] = numbers["clip_high"] = options.clip
    numbers["learning_rate" if adam else "critic_learning_rate"] = options.learning_rate
    algorithm = override(algorithm, **numbers)
    if isinstance(algorithm.step, Adam):
        algorithm = replace(algorithm, step=replace(algorithm.step, eps=options.adam_eps))
    return _with_kind(algorithm, "separate")


def _with_kind(algorithm: Algorithm, kind: str) -> Algorithm:
    """The algorithm with its critic, if any, beside the policy or as its head."""
    critic = algorithm.advantage.critic_part
    if critic is None:
        return algorithm
    return replace(algorithm, advantage=algorithm.advantage.with_critic(replace(critic, kind=kind)))


def _check_fits(algorithm: Algorithm) -> None:
    name = algorithm.name
    if algorithm.group.size > 1 or algorithm.advantage.grouped:
        raise UsageError(
            f"{name} compares several completions of one prompt, and an environment has no prompts: its copies begin "
            "in different states. Use reinforce, trpo, ppo or ppo-kl."
        )
    if algorithm.ratio.whole_sequence:
        raise UsageError(
            f"{name} has one ratio per completion, and a rollout of an environment is cut into steps. Use a token ratio."
        )
    if needs(algorithm).reference or needs(algorithm).reference_kl:
        raise UsageError(
            f"{name} holds the policy near a reference, and a fresh control policy has none. Drop the reference KL."
        )


def _with_baseline(algorithm: Algorithm, name: str) -> Algorithm:
    if not isinstance(algorithm.advantage, RewardToGo):
        raise UsageError(
            f"--baseline {name}: {algorithm.name} takes its advantage from a critic. Drop --baseline."
        )
    parts: dict[str, Baseline] = {
        "none": NoBaseline(),
        "running": RunningMean(),
        "learned": Learned(Critic()),
    }
    return replace(algorithm, advantage=replace(algorithm.advantage, baseline=parts[name]))


def policy_config(options: PolicyOptions, observation: Space, action: Space, **others: Any) -> ControlConfig:
    """The policy that fits an environment's spaces; UsageError for spaces that no policy here reads or makes."""
    if isinstance(observation, MultiDiscrete) or (isinstance(observation, Box) and observation.size < 1):
        raise UsageError(
            f"the observations are {observation}, and a policy reads a Box of at least one number, or a Discrete."
        )
    features = observation.n if isinstance(observation, Discrete) else observation.size
    choices: tuple[int, ...] = ()
    reals = 0
    if isinstance(action, Discrete):
        choices = (action.n,)
    elif isinstance(action, MultiDiscrete):
        choices = action.n
    elif len(action.shape) == 1 and action.dtype.startswith("float"):
        reals = action.size
    if not choices and not reals:
        raise UsageError(
            f"the actions are {action}, which fits no policy: it makes Discrete, MultiDiscrete, or a Box of real "
            "numbers in one row. Wrap the environment."
        )
    names = ("covariance", "learn_std", "log_std", "orthogonal")
    shape: dict[str, Any] = {name: getattr(options, name) for name in names}
    image = None if options.network == "perceptron" else image_shape(observation)
    if image is None:
        if options.network == "convolutional" or options.convolutions:
            raise UsageError(
                f"convolutions read pictures, which are uint8 with 2 to 4 axes, and the observations are {observation}. "
                "Use --network perceptron, without --convolutions."
            )
        shape |= {"hidden": options.hidden or (64, 64), "activation": options.activation or "tanh"}
        others.pop("shared", None)
        return ControlConfig(features, choices, reals, **shape, **others)
    shape |= {"hidden": options.hidden or (512,), "activation": options.activation or "relu"}
    shape |= {"image": image, "convolutions": filters_of(options.convolutions, image)}
    return ControlConfig(features, choices, reals, **shape, **others)


@dataclass
class EnvironmentParts:
    """What the loop works with; everything that changes is in here and in `Progressed`."""

    algorithm: Algorithm
    environment: VectorEnvironment
    policy: FlatPolicy
    collector: Collector
    optimiser: torch.optim.Optimizer
    leaf: nn.Parameter
    """What the optimiser moves: all of the policy, or after a natural step the critic alone, sharing its memory."""
    whole_episodes: bool


Wrap = Callable[[VectorEnvironment], VectorEnvironment]


def build_environment(config: EnvironmentConfig, wrap: Wrap | None = None) -> EnvironmentParts:
    """Everything the loop works with. wrap: puts something around the environment, such as a learned reward."""
    algorithm = read_step_algorithm(config)
    where, seed, options = config.environment, config.run.seed, config.policy
    prepared = where.preparation(learner=True)
    environment = open_environment(where.env, where.envs, seed, own=where.own, preparation=prepared)
    if wrap is not None:
        environment = wrap(environment)
    critic = needs(algorithm).critic
    shape = policy_config(
        options,
        environment.observation,
        environment.action,
        critic=critic is not None,
        normalise_observations=where.normalise_observations,
        normalise_rewards=where.normalise_rewards,
        shared=critic is not None and isinstance(algorithm.step, Adam),
    )
    if shape.shared:
        algorithm = _with_kind(algorithm, "head")
    torch.set_num_threads(options.threads or (usable_cores() if shape.image else 1))
    dtype = torch.float64 if options.dtype == "float64" else torch.float32
    policy = make_policy(shape, seed, dtype, options.micro_batch)
    collector = Collector(
        environment, policy, seed, config.algorithm.discount, clip_rewards=where.clip_rewards
    )
    assert collector.features.count == shape.features
    step = algorithm.step
    if isinstance(step, Adam):
        leaf = policy.theta
        numbers: dict[str, Any] = {"betas": step.betas, "eps": step.eps, "weight_decay": step.weight_decay}
        optimiser = adamw({"theta": leaf}, step.learning_rate, **numbers)
    else:
        leaf = nn.Parameter(policy.theta.data[1:2] if critic else policy.theta.data[:0])
        rate = critic.learning_rate if critic else 1e-3
        optimiser = adamw({"theta": leaf}, rate, eps=config.algorithm.adam_eps, weight_decay=0.0)
    return EnvironmentParts(
        algorithm, environment, policy, collector, optimiser, leaf, critic is None or _returns(algorithm)
    )


def _returns(algorithm: Algorithm) -> bool:
    """Whether advantages are returns, which want episodes from beginning to end."""
    return isinstance(algorithm.advantage, Baselined)


@dataclass
class Going:
    """The loop's own state: the algorithm's, steps taken, the last returns, refusals in a row, whether it is over."""

    state: AlgorithmState
    env_steps: int = 0
    episodes: int = 0
    recent: list[float] | None = None
    refused: int = 0
    finished: bool = False

    def note(self, returns: list[float]) -> float:
        """Take in the episodes that ended; the mean return of the last 100, nan before there is one."""
        self.episodes += len(returns)
        self.recent = [*(self.recent or []), *returns][-100:]
        return math.fsum(self.recent) / len(self.recent) if self.recent else math.nan

    def to_json(self) -> dict[str, Any]:
        """As it goes into checkpoints."""
        return {**vars(self), "state": self.state.to_json()}

    @staticmethod
    def from_json(saved: dict[str, Any]) -> Going:
        """What `to_json` wrote."""
        return Going(**{**saved, "state": AlgorithmState.from_json(saved["state"])})
