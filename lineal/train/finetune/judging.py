"""A fine-tuned model on the rows that it is judged by, and which of them the report shows."""

from __future__ import annotations

import torch
from torch import Tensor

from lineal.train.finetune.answers import Answers, answers
from lineal.train.finetune.predictor import Predictor
from lineal.train.finetune.scores import Agreement, Scores, agreement, scores
from lineal.train.finetune.tasks import Labelled, LabelledTask

SHOWN = 8
"""Rows told wrong, and told right, that the report shows."""


def judge(predictor: Predictor, task: LabelledTask) -> tuple[Scores | Agreement | Answers, list[dict]]:
    """The scores on the rows to evaluate on, and a few of them as the report shows them."""
    if task.kind == "span":
        said = [found.answer or "" for found in predictor([row.texts for row in task.held])]
        return answers(said, [row.gold for row in task.held]), _shown_answers(task, said)
    raw_MC = predictor.raw(predictor.encode([row.texts for row in task.held]))
    right = [x for row in task.held for x in (row.target if isinstance(row.target, tuple) else (row.target,))]
    target_M = torch.tensor(right, dtype=torch.float64)
    if not task.labels:
        return agreement(task.mean + task.spread * raw_MC[:, 0].double(), target_M), []
    found = scores(raw_MC.double().softmax(-1), target_M.long(), task.labels)
    return found, [] if task.kind == "tagging" else shown(task, raw_MC)


def _shown_answers(task: LabelledTask, said: list[str]) -> list[dict]:
    """The first answers, with their right ones."""
    return [
        {
            "prompt": row.texts[0], "completions": [text], "rewards": [answers([text], [row.gold]).f1],
            "answer": row.gold[0],
        }
        for row, text in list(zip(task.held, said, strict=True))[: 2 * SHOWN]
    ]  # fmt: skip


def shown(task: LabelledTask, raw_BC: Tensor) -> list[dict]:
    """The surest of the wrong rows and of the right ones."""
    confidence_B, said_B = raw_BC.softmax(-1).max(-1)
    order = sorted(range(len(task.held)), key=lambda i: -confidence_B[i].item())
    right = [i for i in order if said_B[i] == task.held[i].target]
    wrong = [i for i in order if said_B[i] != task.held[i].target]
    return [_record(task, task.held[i], int(said_B[i])) for i in wrong[:SHOWN] + right[:SHOWN]]


def _record(task: LabelledTask, row: Labelled, said: int) -> dict:
    assert not isinstance(row.target, tuple)
    gold = int(row.target)
    return {
        "prompt": "\n".join(row.texts),
        "completions": [task.labels[said]],
        "rewards": [float(said == gold)],
        "answer": task.labels[gold],
    }
