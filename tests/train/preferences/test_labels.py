from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from lineal.environments.preferences.records import TEXTS, Label, Pair
from lineal.errors import DataError, RunError
from lineal.train.preferences.labels import Answers, LabelStore, PairWriter, export_texts

PAIRS = [Pair("a", "b"), Pair("c", "d"), Pair("better", "worse", TEXTS, "Say it.")]


def ask(folder: Path, pairs=PAIRS) -> None:
    with PairWriter(folder) as writer:
        writer.add(pairs)


def test_what_was_said_is_there_for_the_next_one(tmp_path):
    ask(tmp_path)
    with LabelStore(tmp_path) as store:
        store.add(Label(PAIRS[0].id, 1.0, "anna"))
        store.add(Label(PAIRS[2].id, 0.0, "anna"))
        assert [pair.id for pair in store.open_pairs] == [PAIRS[1].id]
    again = Answers(tmp_path)
    assert [(label.pair, label.preference) for label in again.labels] == [
        (PAIRS[0].id, 1.0),
        (PAIRS[2].id, 0.0),
    ]


def test_a_reader_follows_the_writer(tmp_path):
    reader = Answers(tmp_path)
    assert reader.labels == []
    ask(tmp_path)
    with LabelStore(tmp_path) as store:
        for pair in PAIRS:
            store.add(Label(pair.id, 0.5))
            assert reader.refresh() == 1
        assert reader.labels == store.labels
        ask(tmp_path, [Pair("e", "f")])
        store.add(Label(Pair("e", "f").id, None))
        assert reader.refresh() == 1 and reader.labels[-1].preference is None


def test_asking_again_changes_nothing(tmp_path):
    ask(tmp_path)
    before = (tmp_path / "pairs.jsonl").read_bytes()
    with PairWriter(tmp_path) as writer:
        assert writer.add([Pair("a", "b", step=99), *PAIRS]) == 0
        assert writer.add([Pair("b", "a")]) == 1
    assert (tmp_path / "pairs.jsonl").read_bytes().startswith(before)


def test_a_torn_last_line_is_cut_off_and_the_rest_is_kept(tmp_path, capsys):
    ask(tmp_path)
    with LabelStore(tmp_path) as store:
        store.add(Label(PAIRS[0].id, 1.0))
    whole = (tmp_path / "labels.jsonl").read_bytes()
    line = json.dumps(Label(PAIRS[1].id, 1.0).to_json()).encode()
    for size in (1, len(line) // 2, len(line)):
        (tmp_path / "labels.jsonl").write_bytes(whole + line[:size])
        assert len(Answers(tmp_path).labels) == 1, "a reader leaves it alone"
        with LabelStore(tmp_path) as store:
            assert len(store.labels) == 1
            store.add(Label(PAIRS[1].id, 0.0))
        assert "torn" in capsys.readouterr().err
        assert [label.preference for label in Answers(tmp_path).labels] == [1.0, 0.0]


def test_a_torn_question_is_cut_off_too(tmp_path, capsys):
    ask(tmp_path)
    with open(tmp_path / "pairs.jsonl", "ab") as file:
        file.write(b'{"pair": "x')
    assert len(Answers(tmp_path).pairs) == 3
    ask(tmp_path, [Pair("e", "f")])
    assert "torn" in capsys.readouterr().err and len(Answers(tmp_path).pairs) == 4


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ('{"pair": "nobody-asked", "preference": 1.0}', "unknown"),
        ('{"pair": "x", "preference": 2}', "probability"),
        ("no json", "not JSON"),
        ("[1]", "one object"),
        ('{"preference": 1}', "lacks"),
    ],
)
def test_a_line_that_cannot_count_is_named_by_file_and_line(tmp_path, line, why):
    ask(tmp_path)
    (tmp_path / "labels.jsonl").write_text(json.dumps(Label(PAIRS[0].id, 1.0).to_json()) + "\n" + line + "\n")
    with pytest.raises(DataError, match=rf"labels.jsonl:2.*{why}"):
        Answers(tmp_path)


def test_a_label_of_an_unknown_pair_is_refused_and_nothing_is_written(tmp_path):
    ask(tmp_path)
    with LabelStore(tmp_path) as store:
        with pytest.raises(DataError, match="unknown"):
            store.add(Label("nobody-asked", 1.0))
        assert (tmp_path / "labels.jsonl").read_bytes() == b""


def test_two_writers_of_one_store_are_refused(tmp_path):
    with LabelStore(tmp_path):
        with pytest.raises(RunError, match="in use by process"):
            LabelStore(tmp_path)
        code = f"from lineal.train.preferences.labels import LabelStore; LabelStore({str(tmp_path)!r})"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert "in use by process" in done.stderr
    LabelStore(tmp_path).close()


def test_undo_and_a_second_thought(tmp_path):
    ask(tmp_path)
    with LabelStore(tmp_path) as store:
        store.add(Label(PAIRS[0].id, 1.0))
        store.add(Label(PAIRS[0].id, 1.0, retracted=True))
        assert store.labels == [] and PAIRS[0] in store.open_pairs
        store.add(Label(PAIRS[0].id, 0.0))
        store.add(Label(PAIRS[0].id, 1.0))
        store.add(Label(PAIRS[0].id, 0.5, "bob"))
        assert [(label.labeller, label.preference) for label in store.labels] == [
            ("person", 1.0),
            ("bob", 0.5),
        ]
        assert len(store.history) == 5


def test_agreement_compares_a_labeller_with_himself(tmp_path):
    ask(tmp_path)
    first, second, _ = (pair.id for pair in PAIRS)
    with LabelStore(tmp_path) as store:
        for label in (
            Label(first, 1.0, "anna"),
            Label(second, 0.0, "anna"),
            Label(first, 1.0, "anna", control=True),
            Label(second, 1.0, "anna", control=True),
            Label(first, 0.0, "bob"),
        ):
            store.add(label)
        assert store.agreement() == (1, 2)
        assert len(store.labels) == 3, "a repeated answer is never trained on"
        store.add(Label(second, 1.0, "anna", control=True, retracted=True))
        assert store.agreement() == (1, 1)


def test_stores_merge_once(tmp_path):
    ask(tmp_path / "a", PAIRS[:2])
    ask(tmp_path / "b", PAIRS[1:])
    for name, pairs in (("a", PAIRS[:2]), ("b", PAIRS[1:])):
        with LabelStore(tmp_path / name) as store:
            for pair in pairs:
                store.add(Label(pair.id, 1.0, name))
    with LabelStore(tmp_path / "a") as store:
        assert store.merge(tmp_path / "b") == 2
        assert store.merge(tmp_path / "b") == 0
        assert len(store.pairs) == 3 and len(store.labels) == 4


def test_decided_text_pairs_become_rows_of_chosen_and_rejected(tmp_path):
    ask(tmp_path, [PAIRS[0], *(Pair(f"x{i}", f"y{i}", TEXTS, "p") for i in range(4))])
    with LabelStore(tmp_path) as store:
        for pair, preference in zip(store.pairs.values(), (1.0, 1.0, 0.0, 0.5, None), strict=True):
            store.add(Label(pair.id, preference))
        assert export_texts(store) == [
            {"prompt": "p", "chosen": "x0", "rejected": "y0"},
            {"prompt": "p", "chosen": "y1", "rejected": "x1"},
        ]
