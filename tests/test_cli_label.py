"""`lineal label`: what it takes, what it refuses, and the store's exchange with files of text pairs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lineal import cli
from lineal.cli_label import LabelOptions, _ask_texts, about, store_folder
from lineal.environments.preferences.records import Label, Pair
from lineal.errors import DataError, RunError
from lineal.train.preferences.labels import Answers, LabelStore, PairWriter

ROWS = [
    {"prompt": "p", "first": "a", "second": "b"},
    {"prompt": "q", "chosen": "c", "rejected": "d"},
]


def texts(folder: Path, rows: list = ROWS) -> Path:
    path = folder / "pairs.jsonl.in"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_text_pairs_are_asked_answered_and_exported(tmp_path, capsys):
    store = tmp_path / "store"
    _ask_texts(store, texts(tmp_path))
    assert [(p.prompt, p.first, p.second) for p in Answers(store).pairs.values()] == [
        ("p", "a", "b"),
        ("q", "c", "d"),
    ]
    with LabelStore(store) as opened:
        for pair, preference in zip(list(opened.pairs.values()), (0.0, 1.0), strict=True):
            opened.add(Label(pair.id, preference))
    out = tmp_path / "out.jsonl"
    assert cli.main(["label", str(store), "--export", str(out)]) == 0
    assert "2 decided pairs" in capsys.readouterr().out
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert rows == [
        {"prompt": "p", "chosen": "b", "rejected": "a"},
        {"prompt": "q", "chosen": "c", "rejected": "d"},
    ]


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ('{"prompt": "p", "first": "a"}\n', "a row holds texts"),
        ('{"prompt": "p", "first": "a", "second": "a"}\n', "two different things"),
        ('{"first": "a", "second": 3}\n', "a row holds texts"),
        ("nonsense\n", "not JSON"),
        ('{"first": "a", "second": "b"}', "no end"),
    ],
)
def test_a_file_of_texts_that_cannot_be_used_is_named(tmp_path, content, why):
    path = tmp_path / "texts.jsonl"
    path.write_text(content)
    with pytest.raises(DataError, match=why) as caught:
        _ask_texts(tmp_path / "store", path)
    assert "texts.jsonl" in str(caught.value)


def test_stores_are_merged_by_the_command(tmp_path, capsys):
    for name, pair in (("one", Pair("a", "b", "texts")), ("two", Pair("c", "d", "texts"))):
        with PairWriter(tmp_path / name) as writer:
            writer.add([pair])
        with LabelStore(tmp_path / name) as store:
            store.add(Label(pair.id, 1.0, name))
    assert cli.main(["label", str(tmp_path / "one"), "--merge", str(tmp_path / "two")]) == 0
    assert "1 new labels, 2 in all" in capsys.readouterr().out


def test_a_run_s_store_is_found_in_the_run(tmp_path):
    with PairWriter(tmp_path / "run" / "preferences") as writer:
        writer.add([Pair("a", "b")])
    assert store_folder(tmp_path / "run") == store_folder(tmp_path / "run" / "preferences")
    with pytest.raises(RunError, match="holds no questions"):
        store_folder(tmp_path)
    assert store_folder(tmp_path / "new", new=True) == tmp_path / "new"


def test_what_the_run_says_about_itself(tmp_path):
    assert about(tmp_path) == {}
    (tmp_path / "about.json").write_text('{"env": "Pendulum-v1"}')
    assert about(tmp_path) == {"env": "Pendulum-v1"}
    (tmp_path / "about.json").write_text("{")
    with pytest.raises(RunError, match="not what a run writes"):
        about(tmp_path)


def test_usage(tmp_path, capsys):
    assert cli.main(["label", "--help"]) == 0
    assert "--instruction" in capsys.readouterr().out
    assert cli.main(["label"]) == 2
    assert "0 folders were given" in capsys.readouterr().err
    assert cli.main(["label", str(tmp_path), "--texts", str(tmp_path / "none.jsonl")]) == 1
    assert "is not there" in capsys.readouterr().err
    assert cli.main(["label", str(tmp_path), "--prot", "1"]) == 2
    assert "--port" in capsys.readouterr().err
    assert LabelOptions().host == "127.0.0.1"
