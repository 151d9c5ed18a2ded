"""Hyper-parameters by environment, as rl-baselines3-zoo tuned them, under our names; help loads neither torch nor numpy.

Source: hyperparams/ppo.yml and trpo.yml of https://github.com/DLR-RM/rl-baselines3-zoo, and Stable-Baselines3's defaults
where those are silent. Minibatches are counted, not sized: envs x rollout_steps / batch_size.
"""

from __future__ import annotations

from typing import Any

Numbers = dict[str, Any]

PPO: Numbers = {
    "envs": 1, "rollout_steps": 2048, "epochs": 10, "minibatches": 32, "learning_rate": 3e-4, "clip": 0.2,
    "discount": 0.99, "trace_decay": 0.95, "whiten": "minibatch", "value_coefficient": 0.5, "max_grad_norm": 0.5,
}  # fmt: skip
"""Stable-Baselines3's defaults of PPO."""

TRPO: Numbers = {
    "envs": 1, "rollout_steps": 2048, "learning_rate": 1e-3, "discount": 0.99, "trace_decay": 0.95, "whiten": "rollout",
    "max_kl": 0.01, "cg_iterations": 15, "damping": 0.1, "backtrack": 0.8, "critic_epochs": 10, "critic_minibatches": 16,
}  # fmt: skip
"""sb3-contrib's defaults of TRPO."""

NORMALISED: Numbers = {"normalise_observations": True, "normalise_rewards": True}
WIDE: Numbers = {"hidden": (256, 256), "activation": "relu", "orthogonal": False, "log_std": -2.0}

ZOO: dict[str, dict[str, Numbers]] = {
    "ppo": {
        "CartPole-v1": {
            "envs": 8, "rollout_steps": 32, "minibatches": 1, "trace_decay": 0.8, "discount": 0.98, "epochs": 20,
            "learning_rate": 1e-3, "schedule": "linear", "clip_schedule": "linear",
        },
        "Pendulum-v1": {
            "envs": 4, "rollout_steps": 1024, "minibatches": 64, "discount": 0.9, "learning_rate": 1e-3,
        },
        "Acrobot-v1": NORMALISED | {
            "envs": 16, "rollout_steps": 256, "minibatches": 64, "trace_decay": 0.94, "epochs": 4,
            "env_steps": 1_000_000,
        },
        "MountainCar-v0": NORMALISED | {
            "envs": 16, "rollout_steps": 16, "minibatches": 4, "trace_decay": 0.98, "epochs": 4,
            "env_steps": 1_000_000,
        },
        "Hopper": NORMALISED | WIDE | {
            "rollout_steps": 512, "minibatches": 16, "discount": 0.999, "learning_rate": 9.80828e-5,
            "entropy": 0.00229519, "epochs": 5, "trace_decay": 0.99, "max_grad_norm": 0.7,
            "value_coefficient": 0.835671, "env_steps": 1_000_000,
        },
        "HalfCheetah": NORMALISED | WIDE | {
            "rollout_steps": 512, "minibatches": 8, "discount": 0.98, "learning_rate": 2.0633e-5,
            "entropy": 0.000401762, "clip": 0.1, "epochs": 20, "trace_decay": 0.92, "max_grad_norm": 0.8,
            "value_coefficient": 0.58096, "env_steps": 1_000_000,
        },
    },
    "trpo": {
        "CartPole-v1": {
            "envs": 2, "rollout_steps": 512, "critic_minibatches": 2, "damping": 1e-3, "trace_decay": 0.98,
            "critic_epochs": 20,
        },
        "Pendulum-v1": {"envs": 2, "rollout_steps": 1024, "discount": 0.9, "critic_epochs": 15},
        "Acrobot-v1": NORMALISED | {"envs": 2, "rollout_steps": 1024},
        "MountainCar-v0": NORMALISED | {"envs": 2, "rollout_steps": 1024, "critic_epochs": 20},
        "Hopper": NORMALISED | {
            "envs": 2, "rollout_steps": 1024, "cg_iterations": 25, "critic_epochs": 20, "env_steps": 1_000_000,
        },
        "HalfCheetah": NORMALISED | {
            "envs": 2, "rollout_steps": 1024, "cg_iterations": 25, "critic_epochs": 20, "max_kl": 0.04,
            "env_steps": 1_000_000,
        },
    },
    "reinforce": {},
}  # fmt: skip
"""Algorithm -> environment (a name with its version, or a family of versions) -> what differs from the library's defaults."""
ZOO["ppo-kl"] = ZOO["ppo"]

PLAIN: dict[str, Numbers] = {
    "ppo": PPO | {"envs": 8, "rollout_steps": 256},
    "ppo-kl": PPO | {"envs": 8, "rollout_steps": 256},
    "trpo": TRPO | {"envs": 8, "rollout_steps": 256},
    "reinforce": {
        "envs": 8, "baseline": "learned", "learning_rate": 5e-3, "max_grad_norm": 0.5, "discount": 0.99,
    },
}  # fmt: skip
"""Algorithm -> numbers for an environment that nobody tuned it for."""

GSDE = ("Pendulum-v1",)
"""Where the zoo explores by state-dependent noise, which is not built here: plain Gaussian noise instead."""


def preset(algorithm: str, env: str, wanted: str = "auto") -> tuple[str, Numbers]:
    """The preset's name and its numbers, by our options; ("", {}) where "zoo" was asked for and there is none."""
    tuned = ZOO.get(algorithm, {})
    found = tuned.get(env) or tuned.get(env.rpartition("-v")[0])
    if wanted != "plain" and found is not None:
        # An algorithm without clip takes PPO's other numbers.
        numbers = (TRPO if algorithm == "trpo" else PPO) | found
        if algorithm == "ppo-kl":
            numbers = {name: value for name, value in numbers.items() if not name.startswith("clip")}
        return f"zoo {algorithm} {env}", numbers
    if wanted == "zoo":
        return "", {}
    numbers = dict(PLAIN.get(algorithm, {}))
    if algorithm == "ppo-kl":
        numbers.pop("clip", None)
    return f"plain {algorithm}", numbers
