"""Rows become examples, a hash splits them, and no prompt is on two sides."""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lineal.environments.text import Example, Fields, encode_prompts, samples_of, share, text_task
from lineal.errors import DataError, UsageError

ROWS = [
    {"prompt": f"question {n}", "answer": str(n), "kind": "even" if n % 2 == 0 else "odd"} for n in range(400)
]
CHAT = [
    {"messages": [{"role": "user", "content": f"q{n}"}, {"role": "assistant", "content": f"a{n}"}]}
    for n in range(20)
]


class Plain:
    """A template that writes role and content."""

    def render(self, conversations: Sequence[Sequence[Mapping[str, Any]]]) -> list[str]:
        return ["".join(f"<{m['role']}>{m['content']}" for m in c) + "<assistant>" for c in conversations]


def prompts(examples: Sequence[Example]) -> list[str]:
    return [example.prompt for example in examples]


def test_rows_become_examples_with_their_columns() -> None:
    example = text_task(ROWS[:1], held_out=0.0).train[0]
    assert example == Example("question 0", {"answer": "0", "kind": "even"}, "0")


def test_shares_are_about_what_was_asked_and_stopping_prompts_are_apart() -> None:
    task = text_task(ROWS, held_out=0.2)
    assert len(task.train) + len(task.validation) + len(task.held_out) == 400
    assert 40 < len(task.held_out) < 85 and 8 < len(task.validation) < 35


@given(st.lists(st.text(max_size=3), min_size=3, max_size=40), st.floats(0.0, 0.9))
def test_no_prompt_is_on_two_sides_and_none_is_lost(texts: list[str], held_out: float) -> None:
    rows = [{"prompt": text, "answer": str(n)} for n, text in enumerate(texts)]
    try:
        task = text_task(rows, held_out=held_out)
    except DataError:
        return
    sides = [set(prompts(part)) for part in (task.train, task.validation, task.held_out)]
    assert not (sides[0] & sides[1] or sides[0] & sides[2] or sides[1] & sides[2])
    everything = [*task.train, *task.validation, *task.held_out]
    assert sorted(e.completion for e in everything) == sorted(str(n) for n in range(len(texts)))
    if held_out > 0 and len(set(texts)) >= 3:
        assert task.held_out and task.validation


def test_the_split_does_not_depend_on_the_order_of_rows_or_on_other_rows() -> None:
    whole, half = text_task(ROWS), text_task(ROWS[::-1][:300])
    assert set(prompts(half.held_out)) == set(prompts(whole.held_out)) & {r["prompt"] for r in ROWS[100:]}


@given(st.text(), st.text())
def test_share_is_a_function_of_the_text(a: str, b: str) -> None:
    assert 0.0 <= share(a) < 1.0
    assert (share(a) == share(b)) == (a == b)


def test_a_separate_file_is_held_out_and_its_prompts_are_not_trained_on() -> None:
    task = text_task(ROWS[:100], held_out_rows=ROWS[90:120])
    assert prompts(task.held_out) == [row["prompt"] for row in ROWS[90:120]]
    assert not set(prompts(task.held_out)) & set(prompts((*task.train, *task.validation)))
    assert len(task.train) + len(task.validation) == 90
    assert task.notes == ("10 of 100 training rows have a prompt that is also held out: they are left out.",)
    assert text_task(ROWS[:100], held_out_rows=ROWS[200:]).notes == ()


def test_fields_have_other_names() -> None:
    rows = [{"context": "1+1=", "continuation": "2"}]
    example = text_task(rows, fields=Fields("context", "continuation"), held_out=0.0).train[0]
    assert (example.prompt, example.completion) == ("1+1=", "2")
    assert example.columns == {"continuation": "2", "answer": "2"}


def test_a_row_keeps_its_own_answer_beside_its_completion() -> None:
    rows = [{"prompt": "q", "solution": "because\n#### 4", "answer": 4}]
    example = text_task(rows, fields=Fields(completion="solution"), held_out=0.0).train[0]
    assert example.completion == "because\n#### 4" and example.columns["answer"] == 4


def test_rows_without_a_gold_answer_have_none() -> None:
    example = text_task([{"prompt": "q", "nums": [1, 2]}], held_out=0.0).train[0]
    assert example == Example("q", {"nums": [1, 2]}, "")


def test_messages_are_rendered_and_the_last_assistant_turn_is_the_answer() -> None:
    task = text_task(CHAT, template=Plain(), held_out=0.0)
    assert task.train[3].prompt == "<user>q3<assistant>"
    assert task.train[3].completion == "a3" and task.train[3].columns["answer"] == "a3"
    assert task.train[3].messages == ({"role": "user", "content": "q3"},)


def test_an_own_answer_column_beside_messages_is_kept() -> None:
    row = {**CHAT[0], "answer": 7}
    example = text_task([row], template=Plain(), held_out=0.0).train[0]
    assert example.completion == "a0" and example.columns["answer"] == 7


def test_a_prompt_may_be_a_list_of_messages_and_its_completion_too() -> None:
    row = {
        "prompt": [{"role": "user", "content": "q"}],
        "completion": [{"role": "assistant", "content": "a"}],
    }
    example = text_task([row], template=Plain(), held_out=0.0).train[0]
    assert (example.prompt, example.completion, example.columns["answer"]) == ("<user>q<assistant>", "a", "a")


