"""`lineal run word2vec` and `lineal run glove`: from text to a file of vectors, whatever interrupts them."""

from __future__ import annotations

import gzip
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lineal.train.vectors.session
from lineal.representations.files import load_vectors
from lineal.representations.glove import Glossary
from lineal.representations.word2vec import Embedding
from lineal.train.data import stream_documents
from lineal.train.vectors.files import load_ngrams

LINES = [
    f"{a} {b} {c} day"
    for a in ("red", "green", "blue")
    for b in ("cat", "dog")
    for c in ("runs", "sits", "eats")
]
TEXT = "\n".join(LINES * 20) + "\n"
OPTIONS = (
    "--dim",
    "8",
    "--min-count",
    "1",
    "--step-size",
    "400",
    "--save-every",
    "2",
    "--seed",
    "3",
    "--quiet",
)
RECIPES = {
    "word2vec": ("--epochs", "2", "--sample", "0"),
    "word2vec tree": ("--epochs", "2", "--output", "tree", "--model", "cbow"),
    "word2vec subwords": ("--epochs", "2", "--subwords", "--buckets", "50", "--shared"),
    "word2vec softmax": ("--epochs", "1", "--output", "softmax", "--step-size", "1000"),
    "glove": ("--epochs", "4", "--step-size", "40", "--window", "3"),
}


@pytest.fixture
def text(tmp_path: Path) -> Path:
    """A file of short lines."""
    path = tmp_path / "text.txt"
    path.write_text(TEXT)
    return path


def words_of(recipe: str, text: Path, out: Path) -> list[str]:
    return ["run", recipe.split()[0], "--data", str(text), "--out", str(out), *OPTIONS, *RECIPES[recipe]]


def outcome(run: Path) -> dict[str, bytes]:
    names = ("final/vectors.bin", "metrics.jsonl")
    found = {name: (run / name).read_bytes() for name in names}
    newest = max((run / "checkpoints").iterdir(), key=lambda path: int(path.name.split("-")[1]))
    return found | {"checkpoint": (newest / "tensors.safetensors").read_bytes(), "step": newest.name.encode()}


@pytest.mark.parametrize("recipe", RECIPES)
def test_text_becomes_vectors(recipe: str, text: Path, tmp_path: Path, say: Callable, read: Callable) -> None:
    said = say(*words_of(recipe, text, tmp_path / "run"))
    assert said.code == 0, said.err
    vectors = load_vectors(tmp_path / "run" / "final" / "vectors.bin")
    assert len(vectors) == 9 and vectors.dimensions == 8 and vectors.words[0] == "day"
    assert np.isfinite(vectors.matrix).all()
    losses = [line["loss"] for line in read(tmp_path / "run" / "metrics.jsonl")]
    assert losses[-1] < losses[0]
    assert "lineal vectors near" in said.out and (tmp_path / "run" / "report.html").exists()
    assert (tmp_path / "run" / "final" / "README.md").read_text().startswith("---\n")


def test_a_step_that_predicts_nothing_has_no_loss(tmp_path: Path, say: Callable, read: Callable) -> None:
    lonely, run = tmp_path / "lonely.txt", tmp_path / "run"
    lonely.write_text("day\n" * 100 + "night sun\n" * 50)
    said = say(*words_of("word2vec", lonely, run), "--step-size", "50")
    assert said.code == 0, said.err
    metrics = read(run / "metrics.jsonl")
    assert {line["predictions"] > 0 for line in metrics} == {True, False}
    for line in metrics:
        assert ("loss" in line) == (line["predictions"] > 0) and "non_finite" not in line


@pytest.mark.parametrize("recipe", [name for name in RECIPES if name != "word2vec softmax"])
@pytest.mark.parametrize("phase", ["training", "saving"])
def test_killed_and_resumed_it_ends_bit_identical(
    recipe: str, phase: str, text: Path, tmp_path: Path, command: Callable
) -> None:
    assert command(words_of(recipe, text, tmp_path / "straight"), log=tmp_path / "log") == 0, (
        tmp_path / "log"
    ).read_text()

    def fault() -> None:
        owner = (
            (Glossary if recipe == "glove" else Embedding)
            if phase == "training"
            else lineal.train.vectors.session.Run
        )
        name, number = ("train", 6) if phase == "training" else ("checkpoint", 2)
        real, count = getattr(owner, name), 0

        def counted(*arguments: Any, **options: Any) -> Any:
            nonlocal count
            count += 1
            if count == number:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*arguments, **options)

        setattr(owner, name, counted)

    broken = tmp_path / "broken"
    assert command(words_of(recipe, text, broken), before=fault) == -signal.SIGKILL
    assert not (broken / "final").exists()
    # The text is read once: a run goes on from the ids that it has.
    text.unlink()
    assert command(["resume", str(broken)], log=tmp_path / "log") == 0, (tmp_path / "log").read_text()
    one, other = outcome(tmp_path / "straight"), outcome(broken)
    assert [name for name in one if one[name] != other[name]] == []


def test_a_corpus_that_was_half_written_is_read_again(text: Path, tmp_path: Path, command: Callable) -> None:
    run = tmp_path / "run"
    words = words_of("word2vec", text, run)
    assert command(words) == 0
    expected = outcome(run)
    (run / "corpus" / "ids.bin").write_bytes(b"\0" * 100)
    for name in ("final", "checkpoints"):
        (run / name).rename(run / f"{name}.before")
    assert command(["resume", str(run)]) == 0
    assert outcome(run) == expected


