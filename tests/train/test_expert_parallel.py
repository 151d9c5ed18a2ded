"""Experts dealt to two processes give what one process with all of them gives: results, gradients, balance, capacity.

The file is also the program of each process: `python test_expert_parallel.py OUT`, with torchrun's variables set.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from lineal.errors import UsageError
from lineal.models.decoder import Decoder, llama_config
from lineal.models.gating import ExpertsConfig
from lineal.models.lstm import LSTMConfig, RecurrentModel
from lineal.objectives.balance import Balance
from lineal.recipes.config import MixtureConfig, with_options
from lineal.train.distributed import ALONE, Ranks, joined, sum_gradients
from lineal.train.language import Reader, Text, text_losses
from lineal.train.routing import Balanced
from lineal.train.score import Scoring
from lineal.train.sharding import refresh, spread, whole

pytestmark = pytest.mark.serial

ROOT = Path(__file__).parents[2]
FLAT = ExpertsConfig(6, 2, 10, gate="noisy_top_k")
CASES = {
    "decoder": ("decoder", FLAT),
    "capacity": ("decoder", ExpertsConfig(6, 2, 10, gate="noisy_top_k", capacity=0.7, overflow="around")),
    "two levels": ("decoder", ExpertsConfig(6, 2, 10, gate="noisy_top_k", groups=2, capacity=0.8)),
    "lstm": ("lstm", ExpertsConfig(6, 2, 10, activation="relu", gate="noisy_top_k")),
}
WAYS = {"dealt": (True, True), "sharded": (True, False), "whole": (False, False)}


def model(name: str) -> Reader:
    """The same model in every process, far from its start so that mistakes show."""
    body, experts = CASES[name]
    if body == "lstm":
        built: Reader = RecurrentModel(LSTMConfig(11, 8, 8, experts=experts))
    else:
        layout = "mixtral" if experts.groups == 1 else "lineal_moe"
        built = Decoder(llama_config(11, 8, 2, 2, 10, 8, layout=layout, experts=experts))
    built.initialise(0)
    made = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in built.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=made))
    return built.double()


def gradients(name: str, ranks: Ranks, shard: bool = False, experts: bool = False) -> dict[str, Tensor]:
    """The gradient of one step's loss and of its balance, over micro-batches that leave one process without rows."""
    built = model(name)
    twin = spread(built, ranks, shard, experts=experts)
    stream_N = torch.randint(0, 11, (200,), generator=torch.Generator().manual_seed(2))
    # Five rows in micro-batches of two per process: the last one leaves a process with a filler.
    options = with_options(MixtureConfig(), batch_size=5, block=8, token_budget=16).optimiser
    balanced = Balanced(Balance(0.5, 0.5), seed=3, step=4)
    scoring = Scoring(ranks=ranks)
    total = torch.zeros((), dtype=torch.float64)
    for loss, _ in text_losses(
        built.train(), Text(stream_N, stream_N), options, scoring, seed=3, step=4, balanced=balanced
    ):
        loss.backward()
        total = total + loss.detach()
    sum_gradients(list(built.parameters()), ranks)
    found = {key: whole(p.grad) for key, p in built.named_parameters() if p.grad is not None}
    figures = balanced.sums.metrics(ranks)
    names = ("routing/importance_cv2", "routing/load_cv2", "routing/dropped", "balance_loss")
    found["figures"] = torch.tensor([figures[key] for key in names], dtype=torch.float64)
    found["loss"] = ranks.sum(total)
    if twin is not None:
        refresh(twin, built)
        found["copied"] = torch.cat([parameter.detach().flatten() for parameter in twin.parameters()])
    return {key: tensor.detach().contiguous() for key, tensor in found.items()}


def main(out: Path) -> None:
    """One of the processes."""
    torch.set_num_threads(1)
    with joined("cpu") as ranks:
        for name in CASES:
            for way, (shard, experts) in WAYS.items():
                found = gradients(name, ranks, shard, experts)
                if ranks.first:
                    save_file(found, out / f"{name}-{way}.safetensors")
        uneven = Decoder(llama_config(11, 8, 1, 2, 10, 8, layout="mixtral", experts=ExpertsConfig(5, 2, 10)))
        with pytest.raises(UsageError, match="5 experts cannot be dealt evenly to 2 processes"):
            spread(uneven, ranks, True, experts=True)


def two(folder: Path) -> None:
    """This file as two processes that find each other."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    children = []
    for rank in range(2):
        own = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2, "MASTER_PORT": port}
        variables = {
            **os.environ,
            **{key: str(value) for key, value in own.items()},
            "MASTER_ADDR": "127.0.0.1",
        }
        variables |= {"PYTHONPATH": path, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
        log = (folder / f"log-{rank}").open("w+")
        words = [sys.executable, __file__, str(folder)]
        children.append((subprocess.Popen(words, env=variables, stdout=log, stderr=log), log))
    for child, log in children:
        code = child.wait(timeout=250)
        log.seek(0)
        said = log.read()
        log.close()
        assert code == 0, said


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with what two processes found."""
    out = tmp_path_factory.mktemp("shared")
    two(out)
    return out


@pytest.fixture(scope="module")
def alone() -> dict[str, dict[str, Tensor]]:
    """What one process finds; its micro-batches are as large as those of two together."""
    found = {}
    for name in CASES:
        built, ranks = model(name), ALONE
        options = with_options(MixtureConfig(), batch_size=5, block=8, token_budget=32).optimiser
        stream_N = torch.randint(0, 11, (200,), generator=torch.Generator().manual_seed(2))
        balanced, total = Balanced(Balance(0.5, 0.5), seed=3, step=4), torch.zeros((), dtype=torch.float64)
        for loss, _ in text_losses(
            built.train(), Text(stream_N, stream_N), options, Scoring(), seed=3, step=4, balanced=balanced
        ):
            loss.backward()
            total = total + loss.detach()
        found[name] = {key: p.grad for key, p in built.named_parameters() if p.grad is not None}
        figures = balanced.sums.metrics(ranks)
        names = ("routing/importance_cv2", "routing/load_cv2", "routing/dropped", "balance_loss")
        found[name]["figures"] = torch.tensor([figures[key] for key in names], dtype=torch.float64)
        found[name]["loss"] = total
    return found


@pytest.mark.parametrize("way", list(WAYS))
@pytest.mark.parametrize("name", list(CASES))
def test_two_processes_find_what_one_finds(shared: Path, alone, name: str, way: str) -> None:
    found, expected = load_file(shared / f"{name}-{way}.safetensors"), alone[name]
    if way != "whole":
        copied = torch.cat([parameter.detach().flatten() for parameter in model(name).parameters()])
        assert torch.equal(found.pop("copied"), copied)
    assert set(found) == set(expected)
    for key, tensor in expected.items():
        torch.testing.assert_close(
            found[key], tensor, rtol=1e-9, atol=1e-11, msg=lambda text, key=key: f"{key}: {text}"
        )
    if name == "capacity":
        assert expected["figures"][2] > 0


if __name__ == "__main__":
    main(Path(sys.argv[1]))
