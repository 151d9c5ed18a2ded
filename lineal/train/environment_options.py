"""The options of a policy-gradient run on an environment; no torch here, so that help is instant."""

from __future__ import annotations

from dataclasses import dataclass, field, fields

from lineal.environments.control.preparation import Preparation
from lineal.errors import UsageError
from lineal.train.options import at_least


@dataclass(frozen=True)
class EnvironmentOptions:
    """Which environment, and how it is stepped."""

    env: str = "CartPole-v1"
    """An environment by Gymnasium's name; module:Name-v0 imports the module first."""
    envs: int = 8
    """Copies stepped together."""
    preset: str = "auto"
    """zoo (rl-baselines3-zoo's tuned numbers for this algorithm and environment), plain, or auto: zoo where there is one."""
    own: bool = True
    """Use lineal's own arrays for the classic tasks; --no-own takes Gymnasium's (the numbers are the same)."""
    normalise_observations: bool = False
    """Divide observations by their running deviation, after taking off their mean; kept with the policy."""
    normalise_rewards: bool = False
    """Divide rewards by the running deviation of their discounted sum; the returns that are logged stay as they are."""
    clip_rewards: bool = False
    """Cut each reward to -1..1 for the learner; the returns that are logged stay as they are."""
    frame_stack: int | None = None
    """Observations shown at once, the newest last (default: 4 for Atari, 1 elsewhere)."""
    vector_entry: bool = False
    """Take the environment's own vectorised form (its vector entry point in Gymnasium) where it has one."""
    frame_skip: int = 4
    """Atari: frames that an action is held for."""
    max_pool: bool = True
    """Atari: show the brighter of the last two frames, against flicker."""
    grey: bool = True
    """Atari: one number per pixel instead of three."""
    image_size: int = 84
    """Atari: pixels of each side."""
    noops: int = 30
    """Atari: most idle frames at the start of a game."""
    fire: bool = True
    """Atari: press fire when a game begins, where it must be."""
    sticky: float | None = None
    """Atari: probability that a frame repeats the action before (default: the name's own, 0.25 for v5)."""
    episodic_life: bool = False
    """Atari: a lost life is an end to the learner, though the game goes on."""

    def preparation(self, *, learner: bool = False) -> Preparation:
        """How the environment is shown; what is played apart from learning has no ends of its own."""
        known = {part.name: getattr(self, part.name) for part in fields(Preparation)}
        return Preparation(**(known | ({} if learner else {"episodic_life": False})))

    def __post_init__(self) -> None:
        at_least(self, envs=1)
        self.preparation()
        if self.preset not in ("auto", "zoo", "plain"):
            raise UsageError(f"--preset {self.preset} is none of auto, zoo and plain.")


@dataclass(frozen=True)
class PolicyOptions:
    """The shape of policy and critic: two perceptrons alike, or for pictures one convolutional network for both."""

    network: str = "auto"
    """perceptron, convolutional, or auto: convolutional for pictures (uint8 observations of 2 to 4 axes)."""
    hidden: tuple[int, ...] = ()
    """Widths of the hidden layers (default: 64 64; after convolutions 512)."""
    convolutions: tuple[str, ...] = ()
    """Convolutions as FILTERSxSIDE/STRIDE (default: 32x8/4 64x4/2 64x3/1; for pictures below 36 pixels 16x3/1 32x3/2)."""
    activation: str | None = None
    """tanh or relu (default: tanh; relu with convolutions)."""
    orthogonal: bool = True
    """Orthogonal start: sqrt 2 in hidden layers, 0.01 for actions, 1 for the critic; --no-orthogonal is torch's own."""
    covariance: str = "diagonal"
    """diagonal or full: the covariance of real-valued actions."""
    log_std: float = 0.0
    """Where the logarithm of their standard deviation starts."""
    learn_std: bool = True
    """Learn the covariance; --no-learn-std keeps it as it starts."""
    dtype: str = "float32"
    """float32 or float64."""
    threads: int = 0
    """CPU threads of torch; 0 is one for perceptrons, which is fastest, and every core for convolutions."""
    micro_batch: int = 256
    """Pictures that the network reads at once: fewer take less memory, and the result is the same."""

    def __post_init__(self) -> None:
        at_least(self, threads=0, micro_batch=1)
        if self.network not in ("auto", "perceptron", "convolutional"):
            raise UsageError(f"--network {self.network} is none of auto, perceptron and convolutional.")
        if self.activation not in (None, "tanh", "relu"):
            raise UsageError(f"--activation {self.activation} is neither tanh nor relu.")
        if self.covariance not in ("diagonal", "full"):
            raise UsageError(f"--covariance {self.covariance} is neither diagonal nor full.")
        if self.dtype not in ("float32", "float64"):
            raise UsageError(f"--dtype {self.dtype}: a control policy is float32 or float64.")
        if self.hidden and min(self.hidden) < 1:
            raise UsageError(
                f"--hidden {' '.join(map(str, self.hidden))}: give one width of at least 1 per layer."
            )


