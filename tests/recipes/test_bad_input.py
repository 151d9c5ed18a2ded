"""Bad input at the command: exit code 1 or 2, one line that names the thing and the remedy, and nothing lost."""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import lineal.train.files

MINE = "lineal: "
NOTES = ("run ", "device ", "grpo: ", "sft: ", "  ", "step ", "stopping ", "warning: ")
"""How the lines begin that every run prints on standard error."""


@pytest.fixture
def options(tiny: dict[str, tuple[str, ...]], tmp_path: Path) -> tuple[str, ...]:
    """A run that would take a moment, in a folder that does not exist yet."""
    return ("--out", str(tmp_path / "run"), *tiny["policy"], "--steps", "2", "--save-every", "1")


def error(said: Any, code: int, *parts: str) -> str:
    """The one line, which must name all parts."""
    assert said.code == code, said.err
    lines = said.err.splitlines()
    complaints = [line for line in lines if line.startswith(MINE)]
    others = [line for line in lines if line and not line.startswith((MINE, *NOTES))]
    assert len(complaints) == 1 and not others, said.err
    assert lines[-1] == complaints[0], "the reason comes last"
    assert "unexpected" not in complaints[0] and "Traceback" not in said.err
    for part in parts:
        assert part in complaints[0], f"{part!r} is not in {complaints[0]!r}"
    return complaints[0]


REWARDS = {
    "raises": ("raise KeyError('colour')", ("raised KeyError", "colour", "line 4", "--on-reward-error")),
    "hangs": ("time.sleep(3600)", ("1 s", "--reward-timeout")),
    "loops in C": ("re.match('(a+)+b', 'a' * 60)", ("1 s", "--reward-timeout")),
    "None": ("return None", ("None", "one number or None per completion")),
    "None for all": ("return [None] * len(completions)", ("no reward applies", "return a number for some")),
    "nan": ("return [float('nan')] * len(completions)", ("gave nan", "sample 0 of", "--on-reward-error")),
    "inf": (
        "return [0.0] * (len(completions) - 1) + [float('inf')]",
        ("gave an infinite number", "--on-reward-error"),
    ),
    "text": (
        "return ['good'] * len(completions)",
        ("gave a str, not a number", "sample 0 of", "--on-reward-error"),
    ),
    "scalar": ("return 1.0", ("float", "one number or None per completion")),
    "wrong length": ("return [1.0]", ("1 ", "completions", "one number or None per completion")),
    "exits": ("print('bye'); os._exit(3)", ("exit", "3", "'bye'", "return instead")),
    "is killed": ("os.kill(os.getpid(), 9)", ("SIGKILL", "return instead")),
    "gibberish": ("x = 1\n  y = 2", ("cannot be loaded", "IndentationError", "Correct")),
}


def reward_file(folder: Path, body: str) -> str:
    """A user's reward with this body."""
    file = folder / "mine.py"
    file.write_text(f"import os, re, time\n\ndef judge(completions, **_):\n    {body}\n")
    return f"{file}:judge"


@pytest.mark.parametrize("kind", list(REWARDS))
def test_a_reward_that_fails(kind: str, say, options: tuple[str, ...], tmp_path: Path) -> None:
    body, parts = REWARDS[kind]
    spec = reward_file(tmp_path, body)
    said = say("run", "grpo", *options, "--reward", spec, "--reward-timeout", "1")
    error(said, 1, "reward judge" if kind != "None for all" else "judge", *parts)
    assert not (tmp_path / "run" / "final").exists()


def test_a_reward_that_prints_a_lot_is_no_failure(say, options: tuple[str, ...], tmp_path: Path) -> None:
    """Its output is read and dropped, not kept: half a gigabyte passes through a pipe of 64 KiB."""
    spec = reward_file(
        tmp_path, "print('x' * (1 << 28)); print('y' * (1 << 28)); return [1.0] * len(completions)"
    )
    said = say("run", "grpo", *options, "--reward", spec, "--steps", "1", "--eval-prompts", "1")
    assert said.code == 0, said.err
    assert len(said.err) + len(said.out) < 10_000


