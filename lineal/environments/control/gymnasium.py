"""Gymnasium's environments as a `VectorEnvironment`; needs the extra `gym`."""

from __future__ import annotations

from functools import partial
from typing import Any, cast

import numpy as np

from lineal.environments.control.images import image_shape, picture
from lineal.environments.control.preparation import PLAIN, Preparation
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


class VectorTask:
    """Any of Gymnasium's vector environments, in whichever step it resets the copies whose episode ended.

    SAME_STEP: within that step. DISABLED: we reset them, which comes to the same. NEXT_STEP: in the next step, whose action
    is ignored; that step is not counted. A simulator's state cannot be taken in general, so `get_state` gives None and a
    resumed run begins new episodes. An environment that raises, returns a number that is not finite or changes the
    shape of what it shows is named in an EnvironmentFailure.
    """

    def __init__(self, name: str, many: Any, seed: int = 0, draw: bool = False) -> None:
        self.name, self.many, self.count = name, many, int(many.num_envs)
        self._seed, self._draw, self._begun = seed, draw, False
        self.observation: Space = as_space(many.single_observation_space, f"{name} shows")
        self.action: Space = as_space(many.single_action_space, f"{name} takes")
        self._shape = getattr(self.observation, "shape", ())
        mode = many.metadata.get("autoreset_mode")
        self._mode = getattr(mode, "name", "NEXT_STEP")
        self._renewed_B = np.zeros(self.count, bool)
        self._shown: Any = None

    @property
    def copies(self) -> list[Any]:
        """Gymnasium's own objects, one per copy; none where the copies are one object."""
        return list(getattr(self.many, "envs", ()))

    @property
    def time_limit(self) -> int | None:
        """Steps after which an episode is cut off; None where the environment does not say."""
        spec = getattr(self.many, "spec", None)
        return None if spec is None else spec.max_episode_steps

    def reset(self, seed: int | None = None) -> np.ndarray:
        """Begin an episode in every copy."""
        first = self._seed if seed is None and not self._begun else seed
        self._begun = True
        with _Watched(self.name, "reset"):
            observation, info = self.many.reset(seed=first)
        self._renewed_B = np.zeros(self.count, bool)
        self._began(info)
        return self._checked(observation, "reset")

    def step(self, action: np.ndarray) -> Step:
        """One step of every copy."""
        with _Watched(self.name, "step"):
            observation, reward, terminated, truncated, info = self.many.step(action)
        # The wrapper writes into its own arrays at the next step.
        reward_B, terminated_B, truncated_B = (
            np.array(x, kind) for x, kind in ((reward, np.float64), (terminated, bool), (truncated, bool))
        )
        observation_BF = final_BF = self._checked(observation, "step")
        counted_B = None
        if self._mode == "NEXT_STEP":
            if self._renewed_B.any():
                counted_B = ~self._renewed_B
                reward_B, terminated_B, truncated_B = (
                    np.where(counted_B, x, x.dtype.type(0)) for x in (reward_B, terminated_B, truncated_B)
                )
            self._renewed_B = terminated_B | truncated_B
        elif (terminated_B | truncated_B).any():
            observation_BF, final_BF = self._renewed(observation_BF, terminated_B | truncated_B, info)
        lost_B = self._lost(info, terminated_B | truncated_B)
        return Step(observation_BF, reward_B, terminated_B, truncated_B, final_BF, counted_B, lost_B)

    def _renewed(
        self, observation_BF: np.ndarray, ended_B: np.ndarray, info: dict[str, Any]
    ) -> tuple[np.ndarray, np.ndarray]:
        """What is shown after the resets, and before."""
        if self._mode == "DISABLED":
            with _Watched(self.name, "reset"):
                fresh, _ = self.many.reset(options={"reset_mask": ended_B.copy()})
            return self._checked(fresh, "reset"), observation_BF
        final_BF = observation_BF.copy()
        for i in ended_B.nonzero()[0]:
            final_BF[i] = np.asarray(info["final_obs"][i]).reshape(self._shape)
        return observation_BF, final_BF

    def _began(self, info: dict[str, Any]) -> None:
        """Called after every reset of all copies."""

    def _lost(self, info: dict[str, Any], ended_B: np.ndarray) -> np.ndarray | None:
        """Where a life was lost in an episode that goes on."""
        return None

    def render(self, index: int = 0) -> np.ndarray:
        """A picture of one copy; it must have been opened with draw=True, or show pictures anyway."""
        frames = self.many.render() if self._draw else None
        if frames is not None and frames[index] is not None:
            return np.asarray(frames[index], np.uint8)
        if image_shape(self.observation) is not None and self._shown is not None:
            return picture(self._shown[index], self.observation)
        raise UsageError(f"{self.name} was not opened for drawing: open it with draw=True.")

    def get_state(self) -> None:
        """None: there is no general way."""
        return

    def set_state(self, state: dict[str, Any]) -> np.ndarray:
        """Refused."""
        raise UsageError(f"{self.name} is Gymnasium's, whose state cannot be set: reset it instead.")

    def close(self) -> None:
        """Close every copy."""
        self.many.close()

    def _checked(self, observation: Any, when: str) -> np.ndarray:
        # A copy: some vector environments write into the array they returned.
        observation_BF = np.array(observation)
        if observation_BF.shape != (self.count, *self._shape):
            raise EnvironmentFailure(
                f"{self.name} showed an observation of shape {observation_BF.shape[1:]} in {when}, and its space says "
                f"{self._shape}: the environment changed its space. Fix the environment."
            )
        self._shown = observation_BF
        return observation_BF


