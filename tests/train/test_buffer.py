"""A rollout that survives a kill comes back as it was, bit for bit."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from lineal.train.buffer import load_experience, save_experience
from lineal.train.collect import Experience, to_rollout
from lineal.train.gathered import Gathered
from lineal.train.run import Run
from lineal.types import Completion


def experience() -> Experience:
    """Two groups of two completions, with awkward numbers."""
    answers = [
        [Completion((3, 1), (-0.1, -1e-30), "stop"), Completion((2,), (-7.25,), "length")],
        [Completion((5, 5, 5), (-1 / 3,) * 3, "length"), Completion((4,), (0.0,), "stop")],
    ]
    rollout = to_rollout(Gathered([], [[1, 2], [9]], answers, [], [[0.1, -0.0], [1e-20, 3.5]]), "cpu")
    records = [{"prompt": "é\ud7ff\n", "completions": ["a", "b"], "rewards": [0.1, -0.0], "answer": None}]
    return Experience(rollout, {"reward": 1 / 3, "tokens": 7.0}, records, 41)


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    made = experience()
    with Run.create(tmp_path / "run", {}) as run:
        save_experience(run, 3, made)
    with Run.open(tmp_path / "run") as run:
        found = load_experience(run, 3, torch.device("cpu"))
    assert found is not None and found.rollout is not None and made.rollout is not None
    assert (found.metrics, found.samples, found.position) == (made.metrics, made.samples, made.position)
    assert found.rollout.prompts == made.rollout.prompts
    for name, tensor in vars(made.rollout).items():
        other = vars(found.rollout)[name]
        if isinstance(tensor, torch.Tensor):
            assert torch.equal(tensor, other) and tensor.dtype == other.dtype, name
        else:
            assert tensor == other, name


def test_another_step_has_none(tmp_path: Path) -> None:
    with Run.create(tmp_path / "run", {}) as run:
        save_experience(run, 3, experience())
        assert load_experience(run, 4, torch.device("cpu")) is None
        save_experience(run, 4, experience())
        assert load_experience(run, 3, torch.device("cpu")) is None, "only the newest is kept"


def test_nothing_to_train_on_is_not_saved(tmp_path: Path) -> None:
    with Run.create(tmp_path / "run", {}) as run:
        save_experience(run, 3, Experience(None, {}, [], 5))
        assert load_experience(run, 3, torch.device("cpu")) is None
        assert not (run.path / "buffers").exists()


def test_a_damaged_one_is_sampled_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Run.create(tmp_path / "run", {}) as run:
        save_experience(run, 3, experience())
        file = run.path / "buffers" / "step-3" / "tensors.safetensors"
        file.write_bytes(file.read_bytes()[:-1])
        assert load_experience(run, 3, torch.device("cpu")) is None
    err = capsys.readouterr().err
    assert "tensors.safetensors" in err and "sampled again" in err