def test_a_text_that_changed_is_refused_on_resume(text: Path, tmp_path: Path, say: Callable) -> None:
    run = tmp_path / "run"
    assert say(*words_of("word2vec", text, run)).code == 0
    (run / "final").rename(run / "before")
    (run / "corpus" / "ids.bin").write_bytes(b"")
    text.write_text(TEXT + "red dog runs day\n")
    said = say("resume", run)
    assert said.code == 1 and "was made with another text" in said.err


def test_subwords_give_vectors_to_words_that_were_never_seen(
    text: Path, tmp_path: Path, say: Callable
) -> None:
    assert say(*words_of("word2vec subwords", text, tmp_path / "run")).code == 0
    how, table = load_ngrams(tmp_path / "run" / "final")
    assert (how.shortest, how.longest, how.buckets) == (3, 6, 50) and table.shape == (50, 8)
    assert np.abs(how.vector("cats", table)).max() > 0


def test_a_plan_says_what_is_optimised(text: Path, say: Callable) -> None:
    said = say("run", "word2vec", "--data", text, "--min-count", "1", "--shared", "--dry-run")
    assert (
        "log σ(x·y) + Σ over 5, the same for a whole window, negatives" in said.out and "9 words" in said.out
    )
    said = say("run", "word2vec", "--data", text, "--min-count", "1", "--output", "tree", "--dry-run")
    assert "nodes of the word's way" in said.out
    said = say("run", "glove", "--data", text, "--min-count", "1", "--preset", "seconds", "--dry-run")
    assert "(x / 10)^0.75" in said.out and "dim=50" in said.out


def test_threads_say_that_runs_differ(text: Path, tmp_path: Path, say: Callable) -> None:
    said = say(*words_of("word2vec", text, tmp_path / "run"), "--threads", "2")
    assert said.code == 0 and "no two runs are alike" in said.err


def test_a_wide_window_is_said(text: Path, tmp_path: Path, say: Callable) -> None:
    said = say(*words_of("word2vec", text, tmp_path / "run"), "--window", "40")
    assert (
        said.code == 0
        and "--window 40 reaches beyond the longest sentence (4 words): it acts as 3" in said.err
    )


def test_rows_of_every_kind_are_texts(tmp_path: Path) -> None:
    rows = [{"text": "a b\nc"}, {"text": "d"}]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "a.csv").write_text('text\n"a b\nc"\nd\n')
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress(b"a b\n\nc\nd\n"))
    for name in ("a.jsonl", "a.csv"):
        assert [list(lines) for lines in stream_documents(tmp_path / name)] == [["a b", "c"], ["d"]]
    assert [list(lines) for lines in stream_documents(tmp_path / "a.txt.gz")] == [["a b", "c", "d"]]


BAD = {
    "missing": (None, (), "does not exist"),
    "empty": (b"", (), "text.txt: the file is empty"),
    "marks only": (b"...\n!!\n", (), "no word in the text"),
    "one word": (b"again\n" * 9, (), "one word only, 'again', 9 times"),
    "rare": (b"a b c\n", (), r"0 of 3 words occur at least 5 times"),
    "alone": (b"a\nb\n" * 9, (), "no line has two words"),
    "NUL": (b"a b\nc \0 d\n", (), "text.txt:2:3: there is a NUL byte"),
    "not UTF-8": (b"a b\nc \xff d\n", (), "text.txt:2:3: byte 0xff is not UTF-8"),
    "shared cbow": (b"a b\n" * 9, ("--shared", "--model", "cbow"), "one step for each window already"),
    "model": (b"a b\n" * 9, ("--model", "cbw"), "Did you mean cbow"),
    "dim": (b"a b\n" * 9, ("--dim", "0"), "--dim 0: it must be at least 1"),
    "ngrams": (b"a b\n" * 9, ("--min-ngram", "4", "--max-ngram", "3"), "no n-gram would be left"),
    "rate": (b"a b\n" * 9, ("--learning-rate", "1e38", "--sample", "0"), "no longer finite"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_line_that_says_what_to_do(name: str, tmp_path: Path, say: Callable) -> None:
    content, options, expected = BAD[name]
    path = tmp_path / "text.txt"
    if content is not None:
        path.write_bytes(content)
    said = say("run", "word2vec", "--data", path, "--out", tmp_path / "run", "--quiet", *options)
    last = said.err.strip().splitlines()[-1]
    assert said.code in (1, 2) and last.startswith("lineal: ")
    assert expected.replace("\\", "") in last, last
    assert not (tmp_path / "run" / "final").exists()


def test_no_data_is_said(say: Callable, tmp_path: Path) -> None:
    for recipe in ("word2vec", "glove"):
        said = say("run", recipe, "--out", tmp_path / recipe)
        assert said.code == 2 and "needs --data FILE" in said.err


def test_a_softmax_over_many_words_is_refused(tmp_path: Path, say: Callable) -> None:
    path = tmp_path / "text.txt"
    path.write_text(" ".join(f"w{i}" for i in range(5001)))
    said = say(
        "run",
        "word2vec",
        "--data",
        path,
        "--min-count",
        "1",
        "--output",
        "softmax",
        "--out",
        tmp_path / "run",
    )
    assert said.code == 2 and "--max-words 5000" in said.err
    assert not (tmp_path / "run").exists() or not (tmp_path / "run" / "final").exists()
