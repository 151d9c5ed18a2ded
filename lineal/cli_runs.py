"""The verbs about runs: run, resume, list, report, compare."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from lineal.cli_options import help_lines, options_of, parse
from lineal.errors import RunError, UsageError

if TYPE_CHECKING:
    from lineal.recipes.environment import OnEnvironment
    from lineal.train.distributed import Ranks
    from lineal.train.run import Run

RUNS = "runs"
USER_FILE = re.compile(r"(.+\.py):\w+")


@dataclass(frozen=True)
class Recipe:
    """A recipe by its name: the module of its paper, and the module of its loop (often shared)."""

    name: str
    paper: ModuleType | OnEnvironment

    @property
    def loop(self) -> ModuleType:
        """The module with `plan` and `run`; importing it may load torch."""
        own = getattr(self.paper, "__name__", "")
        return import_module(getattr(self.paper, "LOOP", own))

    @property
    def essential(self) -> tuple[str, ...]:
        """The options that its short help shows."""
        return getattr(self.paper, "ESSENTIAL", None) or ESSENTIAL


ESSENTIAL = (
    "model", "data", "prompt_field", "completion_field", "reward", "level", "prompts", "group_size", "learning_rate",
    "batch_size", "block", "max_new_tokens", "steps", "seed", "out",
)  # fmt: skip
"""The options most used; a recipe shows those of them that it has."""


def find_recipe(name: str) -> Recipe:
    """The recipe of that name ("_" and "-" are the same); an unknown one gets its nearest neighbour."""
    import difflib

    from lineal.recipes import RECIPES

    wanted = name.replace("_", "-")
    if wanted not in RECIPES:
        close = difflib.get_close_matches(wanted, RECIPES, n=1, cutoff=0.5)
        hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(RECIPES)}."
        raise UsageError(f"there is no recipe {name!r}; {hint}")
    return Recipe(wanted, import_module(RECIPES[wanted]))


def on_environment(recipe: Recipe, words: Sequence[str]) -> Recipe:
    """The recipe itself, or where the words name an environment its version for environments, with its preset."""
    from lineal.recipes.environment import OnEnvironment, asks_for_environment

    if not asks_for_environment(words) or hasattr(recipe.paper, "tuned"):
        return recipe
    if getattr(recipe.paper, "LOOP", "") != "lineal.recipes.policy_gradient":
        raise UsageError(f"--env: {recipe.name} learns from text. Use reinforce, trpo, ppo or ppo-kl.")
    asked = parse(OnEnvironment(recipe.name, wanted="plain").default(), [w for w in words if w not in FLAGS])
    chosen = OnEnvironment(recipe.name, asked.environment.env, asked.environment.preset)
    return Recipe(recipe.name, chosen)


ON_ENVIRONMENTS = ("reinforce", "trpo", "ppo", "ppo-kl")
"""The recipes that learn from environments too."""
FLAGS = ("--help", "-h", "--help-all", "--dry-run", "--dry_run")


def recipe_of(asked: dict[str, Any]) -> Recipe:
    """The recipe of a saved run."""
    from lineal.recipes.environment import OnEnvironment, trained_on_environments

    recipe = find_recipe(asked["recipe"])
    if not trained_on_environments(asked["options"]) or hasattr(recipe.paper, "tuned"):
        return recipe
    return Recipe(recipe.name, OnEnvironment(recipe.name))


def run(words: list[str]) -> int:
    """`lineal run RECIPE [--option value ...]`: a new run folder, trained until it is done."""
    if not words or words[0].startswith("-"):
        from lineal.cli import help_text

        if words and words[0] in ("--help", "-h", "--help-all"):
            print(help_text())
            return 0
        raise UsageError("which recipe? lineal run RECIPE, as in: lineal run demo (lineal --help lists them)")
    recipe, rest = on_environment(find_recipe(words[0]), words[1:]), words[1:]
    if any(flag in rest for flag in ("--help", "-h", "--help-all")):
        print(recipe_help(recipe, everything="--help-all" in rest))
        return 0
    options = [word for word in rest if word not in ("--dry-run", "--dry_run")]
    config = parse(recipe.paper.default(), options)
    tuned = getattr(recipe.paper, "tuned", None)
    if tuned is not None:
        # What nobody gave follows the environment that was asked for.
        config = parse(tuned(config), options)
    if not isinstance(recipe.paper, ModuleType):
        # Refused before a folder is made: an algorithm of prompts has no use for an environment.
        recipe.loop.read_step_algorithm(config)
        print(recipe.paper.line(), file=sys.stderr)
    if len(options) < len(rest):
        print("\n".join([*resolved(config), "", *recipe.loop.plan(config)]))
        return 0
    with together(config) as ranks:
        opened, placed = new_run(recipe, config, ranks)
        try:
            train(recipe, placed, opened, ranks)
        except UsageError:
            if ranks.first:
                _unmake(opened.path)
            raise
    return 0


def _unmake(path: Path) -> None:
    """Take back a run folder in which nothing happened, so that the corrected command may use its name."""
    from lineal.train.run import CONFIG, LOGS

    logs = [path / f"{name}.jsonl" for name in LOGS]
    if (path / "checkpoints").exists() or any(log.stat().st_size for log in logs if log.exists()):
        return
    for file in (path / CONFIG, path / "lock", *logs):
        file.unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        path.rmdir()


def recipe_help(recipe: Recipe, everything: bool = False) -> str:
    """A recipe's help: what it is, where it comes from, its options by group."""
    lines = [f"lineal run {recipe.name} [--option value ...]: {recipe.paper.SUMMARY}"]
    paper = getattr(recipe.paper, "PAPER", None)
    if paper is not None:
        lines.append(f"{paper.title} ({paper.year}), {paper.url}")
    if paper is not None and everything:
        lines += [f"  departs: {sentence}" for sentence in paper.departures]
    lines += help_lines(recipe.paper.default(), None if everything else recipe.essential)
    if recipe.name in ON_ENVIRONMENTS and isinstance(recipe.paper, ModuleType):
        lines += [
            "",
            f"On an environment instead: lineal run {recipe.name} --env CartPole-v1 (--help lists its options)",
        ]
    lines += ["", "  --dry-run    print the objective, the batch and the memory it takes, and stop"]
    if not everything:
        lines.append(f"\nall options: lineal run {recipe.name} --help-all")
    return "\n".join(lines)


