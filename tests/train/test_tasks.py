"""From options to a task and its scorer."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lineal.environments.text import samples_of
from lineal.errors import DataError, UsageError
from lineal.recipes.config import DataOptions
from lineal.train.tasks import build_scorer, build_task


def written(path: Path, rows: list[dict]) -> str:
    """A JSONL file."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.fixture
def file(tmp_path: Path) -> str:
    """A hundred prompts with answers, under names of their own."""
    return written(tmp_path / "rows.jsonl", [{"ask": f"{i}?", "gold": str(i)} for i in range(100)])


def test_without_data_it_is_the_embedded_task() -> None:
    task = build_task(DataOptions(level=1))
    assert task.name == "arithmetic-1" and task.rewards == ("exact",)
    with pytest.raises(UsageError, match="--task chess is not known: arithmetic is; or give --data FILE"):
        build_task(DataOptions(task="chess"))


def test_a_file_is_split_by_its_prompts(file: str) -> None:
    task = build_task(DataOptions(data=file, prompt_field="ask", completion_field="gold", held_out=0.2))
    parts = [{e.prompt for e in part} for part in (task.train, task.validation, task.held_out)]
    assert sum(map(len, parts)) == 100 and all(parts) and not (parts[0] & parts[1] | parts[1] & parts[2])
    assert 60 <= len(parts[0]) <= 92
    assert task.train[0].completion == task.train[0].prompt[:-1] == task.train[0].columns["answer"]


def test_limit_and_bad_rows(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(
        '{"prompt": "a", "answer": "1"}\n{half\n{"prompt": "b", "answer": "2"}\n{"prompt": "c", "answer": "3"}\n'
    )
    with pytest.raises(DataError, match=r"rows.jsonl:2"):
        build_task(DataOptions(data=str(path)))
    task = build_task(DataOptions(data=str(path), on_bad_row="skip", held_out=0.0))
    assert [e.prompt for e in task.train] == ["a", "b", "c"]
    task = build_task(DataOptions(data=str(path), on_bad_row="skip", limit=1, held_out=0.0))
    assert [e.prompt for e in task.train] == ["a"]


def test_a_file_of_held_out_prompts_is_never_trained_on(tmp_path: Path) -> None:
    train = written(tmp_path / "train.jsonl", [{"prompt": f"p{i}", "answer": str(i)} for i in range(20)])
    test = written(tmp_path / "test.jsonl", [{"prompt": f"p{i}", "answer": str(i)} for i in range(0, 40, 4)])
    task = build_task(DataOptions(data=train, eval_data=test))
    assert [e.prompt for e in task.held_out] == [f"p{i}" for i in range(0, 40, 4)]
    asked = {e.prompt for e in (*task.train, *task.validation)}
    assert not asked & {e.prompt for e in task.held_out} and len(asked) == 15
    assert "left out" in task.notes[0]


def test_a_missing_field_is_named_with_its_remedy(file: str) -> None:
    with pytest.raises(DataError, match=r"rows.jsonl:1: no field 'prompt'; it has ask, gold.*--prompt-field"):
        build_task(DataOptions(data=file))
    with pytest.raises(DataError, match=r"no field 'answer'.*--completion-field"):
        build_task(DataOptions(data=file, prompt_field="ask", completion_field="answer"))


def scores(options: DataOptions, texts: list[str]) -> list[float]:
    """The rewards of completions of a task's first prompt."""
    task = build_task(options)
    scorer = build_scorer(options, task, max_new_tokens=4)
    ids = [list(range(len(text))) for text in texts]
    with scorer:
        found = scorer(samples_of([task.train[0]] * len(texts), texts, ids, ["stop"] * len(texts)))
    return list(found.rewards)


def test_rewards_are_the_task_s_own_unless_named(tmp_path: Path, file: str) -> None:
    answer = build_task(DataOptions(level=1)).train[0].completion
    assert scores(DataOptions(level=1), [answer, "x"]) == [1.0, 0.0]
    mine = tmp_path / "mine.py"
    mine.write_text("def size(completions, **_):\n    return [len(c) for c in completions]\n")
    options = DataOptions(level=1, reward=(f"{mine}:size", "exact"), reward_weights=(0.5, 2.0))
    assert scores(options, [answer, "xyz"]) == [0.5 * len(answer) + 2.0, 1.5]


def test_the_overlong_penalty_counts_from_the_cap() -> None:
    options = DataOptions(level=1, overlong_buffer=2)
    assert scores(options, ["ab", "abc", "abcd"]) == [0.0, -0.5, -1.0]
    with pytest.raises(UsageError, match="overlong buffer of 9 tokens"):
        scores(DataOptions(level=1, overlong_buffer=9), ["a"])


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (DataOptions(reward=("exactly",)), "exact"),
        (DataOptions(reward=("exact",), reward_weights=(1.0, 2.0)), "weight"),
        (DataOptions(on_reward_error="ignore"), "--on-reward-error ignore is not one of stop, zero, drop"),
    ],
)
def test_rewards_that_cannot_be(options: DataOptions, reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        build_scorer(options, build_task(DataOptions(level=1)), 4)
