"""A complete rollout with its rewards on disk, so that a kill during its update does not sample or score it again."""

from __future__ import annotations

import torch

from lineal.train.collect import Experience, on_device
from lineal.train.run import Run
from lineal.types import Rollout


def save_experience(run: Run, step: int, experience: Experience) -> None:
    """Keep one step's experience in the run folder until the next checkpoint."""
    if experience.rollout is None:
        return
    tensors = {name: x for name, x in vars(experience.rollout).items() if isinstance(x, torch.Tensor)}
    state = {
        "prompts": [list(prompt) for prompt in experience.rollout.prompts],
        "metrics": experience.metrics,
        "samples": experience.samples,
        "position": experience.position,
    }
    run.save_buffer(step, tensors, state)


def load_experience(run: Run, step: int, device: torch.device) -> Experience | None:
    """The experience that was saved for this step, or None."""
    found = run.load_buffer(step)
    if found is None:
        return None
    prompts = tuple(tuple(prompt) for prompt in found.state["prompts"])
    rollout = on_device(Rollout(**found.tensors, prompts=prompts), device)  # type: ignore[arg-type]
    return Experience(rollout, found.state["metrics"], found.state["samples"], found.state["position"])