def resolved(config: Any) -> list[str]:
    """Every option with its value, a paragraph per group."""
    groups: dict[str, list[str]] = {}
    for option in options_of(config):
        value = " ".join(map(str, option.default)) if isinstance(option.default, tuple) else option.default
        groups.setdefault(option.group, []).append(f"{option.name}={value}")
    # Values may hold spaces; breaking only between options keeps each in one piece.
    return [line for name, parts in groups.items() for line in _wrapped(f"{name:<10}", parts)]


def _wrapped(start: str, parts: Sequence[str], width: int = 100) -> list[str]:
    lines = [start.rstrip()] if not parts else [f"{start} {parts[0]}"]
    for part in parts[1:]:
        if len(lines[-1]) + 1 + len(part) <= width:
            lines[-1] += f" {part}"
        else:
            lines.append(f"{'':{len(start)}} {part}")
    return lines


def together(config: Any) -> AbstractContextManager[Ranks]:
    """The processes that torchrun started, as one job; one process alone everywhere else."""
    from lineal.train.distributed import joined

    return joined(getattr(getattr(config, "model", None), "device", "auto"))


def train(recipe: Recipe, config: Any, opened: Run, ranks: Ranks) -> None:
    """Run a recipe's loop in its folder, write the report however it ends, and say what to type next."""
    try:
        with opened:
            recipe.loop.run(config, opened)
    finally:
        if ranks.first:
            _report_quietly(opened.path)
    if ranks.first:
        _say_next(opened.path)