def test_a_reward_that_fails_half_way_loses_nothing(
    say, options: tuple[str, ...], tmp_path: Path, read: Callable[[Path], list[dict[str, Any]]]
) -> None:
    """It works for two steps; what they learned is in the checkpoint, and the corrected file goes on from there."""
    body = "assert _['trainer_state'].step != 3, 'third'; return [float(len(c)) for c in completions]"
    spec = reward_file(tmp_path, body)
    said = say("run", "grpo", *options, "--reward", spec, "--steps", "4")
    error(said, 1, "reward judge", "AssertionError", "third")
    run = tmp_path / "run"
    assert (run / "checkpoints" / "step-2" / "manifest.json").exists() and (run / "report.html").exists()
    reward_file(tmp_path, "return [float(len(c)) for c in completions]")
    error(say("resume", run), 2, "mine.py has changed", "--trust")
    assert say("resume", run, "--trust").code == 0
    assert [line["step"] for line in read(run / "metrics.jsonl") if "reward" in line] == [1, 2, 3, 4]


@pytest.mark.parametrize("policy", ["zero", "drop"])
def test_a_reward_that_may_fail_is_counted_and_shown(
    say, options: tuple[str, ...], tmp_path: Path, read, policy: str
) -> None:
    spec = reward_file(tmp_path, "return [float('nan') if '1' in c else float(len(c)) for c in completions]")
    said = say("run", "grpo", *options, "--reward", spec, "--on-reward-error", policy)
    assert said.code == 0, said.err
    assert "reward judge failed on" in said.err
    metrics = [line for line in read(tmp_path / "run" / "metrics.jsonl") if "reward" in line]
    assert sum(line["rewards/judge/failed"] for line in metrics) > 0
    assert all(line["reward"] is not None for line in metrics)


GOOD = "".join(json.dumps({"prompt": f"{i}+1=", "answer": str(i + 1)}) + "\n" for i in range(9)).encode()
DATA = {
    "empty": (b"", ("empty",)),
    "only blanks": (b"\n \n", ("no rows",)),
    "half a row": (GOOD + b'{"prompt": "9+1=", "ans', (":10:", "--on-bad-row skip")),
    "wrong encoding": (GOOD + '{"prompt": "é"}\n'.encode("latin-1"), (":10", "UTF-8")),
    "UTF-16": (GOOD.decode().encode("utf-16"), ("UTF-16", "UTF-8")),
    "missing field": (
        GOOD + b'{"question": "9+1="}\n',
        (":10", "no field 'prompt'", "question", "--prompt-field"),
    ),
    "a list": (GOOD + b"[1, 2]\n", (":10",)),
    "prompt is a number": (GOOD + b'{"prompt": 7}\n', (":10", "'prompt' is a int")),
    "empty prompt": (GOOD + b'{"prompt": "", "answer": "1"}\n', ("no tokens",)),
}


@pytest.mark.parametrize("kind", list(DATA))
def test_a_file_that_cannot_be_read(kind: str, say, options: tuple[str, ...], tmp_path: Path) -> None:
    content, parts = DATA[kind]
    file = tmp_path / "rows.jsonl"
    file.write_bytes(content)
    said = say("run", "grpo", *options, "--data", file, "--held-out", "0.2", "--steps", "3", "--prompts", "9")
    error(said, 1, *parts)


