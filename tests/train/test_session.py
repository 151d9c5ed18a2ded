"""What every loop does around its steps: placing, saving, restoring, stopping, and the model card."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from lineal.environments.arithmetic import arithmetic_task
from lineal.errors import CheckpointError
from lineal.models.decoder import Decoder, llama_config
from lineal.models.hf import load_model
from lineal.models.policy import ActorCritic
from lineal.optim.groups import adamw
from lineal.recipes.config import ModelOptions, RunOptions
from lineal.tokenizers import CharTokenizer, load_tokenizer
from lineal.train.run import Run
from lineal.train.session import (
    autocast_dtype,
    evaluated,
    finish,
    model_card,
    over,
    place,
    restore,
    save,
    scheduled,
)

OPTIONS = ModelOptions(dtype="float32", device="cpu", threads=1)


def policy(seed: int = 0) -> ActorCritic:
    """A tiny actor and critic."""
    return ActorCritic(Decoder(llama_config(16, 16, 1, 2, 32, 16)).initialise(seed), "head")


def optimiser(module: ActorCritic, rate: float = 1e-2) -> torch.optim.Optimizer:
    """AdamW that has taken two steps."""
    made = adamw(dict(module.named_parameters()), rate)
    for _ in range(2):
        for parameter in module.parameters():
            parameter.grad = torch.randn(
                parameter.shape, generator=torch.Generator().manual_seed(parameter.numel())
            )
        made.step()
    return made


def test_what_is_saved_is_restored_bit_for_bit(tmp_path: Path) -> None:
    module = policy()
    taken = {"policy": optimiser(module)}
    with Run.create(tmp_path / "run", {}) as run:
        save(run, 5, module, taken, {"position": 7})
    other = policy(1)
    fresh = {"policy": adamw(dict(other.named_parameters()), 1.0)}
    with Run.open(tmp_path / "run") as run:
        assert restore(run, other, fresh) == (5, {"position": 7})
    for name, tensor in module.state_dict().items():
        assert torch.equal(tensor, other.state_dict()[name]), name
    for one, two in zip(module.parameters(), other.parameters(), strict=True):
        states = taken["policy"].state[one], fresh["policy"].state[two]
        assert states[0].keys() == states[1].keys() and states[0]
        assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    assert fresh["policy"].param_groups[0]["lr"] == 1e-2


def test_a_new_run_has_nothing_to_restore(tmp_path: Path) -> None:
    module = policy()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    with Run.create(tmp_path / "run", {}) as run:
        assert restore(run, module, {}) == (0, {})
    assert all(torch.equal(tensor, module.state_dict()[name]) for name, tensor in before.items())


def test_a_checkpoint_of_another_shape_is_refused(tmp_path: Path) -> None:
    """Never half loaded: the run's own options build the same model, so this is a changed folder."""
    with Run.create(tmp_path / "run", {}) as run:
        save(run, 1, policy(), {}, {})
        bigger = ActorCritic(Decoder(llama_config(16, 32, 1, 2, 32, 16)), "head")
        with pytest.raises(CheckpointError, match=r"is \(16, 16\) in the checkpoint and \(32, 32\) in the"):
            restore(run, bigger, {})


def test_the_device_is_chosen_once_and_then_kept(tmp_path: Path) -> None:
    threads = torch.get_num_threads()
    try:
        with Run.create(tmp_path / "run", {}) as run:
            chosen = place(Decoder(llama_config(16, 16, 1, 2, 32, 16)), run, OPTIONS, 64)
            assert (chosen.kind, chosen.dtype, chosen.threads) == ("cpu", "float32", 1)
        with Run.open(tmp_path / "run") as run:
            again = place(policy().decoder, run, replace(OPTIONS, dtype="float64", threads=7), 64)
        assert again == chosen, "a resumed run computes as it began, whatever is asked for now"
        assert json.loads((tmp_path / "run" / "config.json").read_text())["device"]["dtype"] == "float32"
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
def test_the_weights_stay_wide_and_autocast_is_bfloat16_s(tmp_path: Path, dtype: str) -> None:
    threads = torch.get_num_threads()
    try:
        with Run.create(tmp_path / "run", {}) as run:
            decoder = policy().decoder
            chosen = place(decoder, run, replace(OPTIONS, dtype=dtype), 64)
        assert decoder.dtype == (torch.float64 if dtype == "float64" else torch.float32)
        assert autocast_dtype(chosen) == (torch.bfloat16 if dtype == "bfloat16" else None)
    finally:
        torch.set_num_threads(threads)


def test_the_final_folder_is_a_model_folder(tmp_path: Path) -> None:
    tokenizer = CharTokenizer.train("0123456789+=")
    decoder = Decoder(llama_config(tokenizer.vocab_size, 16, 1, 2, 32, 16)).initialise(0)
    with Run.create(tmp_path / "run", {}) as run:
        finish(
            run, decoder, tokenizer, model_card("grpo", decoder, {"steps": 3, "held-out accuracy": "0.900"})
        )
    loaded, config = load_model(run.final)
    assert config == decoder.config
    assert all(torch.equal(a, b) for a, b in zip(loaded.parameters(), decoder.parameters(), strict=True))
    assert load_tokenizer(run.final).encode("1+2=") == tokenizer.encode("1+2=")
    assert load_file(run.final / "model.safetensors")
    card = (run.final / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: transformers\n") and "| held-out accuracy | 0.900 |" in card
    assert f"{sum(p.numel() for p in decoder.parameters()):,} parameters" in card


def test_the_learning_rate_follows_its_schedule_and_its_groups() -> None:
    made = optimiser(policy())
    made.param_groups[0]["scale"] = 0.5
    assert scheduled(lambda step: 1 / (step + 1), 0.2, 1, made) == pytest.approx(0.1)
    assert [group["lr"] for group in made.param_groups] == [pytest.approx(0.05), pytest.approx(0.1)]


def test_a_run_is_over_by_its_clock_or_its_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lineal.train.session.time.monotonic", lambda: 100.0)
    assert not over(RunOptions(), 0.0, 10**9)
    assert over(RunOptions(time_limit=99.0), 0.0, 0) and not over(RunOptions(time_limit=101.0), 0.0, 0)
    assert over(RunOptions(token_limit=10), 99.0, 10) and not over(RunOptions(token_limit=10), 99.0, 9)


def test_the_figures_that_count_are_on_prompts_nobody_looked_at() -> None:
    task = arithmetic_task(1)
    assert tuple(evaluated(task, RunOptions(), whole=True)) == task.held_out
    assert tuple(evaluated(task, RunOptions(), whole=False)) == task.validation
    assert tuple(evaluated(task, RunOptions(eval_split="validation"), whole=True)) == task.validation
    assert tuple(evaluated(replace(task, validation=()), RunOptions(), whole=False)) == task.held_out


def test_an_evaluation_spreads_over_the_whole_split() -> None:
    task = arithmetic_task(2)
    some = evaluated(task, RunOptions(eval_prompts=100), whole=True)
    assert len(some) == 100 and len({example.prompt for example in some}) == 100
    assert {example.columns["operator"] for example in some} == {"+", "-"}
    assert all(example in task.held_out for example in some)
