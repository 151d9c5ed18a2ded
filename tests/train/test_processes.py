"""Two processes do what one does: the same prompts, the same gradient, the same checkpoints; and they end together.

The file is also the program of each process: `python test_processes.py OUT`, with torchrun's variables set.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from lineal import cli, cli_runs
from lineal.models.decoder import Decoder, llama_config
from lineal.models.policy import ActorCritic
from lineal.objectives.algorithm import initial_state, needs, prepare, split
from lineal.objectives.policy import named
from lineal.optim.groups import adamw
from lineal.train.distributed import ALONE, Ranks, joined, sum_gradients
from lineal.train.optimizer import load_optimizer, optimizer_tensors
from lineal.train.score import Scoring, Sheet, score_all
from lineal.train.sharding import alike, gathered, refresh, settle, spread, spread_state, whole
from lineal.train.update import Problem, accumulate, natural_update
from lineal.types import Rollout

pytestmark = pytest.mark.serial

ROOT = Path(__file__).parents[2]
NAMES = ("grpo", "dapo", "ppo")
VOCABULARY, PROMPTS, GROUP, WIDTH = 13, 6, 4, 9
REWARD = """
import time
def odd(prompts, completions, **columns):
    time.sleep({pause})
    return [sum(c in "13579" for c in text) / (1 + len(text)) for text in completions]
"""
MODEL = [
    "--layers",
    "2",
    "--width",
    "16",
    "--heads",
    "2",
    "--dtype",
    "float32",
    "--device",
    "cpu",
    "--threads",
    "1",
]


def recorded_rollout() -> Rollout:
    """A rollout as every process reads it, in float32."""
    made = torch.Generator().manual_seed(3)
    rows = PROMPTS * GROUP
    length_B = torch.randint(1, WIDTH + 1, (rows,), generator=made)
    mask_BT = torch.arange(WIDTH) < length_B[:, None]
    last_BT = torch.arange(WIDTH) == length_B[:, None] - 1
    return Rollout(
        action_BT=torch.randint(0, VOCABULARY, (rows, WIDTH), generator=made) * mask_BT,
        mask_BT=mask_BT,
        reward_BT=last_BT * torch.rand(rows, 1, generator=made),
        behaviour_logp_BT=-torch.rand(rows, WIDTH, generator=made) * mask_BT,
        group_B=torch.arange(PROMPTS).repeat_interleave(GROUP),
        terminated_BT=last_BT,
        truncated_BT=torch.zeros_like(last_BT),
        segment_BT=torch.zeros(rows, WIDTH, dtype=torch.int64),
        prompts=tuple(tuple(range(1, 2 + p)) for p in range(PROMPTS)),
    )


def make_policy(name: str) -> ActorCritic:
    """The same policy in every process; ppo's critic is a head, and not at zero."""
    critic = needs(named(name)).critic
    decoder = Decoder(llama_config(VOCABULARY, 16, 2, 2, 32, 16)).initialise(5)
    with torch.no_grad():
        for parameter in decoder.parameters():
            parameter.mul_(4 if parameter.ndim > 1 else 1)
    policy = ActorCritic(decoder, critic.kind if critic else None).eval()
    if policy.value_head is not None:
        policy.value_head.weight.data.fill_(0.1)
    return policy


def gradient_of(name: str, ranks: Ranks, shard: bool) -> tuple[dict[str, Tensor], ActorCritic]:
    """The whole gradient of the recorded rollout's first optimiser batch, by parameter, and the policy that has it."""
    algorithm, policy = named(name), make_policy(name)
    twin = spread(policy, ranks, shard)
    scoring = Scoring(token_budget=40, ranks=ranks, twin=twin)
    sheet, state = Sheet.of(recorded_rollout()), initial_state(algorithm)
    scores = score_all(twin or policy, sheet, scoring)
    # As if the policy had moved, so that ratios differ from 1 and some are clipped.
    shift_BT = 0.3 * torch.sin(torch.arange(scores.logp_BT.numel())).view_as(scores.logp_BT)
    rollout = replace(sheet.rollout, old_logp_BT=scores.logp_BT + shift_BT, value_BT=scores.value_BT)
    problem = Problem(policy, algorithm, state, sheet, prepare(algorithm, rollout, state), scoring)
    accumulate(problem, split(algorithm, problem.batch, seed=1)[0])
    sum_gradients(policy.parameters(), ranks)
    found = {key: whole(p.grad) for key, p in policy.named_parameters() if p.grad is not None}
    return found, policy


