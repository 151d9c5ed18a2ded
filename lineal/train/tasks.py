"""From options to a task: the embedded one, or the rows of a file, with their rewards and chat template."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lineal.environments.arithmetic import arithmetic_task
from lineal.environments.chat import load_chat_template
from lineal.environments.rewards import parse_rewards
from lineal.environments.scoring import Scorer
from lineal.environments.shaping import SoftOverlong
from lineal.environments.text import Fields, Template, TextTask, text_task
from lineal.environments.worker import Limits
from lineal.errors import UsageError
from lineal.train.build import model_folder
from lineal.train.data import read_rows

if TYPE_CHECKING:
    from lineal.train.options import DataOptions, ModelOptions


def read_task(data: DataOptions, model: ModelOptions) -> TextTask:
    """The task that a run's options name, its messages rendered with the model's chat template if --chat says so."""
    if not model.chat:
        return build_task(data)
    if model.model is None:
        raise UsageError("--chat needs --model: a fresh model has no chat template.")
    template = load_chat_template(model_folder(model.model))
    try:
        return build_task(data, template)
    finally:
        template.close()


def build_task(options: DataOptions, template: Template | None = None) -> TextTask:
    """The task that the options name."""
    if options.data is None:
        if options.task != "arithmetic":
            raise UsageError(f"--task {options.task} is not known: arithmetic is; or give --data FILE.")
        return arithmetic_task(options.level)
    rows = read_rows(options.data, limit=options.limit, on_bad_row=options.on_bad_row)
    held = None
    if options.eval_data is not None:
        held = read_rows(options.eval_data, on_bad_row=options.on_bad_row).rows
    return text_task(
        rows.rows,
        name=options.data,
        fields=Fields(options.prompt_field, options.completion_field),
        held_out=options.held_out,
        held_out_rows=held,
        template=template,
        where=rows.places,
    )


def build_scorer(options: DataOptions, task: TextTask, max_new_tokens: int) -> Scorer:
    """The scorer of the rewards that the options (or the task) name."""
    rewards = parse_rewards(options.reward or task.rewards, options.reward_weights)
    overlong = SoftOverlong(max_new_tokens, options.overlong_buffer) if options.overlong_buffer else None
    limits = Limits(seconds=options.reward_timeout)
    return Scorer(rewards, on_error=options.on_reward_error, overlong=overlong, limits=limits)


def longest_completion(task: TextTask, asked: int | None) -> int:
    """Most tokens of a completion: what was asked for, else what the task needs, else 256."""
    return asked or task.max_new_tokens or 256
