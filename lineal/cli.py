"""The command. Nothing heavy is loaded before it is needed, so that help is instant."""

from __future__ import annotations

import difflib
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module

from lineal.errors import LinealError, UsageError

HELP = ("--help", "-h", "--help-all")


@dataclass(frozen=True)
class Command:
    """One verb: how it is used, what it does, and where (`module:function`) it is."""

    usage: str
    summary: str
    where: str

    def load(self) -> Callable[[list[str]], int | None]:
        """The function that does it; it takes the words after the verb and returns an exit code or None."""
        module, _, name = self.where.partition(":")
        return getattr(import_module(module), name)


COMMANDS = {
    "run": Command("run RECIPE [--option value ...]", "train or post-train", "lineal.cli_runs:run"),
    "resume": Command("resume RUN", "go on with an interrupted run, bit for bit", "lineal.cli_runs:resume"),
    "generate": Command("generate MODEL --prompt TEXT", "sample completions", "lineal.cli_generate:generate"),
    "translate": Command(
        "translate MODEL < FILE", "translate sentences, one a line", "lineal.cli_translate:translate"
    ),
    "predict": Command(
        "predict RUN < FILE", "classes or scores from a fine-tuned model", "lineal.cli_predict:predict"
    ),
    "embed": Command("embed RUN < FILE > OUT.npy", "texts as vectors, one a line", "lineal.cli_embed:embed"),
    "fill": Command("fill RUN 'the [MASK] sat'", "hidden words filled in by BERT", "lineal.cli_embed:fill"),
    "eval": Command(
        "eval MODEL --data FILE",
        "pass@1 and pass@k; returns, of a control run",
        "lineal.cli_control:evaluate",
    ),
    "record": Command("record RUN", "a film of a control policy", "lineal.cli_control:record"),
    "label": Command("label RUN", "a page on which a person teaches a run", "lineal.cli_label:label"),
    "list": Command("list [FOLDER]", "the runs in a folder (runs)", "lineal.cli_runs:list_runs"),
    "report": Command("report RUN", "write RUN/report.html again", "lineal.cli_runs:report"),
    "compare": Command(
        "compare RUN RUN ...", "runs side by side, as a table and a page", "lineal.cli_runs:compare"
    ),
    "convert": Command(
        "convert MODEL OUT", "pickled or sharded weights to safetensors", "lineal.cli_convert:convert"
    ),
    "tokenizer": Command(
        "tokenizer ACTION ...",
        "train, encode, decode, inspect, compare, convert",
        "lineal.cli_tokenizer:tokenizer",
    ),
    "vectors": Command(
        "vectors ACTION ...",
        "neighbours, analogies, evaluation and maps of word vectors",
        "lineal.cli_vectors:vectors",
    ),
    "doctor": Command("doctor", "device, dtype probe and versions", "lineal.cli_models:doctor"),
}
"""Every verb."""

TOGETHER = {
    "vectors of words": ", from the windows they stand in or from counts of them",
    "post-train with ": "the policy gradient of that name",
}
"""Recipes whose summaries begin alike stand on one line of the help, with what follows there; `run` lists the options of each."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code: 0, 1 failure, 2 usage, 130 Ctrl-C, 143 terminated.

    An error is one line on standard error; with --debug it is a traceback.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in words
    words = [word for word in words if word != "--debug"]
    try:
        return _dispatch(words)
    except BrokenPipeError:
        # The reader left (`lineal list | head`); what Python flushes on its way out must not complain either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (Exception, KeyboardInterrupt) as error:
        if debug:
            raise
        return complain(error)


def complain(error: BaseException) -> int:
    """Say an error in one line on standard error; returns the exit code that belongs to it."""
    from lineal.train.console import clean

    rank = f"rank {os.environ['RANK']}: " if int(os.environ.get("WORLD_SIZE", "1")) > 1 else ""
    if isinstance(error, KeyboardInterrupt):
        text, code = "interrupted", 130
    elif isinstance(error, LinealError):
        text, code = str(error), error.exit_code
    elif isinstance(error, OSError):
        text, code = str(error), 1
    else:
        text = f"unexpected {type(error).__name__}: {error} (the same command with --debug shows where)"
        code = 1
    print(f"lineal: {rank}{clean(text)}", file=sys.stderr)
    return code


def _dispatch(words: list[str]) -> int:
    if not words or words[0] in HELP or words == ["help"]:
        print(help_text())
        return 0 if words else 2
    verb, rest = words[0], words[1:]
    if verb == "--version":
        from lineal import __version__

        print(f"lineal {__version__}")
        return 0
    if verb not in COMMANDS:
        raise UsageError(_unknown(verb))
    return COMMANDS[verb].load()(rest) or 0


def _unknown(verb: str) -> str:
    from lineal.recipes import RECIPES

    if verb in RECIPES:
        return f"{verb} is a recipe: lineal run {verb}"
    if verb.startswith("-"):
        return f"{verb} stands before the command; lineal --help shows the order."
    close = difflib.get_close_matches(verb, [*COMMANDS, *RECIPES], n=1, cutoff=0.5)
    hint = f"did you mean {close[0]}?" if close else "lineal --help lists those there are."
    return f"there is no command {verb!r}; {hint}"


def help_text() -> str:
    """What `lineal --help` prints."""
    from lineal.recipes import RECIPES

    lines = [
        "lineal: train language models, and post-train them with any policy-gradient method",
        "commands (lineal COMMAND --help explains one; --debug shows tracebacks)",
    ]
    lines += [f"  {command.usage:<32} {command.summary}" for command in COMMANDS.values()]
    lines += ["", "recipes (lineal run RECIPE --help lists the options, --help-all every one)"]
    papers = {name: import_module(module) for name, module in RECIPES.items()}
    groups = {said: [n for n, paper in papers.items() if paper.SUMMARY.startswith(said)] for said in TOGETHER}
    grouped = {name: said for said, names in groups.items() for name in names}
    for name, paper in papers.items():
        said = grouped.get(name)
        if said is None:
            lines.append(f"  {name:<16} {paper.SUMMARY}")
        elif name == groups[said][0]:
            names = ", ".join(groups[said])
            lines += [f"  {names}"] * (len(names) > 16)
            lines.append(f"  {names if len(names) <= 16 else '':<16} {said}{TOGETHER[said]}")
    lines += [
        "",
        "A MODEL is a Hugging Face folder, a run, or hf:OWNER/NAME. Start with: lineal run demo",
        "Exit codes: 0 done, 1 failure, 2 usage, 130 Ctrl-C, 143 terminated.",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