def _report_quietly(path: Path) -> None:
    from lineal.train.console import warn
    from lineal.web.report import write_report

    if not any(file.stat().st_size for file in path.glob("metrics.jsonl")):
        return
    try:
        write_report(path)
    except Exception as error:
        # Whatever ended the run matters more than its picture.
        warn(f"the report could not be written ({type(error).__name__}: {error})")


def _say_next(path: Path) -> None:
    from lineal.train.console import clean
    from lineal.web.read import read_run
    from lineal.web.report import next_commands

    print(f"\nreport  {path / 'report.html'}")
    for command, why in next_commands(read_run(path)):
        print(f"next    {clean(command)}   # {why}")


def new_run(recipe: Recipe, config: Any, ranks: Ranks) -> tuple[Run, Any]:
    """Make the run's folder, --out or the next free runs/RECIPE-N.

    Gives the run, which only the first process writes, and the configuration that names its folder.
    """
    from lineal.train.run import Run

    if not ranks.first:
        placed, record = _placed(recipe, config, Path(ranks.tell(None)))
        return Run.follow(Path(placed.run.out), record), placed
    keep = {"keep_last": config.run.keep_last, "keep_every": config.run.keep_every}
    for path in _places(recipe.name, config.run.out):
        placed, record = _placed(recipe, config, path)
        try:
            opened = Run.open(path) if _restarted(path) else Run.create(path, record, **keep)
        except RunError:
            # Another run took this number a moment ago.
            if config.run.out is None and path.exists():
                continue
            raise
        print(f"run {path}", file=sys.stderr)
        ranks.tell(str(path))
        return opened, placed
    raise AssertionError("there is always a next number")


def _restarted(path: Path) -> bool:
    """Whether torchrun started this run again after a process died (--max-restarts): then it goes on in its folder."""
    again = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") != "0"
    return again and (path / "config.json").exists()


def _placed(recipe: Recipe, config: Any, path: Path) -> tuple[Any, dict[str, Any]]:
    """The configuration with its folder in it, and what config.json records of it."""
    from lineal.recipes.config import to_json, with_options

    placed = with_options(config, out=str(path))
    options = to_json(placed)
    record = {"recipe": recipe.name, "options": options, "folder": os.getcwd(), "files": user_files(options)}
    return placed, record


def _places(recipe: str, out: str | None) -> Iterator[Path]:
    if out is not None:
        yield Path(out)
        return
    taken = [p.name.removeprefix(f"{recipe}-") for p in Path(RUNS).glob(f"{recipe}-*")]
    number = max((int(n) for n in taken if n.isdigit()), default=0)
    while True:
        number += 1
        yield Path(RUNS) / f"{recipe}-{number}"


def user_files(options: Any) -> dict[str, str]:
    """The user's Python files that the options name as path.py:NAME, with their SHA-256."""
    if isinstance(options, dict):
        parts = list(options.values())
    elif isinstance(options, list | tuple):
        parts = list(options)
    else:
        match = USER_FILE.fullmatch(options) if isinstance(options, str) else None
        file = Path(match[1]) if match else None
        return {str(file): hashlib.sha256(file.read_bytes()).hexdigest()} if file and file.is_file() else {}
    return {path: digest for part in parts for path, digest in user_files(part).items()}


def resume(words: list[str]) -> int:
    """`lineal resume RUN [--trust]`: go on from the newest checkpoint that verifies."""
    path, flags = _one_folder(words, "resume RUN [--trust]", ("--trust",))
    from lineal.recipes.config import from_json
    from lineal.train.run import Run, read_record

    asked = read_record(path)["config"]
    if (path / "final").is_dir():
        print(f"{path} is finished: there is nothing to resume")
        if not (path / "report.html").exists():
            # Killed between the last two things that a run writes.
            _report_quietly(path)
        _say_next(path)
        return 0
    recipe = recipe_of(asked)
    if "--trust" not in flags:
        _check_files(asked)
    config = from_json(type(recipe.paper.default()), asked["options"])
    with together(config) as ranks:
        train(recipe, config, Run.open(path) if ranks.first else Run.follow(path, asked), ranks)
    return 0


