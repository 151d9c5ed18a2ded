"""Learning from human preferences (Christiano et al., 2017): a reward nobody can write, from which of two clips is better."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from lineal.errors import UsageError
from lineal.recipes.atari_presets import preset
from lineal.recipes.config import Paper, with_options
from lineal.train.environment_options import (
    EnvironmentConfig,
    EnvironmentOptions,
    EnvironmentRunOptions,
    StepAlgorithmOptions,
)
from lineal.train.preferences.options import PreferenceOptions

PAPER = Paper(
    year=2017,
    title="Deep reinforcement learning from human preferences",
    url="https://arxiv.org/abs/1706.03741",
    departures=(
        "The policy is trained by TRPO everywhere, or by another of our algorithms; the paper takes A2C for Atari.",
        "The bootstrap draws each label Poisson(1) times per member, so that 1/e of them are held out and stay held out "
        "as labels arrive; the paper draws as many labels as there are, with replacement.",
        "The reward networks standardise their inputs, by the steps that the first labels are about.",
        "Rewards are normalised on the most recent clips after each fit, not by statistics since the start.",
        "Where a task would end it begins again inside an episode of fixed length; the paper changed the tasks instead.",
        "The constant of the label rate is a share of the run; the paper's is 2e6 steps.",
        "Labels after the first are asked in rounds (--rounds), the reward fitted after each; in the paper the policy, the person "
        "and the fit go on side by side, which --asynchronous does for the fit.",
        "Predicted rewards have standard deviation 1 everywhere; the paper scales those of Atari to 0.05.",
    ),
)
SUMMARY = "an agent learns what a person prefers, from pairs of clips"
LOOP = "lineal.recipes.preferences_loop"
ESSENTIAL = (
    "env", "labels", "labeller", "instruction", "segment", "pairs", "mistake", "algorithm", "env_steps", "seed", "out",
)  # fmt: skip


@dataclass(frozen=True)
class PreferencesConfig(EnvironmentConfig):
    """The options of a policy-gradient run on an environment, and where its reward comes from."""

    environment: EnvironmentOptions = field(default_factory=lambda: EnvironmentOptions(env="Pendulum-v1"))
    algorithm: StepAlgorithmOptions = field(default_factory=lambda: StepAlgorithmOptions(algorithm="trpo"))
    run: EnvironmentRunOptions = field(default_factory=lambda: EnvironmentRunOptions(save_every=5))
    preferences: PreferenceOptions = field(default_factory=PreferenceOptions)


def default() -> PreferencesConfig:
    """TRPO on Pendulum, taught by 700 synthetic comparisons."""
    return PreferencesConfig()


def tuned(asked: PreferencesConfig) -> PreferencesConfig:
    """The defaults for the environment and the algorithm that are asked for: the preset's numbers, if there is one."""
    where, algorithm = asked.environment, asked.algorithm.algorithm
    name, numbers = preset(algorithm, where.env, where.preset)
    if not name:
        raise UsageError(f"--preset zoo: there is none for {algorithm} on {where.env}. Use plain or auto.")
    config = with_options(default(), env=where.env, algorithm=algorithm, **numbers)
    if algorithm in ("ppo", "ppo-kl"):
        # Each fit moves the reward under the policy; at a constant rate a late update can undo it.
        config = with_options(config, schedule="linear")
    # The ensemble gives each step's reward a deviation of one; whether returns are scaled for the critic as well is the
    # preset's to say. No end may say how well it went.
    plain = {"clip_rewards": False, "episodic_life": False}
    return replace(config, environment=replace(config.environment, **plain))
