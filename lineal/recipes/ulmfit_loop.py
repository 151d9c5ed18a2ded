"""The three stages of ulmfit."""

from __future__ import annotations

from typing import Any

from lineal.recipes import staged, ulmfit_classify, ulmfit_language
from lineal.recipes.config import ULMFiTConfig
from lineal.train.run import Run


def plan(config: ULMFiTConfig) -> list[str]:
    """What a run would do, without doing it."""
    return _stage(config).plan(config)


def _stage(config: ULMFiTConfig) -> Any:
    return ulmfit_classify if config.stage.stage == "classify" else ulmfit_language


def run(config: ULMFiTConfig, run: Run) -> None:
    """One stage; resumes by itself when the run folder holds a checkpoint."""
    with staged.alone("ulmfit", config.reader.device):
        staged.train(config.run, run, _stage(config).build(config, run))