def _check_files(asked: dict[str, Any]) -> None:
    """A user's file that changed would silently change what is trained."""
    for name, digest in asked.get("files", {}).items():
        file = Path(name)
        if not file.is_file():
            where = asked.get("folder", "?")
            raise UsageError(f"{name} is not here: resume from {where}, where the run was started.")
        if hashlib.sha256(file.read_bytes()).hexdigest() != digest:
            raise UsageError(
                f"{name} has changed since the run began; --trust goes on with the file as it is now."
            )


def _one_folder(words: Sequence[str], usage: str, flags: Sequence[str] = ()) -> tuple[Path, list[str]]:
    paths = [word for word in words if not word.startswith("-")]
    given = [word for word in words if word.startswith("-")]
    if "--help" in given or "-h" in given:
        print(f"lineal {usage}")
        raise SystemExit(0)
    unknown = [word for word in given if word not in flags]
    if unknown or len(paths) != 1:
        wrong = f"there is no option {unknown[0]}" if unknown else f"{len(paths)} folders were given, not one"
        raise UsageError(f"{wrong}: lineal {usage}")
    return Path(paths[0]), given


def list_runs(words: list[str]) -> int:
    """`lineal list [FOLDER]`: the runs in a folder, with how far they are."""
    from lineal.web.read import find_runs

    folder, _ = _one_folder(words or [RUNS], "list [FOLDER]")
    runs = find_runs(folder)
    if not runs:
        print(f"no runs in {folder}; start one with: lineal run demo")
        return 0
    print_table(["run", "recipe", "step", "result", "state"], [_list_row(view) for view in runs])
    return 0


def _list_row(view: Any) -> list[str]:
    from lineal.web.page import show
    from lineal.web.report import headline

    judged = headline(view)
    result = f"{judged[0].label} {show(round(judged[0].end, 4))}" if judged else "–"
    return [str(view.path), view.recipe, show(view.step), result, view.state]


def print_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table of plain text, as wide as its cells; what files say is made safe for the terminal."""
    from lineal.train.console import clean

    cells = [list(head), *([clean(cell, 60) for cell in row] for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(head))]
    for row in cells:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip())


def report(words: list[str]) -> int:
    """`lineal report RUN`: write RUN/report.html from what the run has logged so far."""
    path, _ = _one_folder(words, "report RUN")
    from lineal.web.report import write_report

    print(write_report(path))
    return 0


@dataclass(frozen=True)
class CompareOptions:
    """What `lineal compare` can be told."""

    out: str = "compare.html"
    """The page to write."""


def compare(words: list[str]) -> int:
    """`lineal compare RUN RUN ... [--out FILE]`: a table here, and a page with the curves."""
    paths, rest = positionals(words)
    if "--help" in rest or "-h" in rest:
        print("lineal compare RUN RUN ... [--out compare.html]")
        return 0
    options = parse(CompareOptions(), rest)
    if len(paths) < 2:
        raise UsageError("compare needs at least two runs: lineal compare RUN RUN ...")
    from lineal.web.compare import comparison_rows, labels_of, write_comparison
    from lineal.web.read import read_run

    views = [read_run(path) for path in paths]
    print_table(["", *labels_of(views)], comparison_rows(views))
    print(f"\npage  {shlex.quote(str(write_comparison(views, Path(options.out))))}")
    return 0


def positionals(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """The words before the first option, and the rest."""
    first = next((i for i, word in enumerate(words) if word.startswith("-") and len(word) > 1), len(words))
    return list(words[:first]), list(words[first:])