def test_text_prompts_become_one_user_turn_under_a_template_but_stay_text_for_rewards() -> None:
    example = text_task(ROWS[:1], template=Plain(), held_out=0.0).train[0]
    assert example.prompt == "<user>question 0<assistant>" and example.messages is None


def test_a_template_moves_no_prompt_to_another_side() -> None:
    class Shouting(Plain):
        def render(self, conversations: Sequence[Sequence[Mapping[str, Any]]]) -> list[str]:
            return [text.upper() for text in super().render(conversations)]

    plain, loud = text_task(ROWS, template=Plain()), text_task(ROWS, template=Shouting())
    assert [p.upper() for p in prompts(plain.held_out)] == prompts(loud.held_out)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (
            {"question": "q"},
            "f.jsonl:1: no field 'prompt'; it has question. Name the prompt's with --prompt-field",
        ),
        ({}, "it has none"),
        ({"prompt": 3}, "'prompt' is a int; a prompt is text or a list of messages"),
        ({"prompt": None}, "'prompt' is a NoneType"),
        ({"prompt": []}, "'prompt' is an empty list"),
        ({"prompt": ["hello"]}, "has no role and content: 'hello'"),
        ({"messages": [{"role": "assistant", "content": "a"}]}, "no message before the assistant's"),
        ({"prompt": "q", "answer": {"a": 1}}, "the answer 'answer' is a dict"),
    ],
)
def test_a_row_that_cannot_be_used_is_named(row: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError) as caught:
        text_task([row], where=["f.jsonl:1"])
    assert message in str(caught.value) and str(caught.value).startswith("f.jsonl:1: ")


def test_a_missing_completion_field_is_named() -> None:
    with pytest.raises(DataError, match="row 1: no field 'gold'; it has prompt, answer, kind"):
        text_task(ROWS, fields=Fields(completion="gold"))


def test_messages_without_a_template_say_what_to_do() -> None:
    with pytest.raises(UsageError, match=r"row 1: 'messages' is a list of messages.*add --chat"):
        text_task(CHAT)


@pytest.mark.parametrize("held_out", [-0.1, 1.0, float("nan")])
def test_a_share_that_is_none_is_refused(held_out: float) -> None:
    with pytest.raises(UsageError, match="--held-out"):
        text_task(ROWS, held_out=held_out)


def test_nothing_to_train_on_is_an_error() -> None:
    with pytest.raises(DataError, match="no rows"):
        text_task([])
    with pytest.raises(DataError, match="has no rows"):
        text_task(ROWS, held_out_rows=[])
    with pytest.raises(DataError, match="leaves no prompt to train on"):
        text_task(ROWS[:5], held_out_rows=ROWS[:5])


class Letters:
    def encode(self, text: str, *, special: bool = False) -> list[int]:
        """Code points; with `special`, § stands for the first token."""
        return [0 if special and char == "§" else ord(char) for char in text]

    def encode_prompt(self, text: str) -> list[int]:
        """The same: letters have no first token."""
        return self.encode(text)


def test_prompts_are_encoded_and_must_fit_the_context() -> None:
    examples = [Example("ab"), Example("abc")]
    assert encode_prompts(examples, Letters()) == [[97, 98], [97, 98, 99]]
    assert encode_prompts(examples, Letters(), context=8, room=5) == [[97, 98], [97, 98, 99]]
    with pytest.raises(DataError, match=r"'abc' has 3 tokens and 6 more are to be sampled.*context is 8"):
        encode_prompts(examples, Letters(), context=8, room=6)
    with pytest.raises(DataError, match="has no tokens"):
        encode_prompts([Example("")], Letters())


def test_only_what_a_template_wrote_holds_special_tokens() -> None:
    assert encode_prompts([Example("§a"), Example("§a", rendered=True)], Letters()) == [[167, 97], [0, 97]]


def test_samples_repeat_columns_and_show_chat_data_as_messages() -> None:
    plain, chat = (
        text_task(ROWS[:1], held_out=0.0).train[0],
        text_task(CHAT[:1], template=Plain(), held_out=0.0).train[0],
    )
    samples = samples_of([plain, plain, chat], ["x", "y", "z"], [[1], [2], [3]], ["stop", "stop", "length"])
    assert samples.prompts == ["question 0", "question 0", [{"role": "user", "content": "q0"}]]
    assert samples.completions == ["x", "y", [{"role": "assistant", "content": "z"}]]
    assert samples.columns == {"answer": ["0", "0", "a0"], "kind": ["even", "even", None]}
    assert samples.one(1).arguments() == {
        "prompts": ["question 0"],
        "completions": ["y"],
        "completion_ids": [[2]],
        "answer": ["0"],
        "kind": ["even"],
        "finish": ["stop"],
    }


def test_public_question_sets_split_cleanly(data: Path) -> None:
    with gzip.open(data / "gsm8k" / "train.jsonl.gz", "rt") as lines:
        rows = [json.loads(line) for line in lines]
    task = text_task(rows, fields=Fields("question"))
    assert 0.06 < len(task.held_out) / len(rows) < 0.09 and 0.015 < len(task.validation) / len(rows) < 0.035
    assert all(example.completion == example.columns["answer"] for example in task.train)
