"""What every training loop does around its steps: place the model, save and restore it, write the final folder."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lineal.environments.text import Example, TextTask
from lineal.errors import CheckpointError, RunError
from lineal.models.decoder import Decoder
from lineal.models.hf import save_model
from lineal.models.hf.recurrent import save_recurrent
from lineal.models.lstm import RecurrentModel
from lineal.optim.groups import set_learning_rate
from lineal.optim.schedules import Schedule
from lineal.tokenizers import Tokenizer
from lineal.train.console import note
from lineal.train.device import Device, Shape, choose_device
from lineal.train.distributed import ALONE, Ranks
from lineal.train.evaluate import Evaluation
from lineal.train.optimizer import load_optimizer, optimizer_tensors
from lineal.train.run import Run
from lineal.train.sharding import alike, gathered, settle, spread_state

Optimisers = Mapping[str, torch.optim.Optimizer]


def place(
    module: Decoder | RecurrentModel, run: Run, options: Any, tokens: int, ranks: Ranks = ALONE
) -> Device:
    """Choose (or, on resume, reuse) device, dtype and threads, and put the module there.

    options: the recipe's ModelOptions. tokens: how many tokens one micro-batch holds, for the probe. ranks: the first
    process chooses for all.
    """
    return place_as(Shape(module.config.width, module.config.inner, tokens), module, run, options, ranks)


def place_as(shape: Shape, module: nn.Module, run: Run, options: Any, ranks: Ranks = ALONE) -> Device:
    """The same for any module, of which the caller says what takes most of its time."""
    choice = run.device
    if not choice and ranks.first:
        choice = choose_device(shape, options.device, options.dtype, options.threads).to_json()
    device = Device.from_json(ranks.tell(choice))
    if not run.device:
        run.record_device(device.to_json())
    device.apply()
    note(device.line())
    module.to(device.torch_device, torch.float64 if device.dtype == "float64" else torch.float32)
    return device


def autocast_dtype(device: Device) -> torch.dtype | None:
    """The dtype of autocast, or None when the weights' own dtype is used."""
    return torch.bfloat16 if device.dtype == "bfloat16" else None


def save(
    run: Run,
    step: int,
    module: nn.Module,
    optimisers: Optimisers,
    state: Mapping[str, Any],
    ranks: Ranks = ALONE,
) -> None:
    """Checkpoint a module, its optimisers by name, and the loop's own state; the file is the same for any `ranks`."""
    settle(module)
    tensors = {f"model/{name}": tensor for name, tensor in module.state_dict().items()}
    plain: dict[str, Any] = {}
    for name, optimiser in optimisers.items():
        parts, plain[name] = optimizer_tensors(optimiser, dict(module.named_parameters()))
        tensors |= {f"{name}/{key}": tensor for key, tensor in parts.items()}
    run.checkpoint(step, gathered(tensors, ranks), {"optimisers": plain, "loop": dict(state)})


def restore(
    run: Run, module: nn.Module, optimisers: Optimisers, ranks: Ranks = ALONE
) -> tuple[int, dict[str, Any]]:
    """Load the newest checkpoint into module and optimisers; returns (steps done, the loop's state)."""
    found = run.restore()
    seen = ranks.gather_json(found.step if found else 0)
    if len(set(seen)) > 1:
        raise RunError(
            f"{run.path}: the processes find checkpoints of different steps there ({seen}): the folder must be one that "
            "all of them see, on a shared disk."
        )
    if found is None:
        return 0, {}
    model = {name[len("model/") :]: t for name, t in found.tensors.items() if name.startswith("model/")}
    present = module.state_dict()
    _check_shapes(found.path, model, present)
    module.load_state_dict({name: alike(t, present[name]) for name, t in model.items()})
    for name, optimiser in optimisers.items():
        prefix = f"{name}/"
        parts = {key[len(prefix) :]: t for key, t in found.tensors.items() if key.startswith(prefix)}
        load_optimizer(optimiser, parts, found.state["optimisers"][name], dict(module.named_parameters()))
        spread_state(optimiser)
    note(f"continuing after step {found.step}")
    return found.step, found.state["loop"]


def _check_shapes(path: Path, saved: Mapping[str, Tensor], present: Mapping[str, Tensor]) -> None:
    """The model is built anew on resume, from files that may have changed meanwhile."""
    for name in sorted({*saved, *present}):
        shapes = [str(tuple(part[name].shape)) if name in part else "absent" for part in (saved, present)]
        if shapes[0] != shapes[1]:
            raise CheckpointError(
                f"{path} does not fit the model: {name} is {shapes[0]} in the checkpoint and {shapes[1]} in the model. "
                "The folder that --model named has changed since the run began: put it back."
            )


def log_final(run: Run, step: int, found: Evaluation) -> None:
    """Log the figures that count, a few of the worst and of the best answers with them, and say them on one line."""
    run.log(step, found.metrics() | {"eval/prompts": found.prompts, "eval/final": True})
    for record in found.records[:4] + found.records[-4:]:
        run.sample(step, {"kind": "eval", **record})
    note(f"step {step}: {found.line()}")


def finish(run: Run, decoder: Decoder | RecurrentModel, tokenizer: Tokenizer, card: str) -> None:
    """Write `final/`: the model in the Hugging Face layout, its tokenizer, and a model card."""
    with run.final_folder() as folder:
        write = save_recurrent if isinstance(decoder, RecurrentModel) else save_model
        write(decoder, folder, eos_id=tokenizer.eos_id, pad_id=tokenizer.pad_id, bos_id=tokenizer.bos_id)  # type: ignore[arg-type]
        tokenizer.save(folder)
        (folder / "README.md").write_text(card, encoding="utf-8")


def model_card(recipe: str, decoder: Decoder | RecurrentModel, facts: Mapping[str, Any]) -> str:
    """A model card with the front matter that hubs read."""
    library = "lineal" if decoder.config.layout.startswith("lineal") else "transformers"
    rows = "\n".join(f"| {name} | {value} |" for name, value in facts.items())
    size = sum(parameter.numel() for parameter in decoder.parameters())
    return (
        f"---\nlibrary_name: {library}\npipeline_tag: text-generation\ntags: [lineal, {recipe}]\n---\n"
        f"# A {decoder.config.layout} model trained by `lineal run {recipe}`\n\n{size:,} parameters.\n\n"
        f"| fact | value |\n|---|---|\n{rows}\n"
    )


def scheduled(schedule: Schedule, peak: float, step: int, optimiser: torch.optim.Optimizer) -> float:
    """Set the learning rate of a step (counted from 1) and return it."""
    rate = peak * schedule(step)
    set_learning_rate(optimiser, rate)
    return rate


def over(options: Any, started: float, tokens: int) -> bool:
    """Whether a run has used up its time or its tokens (the recipe's RunOptions; `started` by the monotonic clock)."""
    late = options.time_limit > 0 and time.monotonic() - started > options.time_limit
    return late or 0 < options.token_limit <= tokens


def evaluated(task: TextTask, options: Any, whole: bool) -> Sequence[Example]:
    """The prompts of an evaluation: the held-out ones first and last, validation ones in between or when asked for.

    At most `eval_prompts` (128 in between), spread evenly over the split, whose order may follow its contents.
    """
    between = bool(task.validation) and (not whole or options.eval_split == "validation")
    examples = task.validation if between else task.held_out
    count = min(len(examples), options.eval_prompts if whole else min(128, options.eval_prompts))
    return [examples[place * len(examples) // count] for place in range(count)]
