"""Gymnasium's environments as a `VectorEnvironment`; needs the extra `gym`."""

from __future__ import annotations

from typing import Any, cast

import numpy as np

from lineal.environments.control.protocol import Step
from lineal.environments.control.spaces import Box, Discrete, MultiDiscrete, Space
from lineal.errors import EnvironmentFailure, UsageError


def load_gymnasium() -> Any:
    """The package, or a UsageError that says how to get it."""
    try:
        import gymnasium
    except ModuleNotFoundError as error:
        raise UsageError("this environment is Gymnasium's: pip install 'lineal[gym]'.") from error
    return gymnasium


class GymnasiumTask:
    """Copies of a Gymnasium environment in this process, reset within the step that ends them (SAME_STEP).

    Observations are flat rows when they are boxes of any shape but pictures. A simulator's state cannot be taken in
    general, so `get_state` gives None and a resumed run begins new episodes. An environment that raises, returns a
    number that is not finite or changes the shape of what it shows is named in an EnvironmentFailure.
    """

    def __init__(self, name: str, count: int, seed: int = 0, draw: bool = False, **settings: Any) -> None:
        gymnasium = load_gymnasium()
        self.name, self.count, self._seed = name, count, seed
        if draw:
            settings["render_mode"] = "rgb_array"
        same_step = {"autoreset_mode": gymnasium.vector.AutoresetMode.SAME_STEP}
        try:
            self._many: Any = gymnasium.make_vec(
                name, num_envs=count, vectorization_mode="sync", vector_kwargs=same_step, **settings
            )
        except gymnasium.error.Error as error:
            raise UsageError(f"{name} cannot be made: {' '.join(str(error).split())}") from error
        except ImportError as error:
            raise UsageError(
                f"{name} needs {error.name or error}: pip install 'lineal[mujoco]', or what brings it."
            ) from error
        except Exception as error:
            raise EnvironmentFailure(
                f"{name} raised {type(error).__name__} when it was made: {error}"
            ) from error
        self.observation: Space = as_space(self._many.single_observation_space, f"{name} shows")
        self.action: Space = as_space(self._many.single_action_space, f"{name} takes")
        self._shape = getattr(self.observation, "shape", ())
        self._begun = False

    @property
    def copies(self) -> list[Any]:
        """Gymnasium's own objects, one per copy."""
        return list(self._many.envs)

    def reset(self, seed: int | None = None) -> np.ndarray:
        """Begin an episode in every copy."""
        first = self._seed if seed is None and not self._begun else seed
        self._begun = True
        with _Watched(self.name, "reset"):
            observation, _ = self._many.reset(seed=first)
        return self._checked(observation, "reset")

    def step(self, action: np.ndarray) -> Step:
        """One step of every copy."""
        with _Watched(self.name, "step"):
            observation, reward_B, terminated_B, truncated_B, info = self._many.step(action)
        observation_BF = final_BF = self._checked(observation, "step")
        ended_B = terminated_B | truncated_B
        if ended_B.any():
            final_BF = observation_BF.copy()
            for i in ended_B.nonzero()[0]:
                final_BF[i] = np.asarray(info["final_obs"][i]).reshape(self._shape)
        # The wrapper writes into its own arrays at the next step.
        return Step(
            observation_BF, np.array(reward_B, np.float64), terminated_B.copy(), truncated_B.copy(), final_BF
        )

    def render(self, index: int = 0) -> np.ndarray:
        """A picture of one copy; it must have been opened with draw=True."""
        frames = self._many.render()
        if not frames or frames[index] is None:
            raise UsageError(f"{self.name} was not opened for drawing: open it with draw=True.")
        return np.asarray(frames[index], np.uint8)

    def get_state(self) -> None:
        """None: there is no general way."""
        return

    def set_state(self, state: dict[str, Any]) -> np.ndarray:
        """Refused."""
        raise UsageError(f"{self.name} is Gymnasium's, whose state cannot be set: reset it instead.")

    def close(self) -> None:
        """Close every copy."""
        self._many.close()

    def _checked(self, observation: Any, when: str) -> np.ndarray:
        observation_BF = np.asarray(observation)
        if observation_BF.shape != (self.count, *self._shape):
            raise EnvironmentFailure(
                f"{self.name} showed an observation of shape {observation_BF.shape[1:]} in {when}, and its space says "
                f"{self._shape}: the environment changed its space. Fix the environment."
            )
        return observation_BF


class _Watched:
    """Turns what an environment raises into one line that names it."""

    def __init__(self, name: str, when: str) -> None:
        self._name, self._when = name, when

    def __enter__(self) -> None:
        return

    def __exit__(self, kind: Any, error: BaseException | None, _: object) -> None:
        if isinstance(error, Exception):
            raise EnvironmentFailure(
                f"{self._name} raised {type(error).__name__} in {self._when}: {error}. Fix the environment; what was "
                "saved before is untouched."
            ) from error


def as_space(space: Any, who: str) -> Space:
    """Gymnasium's space as one of ours; UsageError for kinds that no policy here reads or makes."""
    spaces = load_gymnasium().spaces
    if isinstance(space, spaces.Discrete):
        if int(space.start) != 0:
            raise UsageError(f"{who} {space}: choices must be numbered from 0. Wrap the environment.")
        return Discrete(int(space.n))
    if isinstance(space, spaces.MultiDiscrete):
        return MultiDiscrete(tuple(int(n) for n in np.asarray(space.nvec).flatten()))
    if isinstance(space, spaces.Box):
        low, high = (tuple(map(float, np.asarray(x).flatten())) for x in (space.low, space.high))
        return Box(low, high, tuple(cast(Any, space.shape)), str(space.dtype))
    raise UsageError(
        f"{who} {type(space).__name__}, which fits no policy here: policies read Box and Discrete, and take Discrete, "
        "MultiDiscrete or Box actions. Wrap the environment (gymnasium.wrappers.FlattenObservation, for instance)."
    )