def check_messages(ranks: Ranks) -> None:
    """What the processes tell each other arrives."""
    rank, world = ranks.rank, ranks.world
    assert ranks.sum(torch.tensor([1.0, rank])).tolist() == [world, sum(range(world))]
    sums = ranks.add_up({"a": torch.tensor(2), "b": torch.tensor(0.5)})
    assert {name: float(value) for name, value in sums.items()} == {"a": 2 * world, "b": 0.5 * world}
    assert ranks.any(rank == 1, False) == [True, False]
    assert [x.tolist() for x in ranks.gather(torch.arange(3 * rank))] == [
        list(range(3 * r)) for r in range(world)
    ]
    value = {"rank": rank, "text": "\ud800 é", "number": 0.1 + rank}
    assert ranks.gather_json(value) == [{**value, "rank": r, "number": 0.1 + r} for r in range(world)]
    assert ranks.tell([rank, "all"]) == [0, "all"]
    with joined("cpu") as inner:
        assert inner == ranks


def check_state(policy: ActorCritic, ranks: Ranks) -> None:
    """A sharded policy and its optimiser come back from what is saved of them, and the whole copy follows."""
    optimiser = adamw(dict(policy.named_parameters()), 1e-2)
    optimiser.step()
    settle(policy)
    names = dict(policy.named_parameters())
    tensors, state = optimizer_tensors(optimiser, names)
    kept = gathered({**policy.state_dict(), **tensors}, ranks)
    assert bool(kept) == ranks.first
    everything = {key: whole(tensor) for key, tensor in {**policy.state_dict(), **tensors}.items()}
    assert all(torch.equal(everything[key], tensor) for key, tensor in kept.items())

    again = make_policy("ppo")
    twin = spread(again, ranks, True)
    present = again.state_dict()
    again.load_state_dict({key: alike(everything[key], present[key]) for key in present})
    fresh, parameters = adamw(dict(again.named_parameters()), 1e-2), dict(again.named_parameters())
    load_optimizer(fresh, everything, state, parameters)
    spread_state(fresh)
    refresh(twin, again)
    assert twin is not None
    for key, parameter in twin.named_parameters():
        assert torch.equal(parameter, everything[key]), key
        assert not parameter.requires_grad
        for moment in ("exp_avg", "exp_avg_sq"):
            found = fresh.state[parameters[key]][moment]
            assert type(found) is type(parameters[key].data)
            assert torch.equal(whole(found), everything[f"optimizer/{key}/{moment}"])


def check_replicas(ranks: Ranks) -> None:
    """A natural step over shared rows moves every whole copy to the same bits, and says the same of it."""
    algorithm, policy = named("trpo"), make_policy("trpo")
    assert spread(policy, ranks, True, second_derivatives=True) is None
    scoring = Scoring(token_budget=40, ranks=ranks)
    sheet, state = Sheet.of(recorded_rollout()), initial_state(algorithm)
    scores = score_all(policy, sheet, scoring)
    rollout = replace(sheet.rollout, old_logp_BT=scores.logp_BT, value_BT=scores.value_BT)
    problem = Problem(policy, algorithm, state, sheet, prepare(algorithm, rollout, state), scoring)
    _, report = natural_update(problem, list(policy.actor_parameters().values()))
    assert report.accepted and report.step_scale > 0
    assert len(set(map(str, ranks.gather_json(vars(report))))) == 1
    moved = ranks.gather(torch.cat([p.detach().flatten() for p in policy.parameters()]))
    before = torch.cat([p.detach().flatten() for p in make_policy("trpo").parameters()])
    assert torch.equal(moved[0], moved[1]) and not torch.equal(moved[0], before)


def main(out: Path) -> None:
    """One of the processes."""
    torch.set_num_threads(1)
    with joined("cpu") as ranks:
        check_messages(ranks)
        check_replicas(ranks)
        for name in NAMES:
            for shard in (True, False):
                found, policy = gradient_of(name, ranks, shard)
                if ranks.first:
                    save_file(
                        {k: v.contiguous() for k, v in found.items()}, out / f"{name}-{shard}.safetensors"
                    )
                if name == "ppo" and shard:
                    check_state(policy, ranks)


