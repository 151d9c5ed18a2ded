"""From a simulator's state to a picture of it: what a segment keeps of each step, and how it is drawn when asked for.

Keeping the state costs a few numbers per step; drawing every step of a run would cost more than the run.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lineal.environments.control.classic import ClassicTask
from lineal.environments.control.gymnasium import VectorTask, load_gymnasium
from lineal.environments.control.images import image_shape, picture
from lineal.environments.control.opening import OWN
from lineal.environments.control.protocol import VectorEnvironment
from lineal.environments.control.spaces import Box
from lineal.environments.preferences.records import Segment
from lineal.errors import UsageError

State = Mapping[str, NDArray[Any]]


def states_of(environment: Any) -> dict[str, NDArray[Any]]:
    """The state of every copy now, by name, [B, ...] each; {} where the simulator does not show it.

    Our own tasks: their state. MuJoCo: positions and velocities. Gymnasium's classic tasks: `state`.
    """
    inner = unwrapped(environment)
    if isinstance(inner, ClassicTask):
        return {"state": inner.states.copy()}
    if isinstance(inner, VectorTask):
        parts = [_gymnasium_state(copy.unwrapped) for copy in inner.copies]
        if parts and all(parts):
            return {name: np.stack([part[name] for part in parts]) for name in parts[0]}
    return {}


def unwrapped(environment: Any) -> VectorEnvironment:
    """The environment inside its wrappers."""
    while hasattr(environment, "inner"):
        environment = environment.inner
    return environment


def _gymnasium_state(copy: Any) -> dict[str, NDArray[Any]]:
    data = getattr(copy, "data", None)
    if data is not None and hasattr(data, "qpos"):
        return {"qpos": np.array(data.qpos), "qvel": np.array(data.qvel)}
    state = getattr(copy, "state", None)
    return {"state": np.array(state, np.float64)} if state is not None else {}


class Scenes:
    """Draws segments of one environment; opens what it takes at the first one, so that making it is free.

    Where the agent sees pictures, they are what is shown. Raises UsageError for an environment that cannot be put into a
    state, saying what to do instead.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._copy: Any = None

    def __call__(self, segment: Segment) -> Sequence[NDArray[np.uint8]]:
        """One frame per step, [height, width, 3] each."""
        shown = segment.observation_TF
        space = Box((0.0,), (255.0,), shown.shape[1:], str(shown.dtype))
        if image_shape(space) is not None:
            return [picture(observation, space) for observation in shown]
        if not segment.state:
            raise UsageError(
                f"the clips of {self.name} hold no simulator state, so they cannot be drawn. Use one of "
                f"{', '.join(OWN)} or a MuJoCo environment, or answer with --labeller synthetic or a function."
            )
        return list(self._frames(segment))

    def _frames(self, segment: Segment) -> Iterator[NDArray[np.uint8]]:
        if self.name in OWN:
            physics = OWN[self.name]()
            for state_S in segment.state["state"]:
                yield physics.draw(state_S)
            return
        copy = self._open()
        for t in range(len(segment)):
            if "qpos" in segment.state:
                copy.unwrapped.set_state(segment.state["qpos"][t], segment.state["qvel"][t])
            else:
                copy.unwrapped.state = segment.state["state"][t]
            yield np.asarray(copy.render(), np.uint8)

    def _open(self) -> Any:
        if self._copy is None:
            gymnasium = load_gymnasium()
            try:
                self._copy = gymnasium.make(self.name, render_mode="rgb_array").unwrapped
                self._copy.reset(seed=0)
            except Exception as error:
                raise UsageError(
                    f"{self.name} cannot be drawn here ({type(error).__name__}: {error}). On a machine without a screen "
                    "set MUJOCO_GL=egl or MUJOCO_GL=osmesa."
                ) from error
        return self._copy
