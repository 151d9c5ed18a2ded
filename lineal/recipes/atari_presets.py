"""Hyper-parameters for Atari's games, as rl-baselines3-zoo has them; help loads neither torch nor numpy.

Source: the entry `atari` of hyperparams/ppo.yml in https://github.com/DLR-RM/rl-baselines3-zoo, and the AtariWrapper of
Stable-Baselines3 that it names.
"""

from __future__ import annotations

from lineal.recipes import environment_presets
from lineal.recipes.environment_presets import PPO, TRPO, Numbers

GAMES: Numbers = {
    "episodic_life": True,
    "clip_rewards": True,
    "envs": 8,
    "rollout_steps": 128,
    "env_steps": 10_000_000,
}
"""Whatever the algorithm: a lost life is an end, rewards count by their sign, 8 copies take 128 steps each."""

ATARI: dict[str, Numbers] = {
    "ppo": PPO | GAMES | {
        "epochs": 4, "minibatches": 4, "learning_rate": 2.5e-4, "schedule": "linear", "clip": 0.1,
        "clip_schedule": "linear", "value_coefficient": 0.5, "entropy": 0.01,
    },
    "trpo": TRPO | GAMES | {"critic_epochs": 4, "critic_minibatches": 4},
    "reinforce": environment_presets.PLAIN["reinforce"] | GAMES | {"learning_rate": 2.5e-4},
}  # fmt: skip
ATARI["ppo-kl"] = {name: x for name, x in ATARI["ppo"].items() if not name.startswith("clip")} | {
    "clip_rewards": True
}

TUNED = ("ppo", "ppo-kl")
"""Those whose numbers are the zoo's; the others take their own, in the same setting."""


def is_atari(env: str) -> bool:
    """Whether it is one of Atari's names: ALE/Pong-v5, PongNoFrameskip-v4."""
    return env.startswith("ALE/") or "NoFrameskip" in env


def preset(algorithm: str, env: str, wanted: str = "auto") -> tuple[str, Numbers]:
    """The preset's name and its numbers, as `environment_presets.preset`, and for Atari's games these."""
    if not is_atari(env) or wanted == "plain" or algorithm not in ATARI:
        return environment_presets.preset(algorithm, env, wanted)
    if algorithm in TUNED:
        return f"zoo {algorithm} Atari", dict(ATARI[algorithm])
    return ("", {}) if wanted == "zoo" else (f"Atari {algorithm}", dict(ATARI[algorithm]))