def variables(rank: int, port: int) -> dict[str, str]:
    """torchrun's variables for one of two processes."""
    places = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2, "MASTER_PORT": port}
    own = {name: str(value) for name, value in places.items()}
    return {**environment(), **own, "MASTER_ADDR": "127.0.0.1"}


def environment() -> dict[str, str]:
    """Of every child: this repository, one thread."""
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    return {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}


def two(words: list[str], folder: Path) -> list[tuple[int, str]]:
    """Run a command as two processes that find each other; exit codes and what they said."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    children = []
    for rank in range(2):
        log = (folder / f"log-{rank}").open("w+")
        command = [sys.executable, *words]
        children.append((subprocess.Popen(command, env=variables(rank, port), stdout=log, stderr=log), log))
    found = []
    for child, log in children:
        code = child.wait(timeout=200)
        log.seek(0)
        found.append((code, log.read()))
        log.close()
    return found


@pytest.fixture(scope="module")
def gradients(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the gradients that two processes found."""
    out = tmp_path_factory.mktemp("gradients")
    ends = two([__file__, str(out)], out)
    assert [code for code, _ in ends] == [0, 0], ends[0][1] + ends[1][1]
    return out


@pytest.mark.parametrize("shard", [True, False], ids=["sharded", "whole"])
@pytest.mark.parametrize("name", NAMES)
def test_the_gradient_of_a_recorded_rollout_is_one_process_s(gradients: Path, name: str, shard: bool) -> None:
    alone, _ = gradient_of(name, ALONE, shard=False)
    shared = load_file(gradients / f"{name}-{shard}.safetensors")
    assert set(shared) == set(alone)
    largest = max(float(gradient.norm()) for gradient in alone.values())
    assert largest > 1e-3
    for key, gradient in alone.items():
        assert float((shared[key] - gradient).norm()) <= 1e-5 * float(gradient.norm()) + 1e-9 * largest, key


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rewards and a text."""
    folder = tmp_path_factory.mktemp("inputs")
    (folder / "reward.py").write_text(REWARD.format(pause=0))
    (folder / "slow.py").write_text(REWARD.format(pause=0.4))
    (folder / "text.txt").write_text("the quick brown fox jumps over the lazy dog; " * 30)
    return folder


def command(recipe: str, inputs: Path, out: Path, steps: int = 2, reward: str = "reward") -> list[str]:
    """`lineal run` of a tiny model, as the words after `python`."""
    words = ["-m", "lineal", "run", recipe, *MODEL, "--steps", str(steps), "--out", str(out), "--quiet"]
    if recipe == "pretrain":
        return [
            *words,
            "--data",
            str(inputs / "text.txt"),
            "--batch-size",
            "5",
            "--block",
            "16",
            "--token-budget",
            "48",
        ]
    words += ["--prompts", "5", "--eval-prompts", "5", "--reward", f"{inputs / reward}.py:odd"]
    if recipe == "grpo":
        words += ["--group-size", "4", "--minibatches", "2", "--epochs", "2", "--learning-rate", "1e-3"]
    if recipe == "trpo":
        # Conjugate gradient multiplies what rounding differs by; in float64 that is still nothing.
        words += ["--dtype", "float64"]
    return words


def alone(words: list[str]) -> None:
    """Run a command as one process: this one."""
    assert cli.main(words[2:]) == 0


def lines(path: Path) -> list[dict[str, Any]]:
    """The records of a run's metrics."""
    return [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]


def check_alike(one: Path, other: Path, step: int, close: float) -> None:
    """Two runs sampled the same, measured the same names, and ended at the same weights but for rounding."""
    assert (one / "samples.jsonl").read_bytes() == (other / "samples.jsonl").read_bytes()
    ours, theirs = lines(one), lines(other)
    assert [list(line) for line in ours] == [list(line) for line in theirs]
    for line, same in zip(ours, theirs, strict=True):
        for key, value in line.items():
            if key.startswith(("reward", "completions", "tokens", "eval/accuracy", "num_tokens")):
                assert value == same[key], key
            elif "logp_difference" not in key and key != "surrogate":
                # The surrogate starts at 0, and the sampler's distance is rounding itself.
                assert value == pytest.approx(same[key], rel=1e-2, abs=1e-5), key
    folders = [path / "checkpoints" / f"step-{step}" for path in (one, other)]
    tensors, again = (load_file(folder / "tensors.safetensors") for folder in folders)
    assert set(tensors) == set(again)
    for key, tensor in tensors.items():
        assert tensor.shape == again[key].shape
        torch.testing.assert_close(tensor, again[key], rtol=close, atol=close, msg=key)
    states = [(folder / "state.json").read_text().split('"lengths"')[0] for folder in folders]
    assert states[0] == states[1]
    assert sorted(p.name for p in one.iterdir()) == sorted(p.name for p in other.iterdir())
    assert (
        load_file(one / "final" / "model.safetensors").keys()
        == load_file(other / "final" / "model.safetensors").keys()
    )


