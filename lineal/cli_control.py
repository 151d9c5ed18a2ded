"""The verbs about control policies: eval and record of a run on an environment."""

from __future__ import annotations

import json
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lineal.cli_options import help_lines, parse
from lineal.cli_runs import positionals
from lineal.errors import UsageError

if TYPE_CHECKING:
    from lineal.environments.control.protocol import VectorEnvironment
    from lineal.train.control.files import SavedPolicy


@dataclass(frozen=True)
class PlayOptions:
    """What `lineal eval` of a control policy can be told."""

    episodes: int = 20
    """Episodes to play."""
    env: str | None = None
    """The environment (default: the one it was trained on)."""
    envs: int = 8
    """Copies stepped together, at most."""
    seed: int = 0
    """Seed of the environment, and of drawn actions."""
    sample: bool = False
    """Draw actions as training does, instead of the most probable ones."""
    json: bool = False
    """Print one line of JSON."""

    def __post_init__(self) -> None:
        if self.episodes < 1 or self.envs < 1:
            raise UsageError("--episodes and --envs: at least 1 of each is needed.")


@dataclass(frozen=True)
class RecordOptions:
    """What `lineal record` can be told."""

    out: str | None = None
    """The film: .gif, .png (animated), .webp or .mp4 (default: RUN/episode.gif)."""
    episodes: int = 1
    """Episodes to play."""
    env: str | None = None
    """The environment (default: the one it was trained on)."""
    seed: int = 0
    """Seed of the environment, and of drawn actions."""
    sample: bool = False
    """Draw actions as training does, instead of the most probable ones."""
    rate: float = 30.0
    """Frames per second."""
    frames: int = 1000
    """Most frames of the film."""

    def __post_init__(self) -> None:
        if self.episodes < 1 or self.frames < 1 or not self.rate > 0:
            raise UsageError("--episodes, --frames and --rate: each must be above 0.")


def is_control(path: Path) -> bool:
    """Whether a folder is a run on an environment, or the policy that such a run saved."""
    try:
        record = json.loads((path / "config.json").read_bytes())
        options = record.get("config", {}).get("options", {})
        return record.get("kind") == "lineal-control-policy" or "environment" in options
    except (OSError, ValueError, AttributeError):
        return False


def evaluate(words: list[str]) -> int:
    """`lineal eval`: a language model on prompts, or a control policy on episodes of its environment."""
    paths, rest = positionals(words)
    if paths and not Path(paths[0]).exists() and not paths[0].startswith("hf:"):
        raise UsageError(f"there is no model or run {paths[0]}: lineal list shows the runs in a folder.")
    if not paths or not is_control(Path(paths[0])):
        from lineal.cli_models import evaluate as on_prompts

        return on_prompts(words)
    if "--help" in rest or "-h" in rest:
        print("\n".join(["lineal eval RUN [--option value ...]", *help_lines(PlayOptions())]))
        return 0
    options = parse(PlayOptions(), rest)
    from lineal.train.control.evaluate import run_episodes

    saved, environment = opened(paths, options.env, min(options.envs, options.episodes), draw=False)
    try:
        found = run_episodes(saved.policy, environment, options.episodes, options.seed, sample=options.sample)
    finally:
        environment.close()
    if options.json:
        print(json.dumps(found.metrics() | {"returns": found.returns, "lengths": found.lengths}))
    else:
        length = found.metrics()["eval/episode_length"]
        print(f"{environment.name}: {found.line()}, least {min(found.returns):.4g}, {length:.4g} steps each")
    return 0


def record(words: list[str]) -> int:
    """`lineal record RUN`: play episodes and save what was seen as an animated file."""
    paths, rest = positionals(words)
    if "--help" in rest or "-h" in rest:
        print("\n".join(["lineal record RUN [--option value ...]", *help_lines(RecordOptions())]))
        return 0
    options = parse(RecordOptions(), rest)
    if paths and not is_control(Path(paths[0])):
        raise UsageError(
            f"{paths[0]} is no run of an environment: there is nothing to see. lineal list shows runs."
        )
    from lineal.train.control.evaluate import run_episodes
    from lineal.train.control.film import check_film, save_film

    saved, environment = opened(paths, options.env, 1, draw=True)
    frames = []

    def watch(environment: VectorEnvironment) -> None:
        if len(frames) < options.frames:
            frames.append(environment.render(0))

    try:
        out = Path(options.out or Path(paths[0]) / "episode.gif")
        check_film(out)
        found = run_episodes(
            saved.policy, environment, options.episodes, options.seed, sample=options.sample, watch=watch
        )
    finally:
        environment.close()
    save_film(frames, out, options.rate)
    if out.parent.resolve() == Path(paths[0]).resolve() and (out.parent / "report.html").exists():
        from lineal.web.report import write_report

        write_report(out.parent)
    print(f"{found.line()}: {len(frames)} frames", file=sys.stderr)
    print(shlex.quote(str(out)))
    return 0


def opened(
    paths: list[str], env: str | None, count: int, *, draw: bool
) -> tuple[SavedPolicy, VectorEnvironment]:
    """The policy of a run, finished or not, and copies of its environment."""
    if len(paths) != 1:
        raise UsageError(f"{len(paths)} folders were given, not one: lineal eval RUN, or lineal record RUN.")
    from lineal.environments.control.opening import open_environment
    from lineal.train.control.files import check_spaces
    from lineal.train.control.session import policy_of

    saved = policy_of(Path(paths[0]))
    name = env or saved.environment
    environment = open_environment(name, count, draw=draw, preparation=saved.preparation)
    check_spaces(saved, environment)
    return saved, environment