@pytest.mark.parametrize(
    "content",
    [b"\xef\xbb\xbf" + GOOD, GOOD.replace(b"\n", b"\r\n"), GOOD + b"\n\n", GOOD.rstrip(b"\n")],
    ids=["BOM", "CRLF", "blank lines", "no last newline"],
)
def test_a_file_that_is_merely_odd_is_read(
    content: bytes, say, options: tuple[str, ...], tmp_path: Path, read
) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_bytes(content)
    said = say("run", "grpo", *options, "--data", file, "--max-new-tokens", "3")
    assert said.code == 0, said.err
    assert {line["prompt"] for line in read(tmp_path / "run" / "samples.jsonl")} <= {
        f"{i}+1=" for i in range(9)
    }


def test_a_row_of_many_megabytes(say, options: tuple[str, ...], tmp_path: Path) -> None:
    """It is read; what cannot be done with it is named without printing it."""
    file = tmp_path / "rows.jsonl"
    file.write_bytes(GOOD + json.dumps({"prompt": "7" * (50 << 20), "answer": "1"}).encode() + b"\n")
    said = say(
        "run", "grpo", *options, "--data", file, "--context", "32", "--held-out", "0", "--prompts", "10"
    )
    line = error(said, 1, "52428800 tokens", "context", "shorten")
    assert len(line) < 400