@pytest.mark.parametrize("recipe", ["grpo", "trpo", "pretrain"])
def test_a_run_is_the_same_with_two_processes(recipe: str, inputs: Path, tmp_path: Path) -> None:
    alone(command(recipe, inputs, tmp_path / "one"))
    ends = two(command(recipe, inputs, tmp_path / "two"), tmp_path)
    assert [code for code, _ in ends] == [0, 0], ends[0][1] + ends[1][1]
    check_alike(tmp_path / "one", tmp_path / "two", 2, close=1e-4)
    # Only the first process speaks.
    assert ends[1][1] == ""
    assert ("second derivatives" in ends[0][1]) == (recipe == "trpo")


def torchrun(words: list[str], log: Path) -> subprocess.Popen[bytes]:
    """The command under torchrun, two processes."""
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    with log.open("w") as file:
        return subprocess.Popen(
            [sys.executable, *launcher, *words], env=environment(), stdout=file, stderr=file
        )


def worker_of(launcher: int, rank: int) -> int:
    """The process id of a rank."""
    for child in Path(f"/proc/{launcher}/task/{launcher}/children").read_text().split():
        if f"\0RANK={rank}\0".encode() in b"\0" + Path(f"/proc/{child}/environ").read_bytes():
            return int(child)
    raise AssertionError(f"torchrun has no rank {rank}")


@pytest.fixture
def started() -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """`torchrun`, whatever is left of it ended after the test."""
    found: list[subprocess.Popen[bytes]] = []

    def start(words: list[str], log: Path) -> subprocess.Popen[bytes]:
        found.append(torchrun(words, log))
        return found[-1]

    yield start
    for process in found:
        if process.poll() is None:
            process.terminate()
            process.wait()


def wait_for_step(path: Path, step: int, process: subprocess.Popen[bytes], log: Path) -> None:
    """Until a run has logged a step."""
    while not (path / "metrics.jsonl").exists() or all(line["step"] < step for line in lines(path)):
        assert process.poll() is None, log.read_text()
        time.sleep(0.05)


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs /proc to find the processes")
def test_stopped_and_killed_and_resumed_by_another_number(
    inputs: Path, tmp_path: Path, started: Callable[..., subprocess.Popen[bytes]]
) -> None:
    steps, run, log = 7, tmp_path / "run", tmp_path / "log"
    alone(command("grpo", inputs, tmp_path / "straight", steps))

    process = started(["-m", *command("grpo", inputs, run, steps, "slow")[1:]], log)
    wait_for_step(run, 2, process, log)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=30) != 0
    (checkpoint,) = (run / "checkpoints").iterdir()
    assert lines(run)[-1]["step"] == int(checkpoint.name.removeprefix("step-"))

    log = tmp_path / "log2"
    process = started(["-m", "lineal", "resume", str(run)], log)
    wait_for_step(run, int(checkpoint.name.removeprefix("step-")) + 2, process, log)
    victim = worker_of(process.pid, 1)
    os.kill(victim, signal.SIGKILL)
    assert process.wait(timeout=10) != 0
    said = log.read_text()
    assert f"rank 1 (process {victim}) died" in said
    assert not Path(f"/proc/{victim}").exists()

    alone(["-m", "lineal", "resume", str(run)])
    check_alike(tmp_path / "straight", run, steps, close=2e-3)


def test_only_a_restarted_job_takes_up_a_folder_unasked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TORCHELASTIC_RESTART_COUNT", raising=False)
    (tmp_path / "config.json").write_text("{}")
    assert not cli_runs._restarted(tmp_path)
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    assert cli_runs._restarted(tmp_path)
    assert not cli_runs._restarted(tmp_path / "new")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
