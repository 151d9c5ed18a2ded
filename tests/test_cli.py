"""The command: instant help, one-line errors, exit codes."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from lineal import cli
from lineal.cli import COMMANDS, complain, help_text, main
from lineal.errors import DataError, LinealError, UsageError


def said(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    """Exit code, output and errors of a command line."""
    code = main(list(words))
    out, err = capsys.readouterr()
    return code, out, err


def command(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "lineal", *words],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        env={**os.environ, **environment},
    )


@pytest.mark.parametrize("words", [["--help"], ["-h"], ["help"]])
def test_help_is_short_and_names_everything(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    from lineal.recipes import RECIPES

    code, out, _ = said(capsys, *words)
    assert code == 0
    assert len(out.splitlines()) <= 40
    assert max(map(len, out.splitlines())) <= 100
    for name in (*COMMANDS, *RECIPES):
        assert re.search(rf"(?m)^  (\S+, )*{re.escape(name)}( |,|$)", out), name


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys; from lineal.cli import main; main(['--help'])\n"
        "heavy = {'torch', 'numpy', 'tyro', 'rich', 'transformers', 'safetensors'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("recipe", ["grpo", "pretrain", "demo"])
def test_a_recipe_s_help_loads_no_torch(recipe: str) -> None:
    code = (
        f"import sys; from lineal.cli import main; main(['run', '{recipe}', '--help'])\n"
        "assert 'torch' not in sys.modules and 'tyro' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "--steps N" in done.stdout or recipe == "demo"


def test_nothing_typed_shows_help_and_is_no_success(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = said(capsys)
    assert (code, err) == (2, "") and out.strip() == help_text()


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert said(capsys, "--version") == (0, "lineal 0.1.0\n", "")


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("rnu", "lineal: there is no command 'rnu'; did you mean run?"),
        ("grpo", "lineal: grpo is a recipe: lineal run grpo"),
        ("xyzzy", "lineal: there is no command 'xyzzy'; lineal --help lists those there are."),
        ("--steps 3", "lineal: --steps stands before the command; lineal --help shows the order."),
        ("run", "lineal: which recipe? lineal run RECIPE, as in: lineal run demo (lineal --help lists them)"),
        ("run reinforc", "lineal: there is no recipe 'reinforc'; did you mean reinforce?"),
        (
            "run grpo --lerning-rate 1",
            "lineal: there is no option --lerning-rate; did you mean --learning-rate?",
        ),
        ("run grpo --steps many", "lineal: --steps many: must be a whole number."),
        ("run grpo 12", "lineal: '12' is no option: an option starts with --, and its value follows it."),
        ("list a b", "lineal: 2 folders were given, not one: lineal list [FOLDER]"),
        ("resume --force x", "lineal: there is no option --force: lineal resume RUN [--trust]"),
        ("compare onlyone", "lineal: compare needs at least two runs: lineal compare RUN RUN ..."),
        ("doctor --verbose", "lineal: there is no option --verbose: lineal doctor [--json]"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_2(
    words: str, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert said(capsys, *words.split()) == (2, "", line + "\n")


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (UsageError("no"), 2, "lineal: no\n"),
        (LinealError("no"), 1, "lineal: no\n"),
        (DataError("a.jsonl:3: two\nlines \x1b[31mred"), 1, "lineal: a.jsonl:3: two⏎lines red\n"),
        (KeyboardInterrupt(), 130, "lineal: interrupted\n"),
        (OSError(28, "No space left on device"), 1, "lineal: [Errno 28] No space left on device\n"),
    ],
)
def test_errors_become_one_line(
    error: BaseException, code: int, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert complain(error) == code
    assert capsys.readouterr().err == text


def test_a_bug_is_named_and_says_how_to_see_more(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(words: list[str]) -> int:
        raise KeyError("oops")

    monkeypatch.setattr(cli, "_dispatch", broken)
    code, _, err = said(capsys, "run", "grpo")
    assert code == 1
    assert err == "lineal: unexpected KeyError: 'oops' (the same command with --debug shows where)\n"
    with pytest.raises(KeyError):
        main(["run", "grpo", "--debug"])


def test_a_rank_says_its_number(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("RANK", "3")
    complain(LinealError("lost"))
    assert capsys.readouterr().err == "lineal: rank 3: lost\n"


def test_the_process_ends_with_the_code() -> None:
    done = command("run", "nothing-like-it")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("lineal: ") and done.stderr.count("\n") == 1


def test_a_reader_that_leaves_is_no_error() -> None:
    code = "import sys; from lineal.cli import main; sys.exit(main(['--help']))"
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    err = process.stderr.read()
    process.stderr.close()
    process.wait()
    assert b"Traceback" not in err


def test_every_command_can_be_loaded_and_explains_itself(capsys: pytest.CaptureFixture[str]) -> None:
    for name, verb in COMMANDS.items():
        assert callable(verb.load())
        try:
            code = main([name, "--help"])
        except SystemExit as stop:
            code = int(stop.code or 0)
        out = capsys.readouterr().out
        assert code == 0 and out.startswith("lineal"), name


def test_the_console_script_is_this_command() -> None:
    import tomllib

    scripts = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text())["project"][
        "scripts"
    ]
    module, _, name = scripts["lineal"].partition(":")
    assert getattr(import_module(module), name) is main