@dataclass(frozen=True)
class StepAlgorithmOptions:
    """The algorithm and its numbers on environments; an unset number keeps the algorithm's own."""

    algorithm: str = "ppo"
    """reinforce, trpo, ppo or ppo-kl, or path.py:NAME."""
    rollout_steps: int = 128
    """Steps of each copy per iteration; without a critic an iteration is one whole episode of each copy instead."""
    epochs: int | None = None
    """Passes over each rollout."""
    minibatches: int | None = None
    """Optimiser steps per pass."""
    learning_rate: float | None = None
    """Learning rate of Adam, for the critic where the policy's step is TRPO's."""
    schedule: str = "constant"
    """Learning-rate schedule: constant, linear or cosine."""
    clip: float | None = None
    """Clip bounds, 1 - clip and 1 + clip."""
    clip_schedule: str = "constant"
    """constant, or linear: the clip bound falls to 0 with the steps."""
    max_kl: float | None = None
    """Trust region: largest mean KL(old || new)."""
    cg_iterations: int | None = None
    """Trust region: iterations of conjugate gradient."""
    damping: float | None = None
    """Trust region: what is added to the Fisher matrix's diagonal."""
    backtrack: float | None = None
    """Trust region: by how much a step that fails is shrunk."""
    target_kl: float | None = None
    """Adaptive KL: the mean KL that the penalty aims at."""
    beta: float | None = None
    """KL penalty: its coefficient, or where it starts."""
    entropy: float | None = None
    """Coefficient of the entropy bonus."""
    discount: float = 0.99
    """Discount per step."""
    trace_decay: float | None = None
    """Trace decay of generalised advantage estimation."""
    whiten: str | None = None
    """rollout, minibatch or off: whitening of advantages."""
    baseline: str | None = None
    """REINFORCE: none, running (mean of earlier returns) or learned (a critic)."""
    value_coefficient: float | None = None
    """Weight of the value loss beside the objective."""
    value_clip: float | None = None
    """Clip range of the value loss; 0 turns it off."""
    critic_epochs: int | None = None
    """Trust region: passes of the critic's fit after each step."""
    critic_minibatches: int = 1
    """Trust region: optimiser steps per pass of that fit."""
    max_grad_norm: float | None = None
    """Global gradient clip; 0 turns it off."""
    adam_eps: float = 1e-5
    """Adam's epsilon."""

    def __post_init__(self) -> None:
        at_least(self, rollout_steps=1, critic_minibatches=1, max_grad_norm=0, adam_eps=0)
        if self.clip_schedule not in ("constant", "linear"):
            raise UsageError(f"--clip-schedule {self.clip_schedule} is neither constant nor linear.")
        if self.baseline not in (None, "none", "running", "learned"):
            raise UsageError(f"--baseline {self.baseline} is none of none, running and learned.")


@dataclass(frozen=True)
class EnvironmentRunOptions:
    """The run folder: how long, how often, from which seed."""

    out: str | None = None
    """The run folder (default: runs/RECIPE-N)."""
    env_steps: int = 100_000
    """Steps of all copies together."""
    steps: int | None = None
    """Iterations to take instead (default: as many as env_steps asks for)."""
    seed: int = 0
    """Seed of the policy's start, of the environments and of the actions."""
    save_every: int = 50
    """Checkpoint every N iterations (the last one is always saved)."""
    keep_last: int = 2
    """Checkpoints kept."""
    keep_every: int = 0
    """Also keep every checkpoint whose iteration is a multiple of this; 0 for none."""
    eval_every: int = 0
    """Evaluate every N iterations; 0 means at the end."""
    eval_episodes: int = 20
    """Episodes of an evaluation, by the most probable actions."""
    time_limit: float = 0.0
    """Stop (cleanly, with a final policy) after this many seconds of training; 0 for no limit."""
    quiet: bool = False
    """Print no progress."""

    def __post_init__(self) -> None:
        at_least(self, env_steps=1, steps=0, save_every=1, keep_last=1, keep_every=0)
        at_least(self, eval_every=0, eval_episodes=1, time_limit=0)


@dataclass(frozen=True)
class EnvironmentConfig:
    """Everything a policy-gradient run on an environment can be told."""

    environment: EnvironmentOptions = field(default_factory=EnvironmentOptions)
    policy: PolicyOptions = field(default_factory=PolicyOptions)
    algorithm: StepAlgorithmOptions = field(default_factory=StepAlgorithmOptions)
    run: EnvironmentRunOptions = field(default_factory=EnvironmentRunOptions)
