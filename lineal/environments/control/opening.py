"""Environments by name: our own arrays where there are any, Gymnasium's copies everywhere else."""

from __future__ import annotations

import difflib
from collections.abc import Callable

from lineal.environments.control.acrobot import Acrobot
from lineal.environments.control.atari import ENTRY, AtariTask, register_games
from lineal.environments.control.cartpole import CartPole
from lineal.environments.control.classic import ClassicTask, Physics
from lineal.environments.control.gymnasium import GymnasiumTask, load_gymnasium
from lineal.environments.control.mountain_car import MountainCar
from lineal.environments.control.pendulum import Pendulum
from lineal.environments.control.preparation import PLAIN, Preparation
from lineal.environments.control.protocol import VectorEnvironment
from lineal.errors import UsageError

OWN: dict[str, Callable[[], Physics]] = {
    "CartPole-v0": lambda: CartPole(200),
    "CartPole-v1": CartPole,
    "Pendulum-v1": Pendulum,
    "Acrobot-v1": Acrobot,
    "MountainCar-v0": MountainCar,
}
"""The tasks that are computed here, with Gymnasium's names and time limits."""


def open_environment(
    name: str,
    count: int = 1,
    seed: int = 0,
    *,
    own: bool = True,
    draw: bool = False,
    preparation: Preparation = PLAIN,
) -> VectorEnvironment:
    """`count` copies of an environment, not yet reset.

    name: one of `OWN`, or any name that Gymnasium knows (`module:Name-v0` imports the module first; `ALE/Pong-v5` is
    Atari's). own: take our own arrays where there are any. draw: it will be rendered. preparation: what is shown of it.
    Raises UsageError for an unknown name, with the nearest ones.
    """
    if own and name in OWN and preparation.frame_stack in (None, 1):
        return ClassicTask(name, OWN[name](), count, seed)
    try:
        gymnasium = load_gymnasium()
    except UsageError as error:
        hint = _nearest(name, list(OWN))
        raise UsageError(f"there is no environment {name!r} among {', '.join(OWN)}{hint}; {error}") from error
    module, colon, plain = name.rpartition(":")
    if colon:
        _import(module, name)
    elif name not in gymnasium.registry and _of_atari(name):
        register_games()
    known = set(gymnasium.registry)
    if plain not in known and not colon:
        raise UsageError(f"there is no environment {name!r}{_nearest(name, sorted(known | set(OWN)))}")
    if plain in known and gymnasium.registry[plain].entry_point == ENTRY:
        register_games()
        return AtariTask(plain, count, seed, draw, preparation)
    return GymnasiumTask(name, count, seed, draw, preparation)


def _of_atari(name: str) -> bool:
    """Whether a name looks like one of Atari's: ALE/Pong-v5, PongNoFrameskip-v4."""
    return name.lower().startswith("ale/") or "noframeskip" in name.lower()


def _import(module: str, name: str) -> None:
    from importlib import import_module

    try:
        import_module(module)
    except ImportError as error:
        raise UsageError(f"--env {name}: {error}. Install or write the module {module}.") from error


def _nearest(name: str, known: list[str]) -> str:
    lowered = {other.lower(): other for other in known}
    close = difflib.get_close_matches(name.lower(), lowered, n=3, cutoff=0.5)
    return (
        f"; did you mean {', '.join(lowered[c] for c in close)}?"
        if close
        else ". lineal docs/control.md lists some."
    )