class GymnasiumTask(VectorTask):
    """Copies of a Gymnasium environment in this process, reset within the step that ends them.

    An environment that has a vectorised form alone is taken in that form; one that has both, when `vector_entry` says so.
    """

    def __init__(
        self,
        name: str,
        count: int,
        seed: int = 0,
        draw: bool = False,
        preparation: Preparation = PLAIN,
        **settings: Any,
    ) -> None:
        gymnasium = load_gymnasium()
        if draw:
            settings["render_mode"] = "rgb_array"
        stack = preparation.frame_stack or 1
        wrappers = gymnasium.wrappers
        around = [partial(wrappers.FrameStackObservation, stack_size=stack)] if stack > 1 else []
        spec: Any = gymnasium.registry.get(name.rpartition(":")[2])
        if getattr(spec, "vector_entry_point", None) is not None and (
            preparation.vector_entry or spec.entry_point is None
        ):
            if around:
                raise UsageError(
                    f"--frame-stack {stack}: {name} comes as one vector environment, whose copies cannot be wrapped. "
                    "Drop --frame-stack, or --vector-entry where it has single copies too."
                )
            settings = {"vectorization_mode": "vector_entry_point", **settings}
        else:
            same_step = {"autoreset_mode": gymnasium.vector.AutoresetMode.SAME_STEP}
            settings = {
                "vectorization_mode": "sync", "vector_kwargs": same_step, "wrappers": around, **settings,
            }  # fmt: skip
        many = made(name, partial(gymnasium.make_vec, name, num_envs=count, **settings))
        super().__init__(name, many, seed, draw)


def made(name: str, make: Any) -> Any:
    """What `make` returns; whatever it raises becomes one line about the environment `name`."""
    gymnasium = load_gymnasium()
    try:
        return make()
    except gymnasium.error.Error as error:
        raise UsageError(f"{name} cannot be made: {' '.join(str(error).split())}") from error
    except ImportError as error:
        raise UsageError(
            f"{name} needs {error.name or error}: pip install 'lineal[mujoco]', or what brings it."
        ) from error
    except Exception as error:
        raise EnvironmentFailure(f"{name} raised {type(error).__name__} when it was made: {error}") from error


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
        if len(low) > 32 and len({*low}) == len({*high}) == 1:
            # A picture's thousands of equal bounds say no more than one.
            low, high = low[:1], high[:1]
        return Box(low, high, tuple(cast(Any, space.shape)), str(space.dtype))
    raise UsageError(
        f"{who} {type(space).__name__}, which fits no policy here: policies read Box and Discrete, and take Discrete, "
        "MultiDiscrete or Box actions. Wrap the environment (gymnasium.wrappers.FlattenObservation, for instance)."
    )