def test_a_file_that_is_not_there_names_its_neighbour(say, options: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_bytes(GOOD)
    error(say("run", "grpo", *options, "--data", tmp_path / "row.jsonl"), 1, "row.jsonl", "rows.jsonl")


def test_nothing_held_out_is_nothing_measured(
    say,
    options: tuple[str, ...],
    tmp_path: Path,
    read,
) -> None:
    (tmp_path / "rows.jsonl").write_bytes(GOOD)
    for recipe in ("grpo", "sft"):
        drop = (
            options
            if recipe == "grpo"
            else tuple(w for w in options if w not in ("--prompts", "--group-size", "4"))
        )
        said = say(
            "run",
            recipe,
            *drop,
            "--data",
            tmp_path / "rows.jsonl",
            "--held-out",
            "0",
            "--out",
            tmp_path / recipe,
        )
        assert said.code == 0, said.err
        assert "no prompt is held out, so accuracy is not measured" in said.err
        assert not any("eval/accuracy" in line for line in read(tmp_path / recipe / "metrics.jsonl"))
        assert (tmp_path / recipe / "report.html").exists() and (tmp_path / recipe / "final").is_dir()


def test_a_prompt_longer_than_the_context(say, options: tuple[str, ...], tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_bytes(GOOD + json.dumps({"prompt": "1+" * 30, "answer": "30"}).encode() + b"\n")
    said = say(
        "run", "grpo", *options, "--data", file, "--context", "16", "--held-out", "0", "--prompts", "10"
    )
    error(said, 1, "60 tokens", "context is 16", "shorten it")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model folder."""
    from lineal.models.hf import save_model
    from lineal.recipes.config import ModelOptions
    from lineal.train.build import build_model

    folder = tmp_path_factory.mktemp("model")
    decoder, tokenizer = build_model(ModelOptions(layers=1, width=16, heads=2), "0123456789+-=", 16, seed=1)
    save_model(decoder, folder)
    tokenizer.save(folder)
    return folder


def copied(model: Path, folder: Path) -> Path:
    """The model's files somewhere else, to be broken there."""
    folder.mkdir()
    for file in model.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    return folder


def truncate(folder: Path) -> None:
    """Cut the weights in half."""
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def missing_shard(folder: Path) -> None:
    """An index that names a file that is not there."""
    (folder / "model.safetensors").unlink()
    index = {"weight_map": {"model.embed_tokens.weight": "model-00001-of-00002.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def outside_shard(folder: Path) -> None:
    """An index that names a file of somebody else."""
    missing_shard(folder)
    index = {"weight_map": {"model.embed_tokens.weight": "../../secret.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def unknown(folder: Path) -> None:
    """Another architecture."""
    config = json.loads((folder / "config.json").read_text())
    config |= {"architectures": ["MambaForCausalLM"], "model_type": "mamba"}
    (folder / "config.json").write_text(json.dumps(config))


def pickle_only(folder: Path) -> None:
    """Weights that only executing them could read."""
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def no_weights(folder: Path) -> None:
    """No weights at all."""
    (folder / "model.safetensors").unlink()


def bad_config(folder: Path) -> None:
    """Half a config."""
    (folder / "config.json").write_text('{"model_type": "lla')


MODELS: dict[str, tuple[Callable[[Path], None], tuple[str, ...]]] = {
    "truncated": (truncate, ("model.safetensors is truncated or damaged", "download it again")),
    "missing shard": (missing_shard, ("model-00001-of-00002.safetensors is missing", "download it again")),
    "shard elsewhere": (outside_shard, ("secret.safetensors",)),
    "unknown architecture": (unknown, ("mamba", "llama")),
    "pickle only": (pickle_only, ("pytorch_model.bin", "lineal convert")),
    "no weights": (no_weights, ("model.safetensors",)),
    "half a config": (bad_config, ("config.json", "JSON", "download it again")),
}


@pytest.mark.parametrize("kind", list(MODELS))
def test_a_model_that_cannot_be_loaded(
    kind: str, say, options: tuple[str, ...], model: Path, tmp_path: Path
) -> None:
    damage, parts = MODELS[kind]
    folder = copied(model, tmp_path / "model")
    damage(folder)
    error(say("run", "grpo", *options, "--model", folder), 1, *parts)


def state_of(folder: Path) -> dict[str, str]:
    """Every file with its hash; the lock's owner aside."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in ("lock", "report.html")
    }


class FullDisk:
    """`os` as the file layer sees it, on a disk that takes nothing once `full` is set."""

    def __init__(self) -> None:
        self.full = False

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def write(self, descriptor: int, content: Any) -> int:
        """Half of it, then no more."""
        if self.full:
            os.write(descriptor, bytes(content)[: len(content) // 2])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return os.write(descriptor, content)


@pytest.mark.parametrize("when", ["checkpoint", "metrics", "final"])
def test_a_full_disk_loses_nothing(
    when: str, say, options: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, read
) -> None:
    """Whatever could not be written: the checkpoint before is whole, and with space the run goes on from it."""
    from lineal.recipes import policy_gradient

    run, straight = tmp_path / "run", tmp_path / "straight"
    line = ("run", "grpo", *options, "--steps", "4", "--learning-rate", "1e-3")
    assert say(*line, "--out", straight).code == 0
    disk, calls = FullDisk(), []
    name = {"checkpoint": "save", "metrics": "train_step", "final": "finish"}[when]
    real = getattr(policy_gradient, name)

    def fill(*arguments: Any) -> Any:
        calls.append(name)
        disk.full = when == "final" or len(calls) == 3
        return real(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(lineal.train.files, "os", disk)
        patch.setattr(policy_gradient, name, fill)
        if when == "final":
            # The final folder is written by safetensors' own library, which meets the same disk.
            patch.setattr("lineal.train.session.save_model", full_library)
        error(say(*line), 1, "No space left on device", str(run), "ree some space", "resume")
    kept = 4 if when == "final" else 2
    assert (run / "checkpoints" / f"step-{kept}" / "manifest.json").exists() and not (run / "final").exists()
    assert say("resume", run).code == 0
    assert read(run / "metrics.jsonl") == read(straight / "metrics.jsonl")
    assert (run / "final" / "model.safetensors").read_bytes() == (
        straight / "final" / "model.safetensors"
    ).read_bytes()
    assert not list(run.rglob("*.tmp"))


def full_library(*_: Any, **__: Any) -> None:
    """A library that meets a full disk."""
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_folder_that_holds_a_run_is_left_alone(say, options: tuple[str, ...], tmp_path: Path) -> None:
    assert say("run", "grpo", *options).code == 0
    before = state_of(tmp_path / "run")
    error(say("run", "grpo", *options), 1, "already holds a run", "lineal resume", "another --out")
    assert say("resume", tmp_path / "run").code == 0
    assert state_of(tmp_path / "run") == before


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (("--lerning-rate", "1"), ("--lerning-rate", "--learning-rate")),
        (("--num-generations", "8"), ("--num-generations", "--group-size")),
        (("--algorithm", "gpro"), ("gpro", "grpo")),
        (("--algorithm", "reinforce", "--clip-low", "0.1"), ("reinforce", "clip")),
        (("--max-kl", "0.1"), ("grpo", "trust region")),
        (("--temperature", "0"), ("--temperature 0", "above 0")),
        (("--temperature", "-1"), ("temperature", "-1")),
        (("--prompts", "0"), ("--prompts 0", "at least 1")),
        (("--group-size", "0"), ("group_size is 0",)),
        (("--group-size", "1"), ("grpo",)),
        (("--steps", "-1"), ("--steps -1", "at least 0")),
        (("--save-every", "0"), ("--save-every 0", "at least 1")),
        (("--level", "9"), ("--level 9",)),
        (("--task", "chess"), ("--task chess", "--data")),
        (("--layout", "rnn"), ("--layout rnn", "llama")),
        (("--width", "30", "--heads", "4"), ("--width 30", "--heads 4")),
        (("--dtype", "float8"), ("float8", "float32")),
        (("--device", "abacus"), ("abacus", "cpu")),
        (("--reward", "exactly"), ("exactly", "exact")),
        (("--reward", "nowhere.py:f"), ("nowhere.py",)),
        (("--schedule", "sometimes"), ("sometimes", "cosine")),
        (("--held-out", "1.5", "--data", "x.jsonl"), ()),
        (("--chat",), ("--chat", "--model")),
        (("--whiten", "off"), ("grpo", "whitening")),
        (("--learning-rate", "nan"), ("learning", "nan")),
        (("--learning-rate", "-1"), ("learning_rate", "-1")),
    ],
    ids=lambda value: (
        " ".join(value) if isinstance(value, tuple) and value and value[0].startswith("--") else ""
    ),
)
def test_options_that_cannot_work(
    words: tuple[str, ...], parts: tuple[str, ...], say, options: tuple[str, ...], tmp_path: Path
) -> None:
    said = say("run", "grpo", *options, *words)
    assert said.code in (1, 2), said.err
    error(said, said.code, *parts)
    assert said.code == 2 or "--data" in words
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_weights_that_are_not_finite_end_the_run_before_they_spread(
    say, options: tuple[str, ...], model: Path, tmp_path: Path
) -> None:
    from safetensors.torch import load_file, save_file

    folder = copied(model, tmp_path / "model")
    tensors = load_file(folder / "model.safetensors")
    tensors["model.embed_tokens.weight"][3, 0] = torch.nan
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    error(say("run", "grpo", *options, "--model", folder), 1, "nan or infinite", "earlier checkpoint")


def test_a_learning_rate_that_blows_up_leaves_a_finite_checkpoint(
    say, read, tiny: dict[str, tuple[str, ...]], tmp_path: Path
) -> None:
    """Three refusals in a row end the run; the weights before them are kept, and their batches too."""
    from safetensors.torch import load_file

    run = tmp_path / "run"
    said = say("run", "sft", "--out", run, *tiny["shape"], "--level", "1", "--learning-rate", "1e30", "--steps", "9",
               "--save-every", "1", "--warmup", "0", "--max-grad-norm", "0")  # fmt: skip
    assert said.code == 1 and "refused 3 times in a row" in said.err and "learning rate" in said.err
    last = max((run / "checkpoints").iterdir(), key=lambda path: int(path.name.removeprefix("step-")))
    weights = load_file(last / "tensors.safetensors")
    assert all(torch.isfinite(tensor).all() for tensor in weights.values())
    assert [line.get("non_finite", False) for line in read(run / "metrics.jsonl")] == [False, True, True]
