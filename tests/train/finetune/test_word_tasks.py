"""Rows whose words have labels, and questions whose answers stand in a context: read, or named with their line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lineal.errors import DataError, ModelError, UsageError
from lineal.models.bert import Bert, BertConfig
from lineal.models.hf.bert import save_bert
from lineal.tokenizers import CharTokenizer
from lineal.tokenizers.training import Learning, train
from lineal.train.finetune.bodies import BODIES, class_marks, family_of
from lineal.train.finetune.inputs import ClassMarks, lay_out, micro_batches, places, sequences
from lineal.train.finetune.options import TaskOptions
from lineal.train.finetune.tasks import LabelledTask, read_task

TAGGED = [{"text": ["a", "b"], "label": ["X", "Y"]}, {"text": "c d", "label": ["Y", "Y"]}]
ASKED = [
    {"text": "who?", "second": "it was Ann, not Bo.", "label": "Ann"},
    {"text": "who?", "second": "Bo and Bo", "label": {"text": ["Bo", "and Bo"], "answer_start": [7, 3]}},
]


def read(tmp_path: Path, task: str, *rows: dict) -> LabelledTask:
    """The task of these rows, which are trained on and judged by alike."""
    path = tmp_path / "d.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return read_task(TaskOptions(task=task, data=str(path), eval_data=str(path)))


def test_words_have_a_class_each(tmp_path: Path) -> None:
    task = read(tmp_path, "tagging", *TAGGED)
    assert (task.labels, task.outputs) == (("X", "Y"), 2)
    assert [(row.texts, row.target) for row in task.train] == [(("a", "b"), (0, 1)), (("c", "d"), (1, 1))]


def test_an_answer_is_a_stretch_of_its_context(tmp_path: Path) -> None:
    task = read(tmp_path, "span", *ASKED)
    assert (task.labels, task.outputs) == ((), 2)
    assert [row.target for row in task.train] == [(7, 10), (7, 9)]
    assert [row.gold for row in task.train] == [("Ann",), ("Bo", "and Bo")]


@pytest.mark.parametrize(
    ("task", "row", "message"),
    [
        ("tagging", {"text": ["a", "b"], "label": ["X"]}, "1 labels for 2 words"),
        ("tagging", {"text": ["a", ""], "label": ["X", "Y"]}, "'text' must be a list of words"),
        ("tagging", {"text": [], "label": []}, "'text' must be a list of words"),
        ("tagging", {"text": ["a"], "label": None}, "'label' must be a list of words"),
        (
            "span",
            {"text": "who?", "second": "it was Ann", "label": "Bo"},
            "the answer 'Bo' is not in its context",
        ),
        (
            "span",
            {"text": "who?", "second": "Bo", "label": {"text": [], "answer_start": []}},
            "must be a text, or",
        ),
        ("span", {"text": "who?", "second": "Bo", "label": " "}, "must be a text, or"),
        (
            "span",
            {"text": "who?", "second": "Bo and", "label": {"text": ["Bo"], "answer_start": [3]}},
            "the answer 'Bo' is not in its context at character 3",
        ),
        ("span", {"text": "who?", "label": "Bo"}, "there is no field 'second'"),
    ],
)
def test_rows_that_do_not_fit_are_named(task: str, row: dict, message: str, tmp_path: Path) -> None:
    good = TAGGED if task == "tagging" else ASKED
    with pytest.raises(DataError, match=r"d\.jsonl:3: .*") as caught:
        read(tmp_path, task, *good, row)
    assert message in str(caught.value)


def test_a_tag_that_is_only_judged_by_is_named(tmp_path: Path) -> None:
    path, other = tmp_path / "d.jsonl", tmp_path / "e.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in TAGGED))
    other.write_text(json.dumps({"text": ["a"], "label": ["Z"]}) + "\n")
    with pytest.raises(DataError, match=r"e\.jsonl:1: the label 'Z' is in no row to train on"):
        read_task(TaskOptions(task="tagging", data=str(path), eval_data=str(other)))
    with pytest.raises(DataError, match="have the label 'Y': with one class"):
        read(tmp_path, "tagging", {"text": ["a"], "label": ["Y"]})


MARKS = ClassMarks(cls=101, sep=102)


def test_berts_pairs_have_two_segments() -> None:
    (pair,) = sequences("pair", [[1, 2], [3]], MARKS, 20)
    assert pair.ids == [101, 1, 2, 102, 3, 102]
    inputs = lay_out([[pair], sequences("classification", [[7]], MARKS, 20)])
    assert inputs.segment_NT.tolist() == [[0, 0, 0, 0, 1, 1], [0] * 6]
    assert inputs.last_N.tolist() == [5, 2]
    both = sequences("similarity", [[1, 2], [3]], MARKS, 20)
    assert [framed.ids for framed in both] == [pair.ids, [101, 3, 102, 1, 2, 102]]


def test_rows_of_several_sequences_keep_to_the_budget() -> None:
    rows = [sequences("tagging", [[5]] * count, MARKS, 8) for count in (3, 20, 9, 6)]
    groups = micro_batches(rows, 30)
    assert sorted(i for group in groups for i in group) == [0, 1, 2, 3]
    for group in groups:
        inputs = lay_out([rows[i] for i in group])
        assert len(group) == 1 or inputs.token_NT.numel() <= 30
        assert int(inputs.read_NT.sum()) == sum((3, 20, 9, 6)[i] for i in group)


def test_places_need_a_tokenizer_that_knows_them() -> None:
    tokenizer = train("wordpiece", texts=["it was ann"] * 5, learning=Learning(vocab_size=60))
    ids, found = places(tokenizer, "It was Ann")
    assert ids == tokenizer.encode("It was Ann")
    assert found[0][0] == 0 and found[-1][1] == 10
    with pytest.raises(UsageError, match="a CharTokenizer does not"):
        places(CharTokenizer.train("ab"), "ab")


def folder_of(tmp_path: Path, vocab_size: int, kind: str = "wordpiece") -> Path:
    """A BERT folder with a tokenizer."""
    tokenizer = train(kind, texts=["it was ann"] * 5, learning=Learning(vocab_size=290))
    save_bert(
        Bert(BertConfig(vocab_size, width=8, inner=8, heads=2, layers=1, context=16)).initialise(0), tmp_path
    )
    tokenizer.save(tmp_path)
    return tmp_path


def test_a_bert_folder_is_an_encoder(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, 300)
    assert family_of(folder) == "encoder"
    body, tokenizer, marks = BODIES["encoder"].prepare(folder, folder, False, 0)
    assert (marks, body.vocab_size, body.auxiliary) == (ClassMarks(2, 3), 300, 0.0)
    fresh, _, _ = BODIES["encoder"].prepare(folder, folder, True, 1)
    one, other = (dict(part.named_parameters())["encoder.embedding.weight"] for part in (body, fresh))
    assert one.shape == other.shape and not one.equal(other)
    assert class_marks(tokenizer, "") == marks


def test_a_vocabulary_of_another_model_is_named(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, 10)
    with pytest.raises(ModelError, match=r"tokens and the model of .* 10: the vocabulary is another model's"):
        BODIES["encoder"].prepare(folder, folder, False, 0)
    (tmp_path / "b").mkdir()
    plain = folder_of(tmp_path / "b", 400, "bpe")
    with pytest.raises(ModelError, match=r"has no \[CLS\] or no \[SEP\]"):
        BODIES["encoder"].prepare(plain, plain, False, 0)
