"""The policy-gradient recipes on environments: the same papers and algorithms, other options and another loop."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module

from lineal.errors import UsageError
from lineal.recipes import RECIPES
from lineal.recipes.atari_presets import preset
from lineal.recipes.config import EnvironmentConfig, Paper, with_options
from lineal.recipes.environment_presets import GSDE, Numbers

LOOP = "lineal.recipes.environment_loop"
GROUP = "environment"
"""The group of options that only such a run has."""


@dataclass(frozen=True)
class OnEnvironment:
    """A recipe with an environment in the place of prompts; it has what the modules of recipes have."""

    name: str
    env: str = "CartPole-v1"
    wanted: str = "auto"
    LOOP: str = LOOP
    ESSENTIAL: tuple[str, ...] = (
        "env", "envs", "preset", "normalise_observations", "hidden", "rollout_steps", "epochs", "minibatches",
        "learning_rate", "clip", "max_kl", "discount", "trace_decay", "entropy", "env_steps", "seed", "out",
    )  # fmt: skip

    @property
    def SUMMARY(self) -> str:
        """One line of help."""
        return f"{self.name} on an environment"

    @property
    def PAPER(self) -> Paper:
        """The paper of the same recipe on text."""
        return import_module(RECIPES[self.name]).PAPER

    def numbers(self) -> tuple[str, Numbers]:
        """The preset's name and its numbers; UsageError where one was asked for by name and there is none."""
        found, numbers = preset(self.name, self.env, self.wanted)
        if not found:
            raise UsageError(
                f"--preset zoo: rl-baselines3-zoo has no numbers for {self.name} on {self.env}. Use --preset plain."
            )
        return found, numbers

    def default(self) -> EnvironmentConfig:
        """The options before those of the command line: the library's, then the preset's."""
        _, numbers = self.numbers()
        return with_options(EnvironmentConfig(), **numbers, algorithm=self.name, env=self.env)

    def line(self) -> str:
        """The preset with its numbers, for print."""
        found, numbers = self.numbers()
        said = ", ".join(f"{name.replace('_', '-')} {_show(value)}" for name, value in numbers.items())
        noise = "; the zoo explores by gSDE there, this by plain Gaussian noise" if self._noise(found) else ""
        return f"preset {found}: {said}{noise}"

    def _noise(self, found: str) -> bool:
        return found.startswith("zoo") and self.env in GSDE


def _show(value: object) -> str:
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def trained_on_environments(options: object) -> bool:
    """Whether these saved options are of a run on an environment."""
    return isinstance(options, dict) and GROUP in options


def asks_for_environment(words: Sequence[str]) -> bool:
    """Whether a command line names an environment."""
    return any(word == "--env" or word.startswith("--env=") for word in words)
