"""Runs of word2vec and GloVe that are stopped, limited, cut up otherwise, or asked for in other words: what they leave behind."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import lineal.representations.word2vec
from lineal.representations.files import load_vectors
from lineal.representations.near import PAIR

LINES = [
    f"{a} {b} sees {c} now"
    for a in ("one", "two", "six")
    for b in ("cat", "dog")
    for c in ("red", "tan", "sky")
]
COMMON = ("--dim", "6", "--min-count", "1", "--seed", "5", "--quiet")
TRAIN = {
    "word2vec": ("--epochs", "2", "--sample", "0", "--step-size", "300"),
    "glove": ("--epochs", "3", "--step-size", "60", "--window", "3"),
}

SHORT = {"word2vec": "37", "glove": "13"}


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text("\n".join(LINES * 15) + "\n")
    return path


def words_of(recipe: str, text: Path, out: Path, *more: object) -> list[object]:
    return ["run", recipe, "--data", text, "--out", out, *COMMON, *TRAIN[recipe], *more]


def vectors_of(run: Path) -> np.ndarray:
    return load_vectors(run / "final" / "vectors.bin").matrix


@pytest.mark.parametrize("recipe", TRAIN)
def test_equal_words_make_equal_files_and_another_seed_makes_others(
    recipe: str, text: Path, tmp_path: Path, say: Callable
) -> None:
    for name, more in (("a", ()), ("b", ()), ("c", ("--seed", "6"))):
        assert say(*words_of(recipe, text, tmp_path / name, *more)).code == 0
    one, same, other = (vectors_of(tmp_path / name) for name in "abc")
    assert np.array_equal(one, same) and not np.array_equal(one, other)
    assert (tmp_path / "a" / "metrics.jsonl").read_bytes() == (tmp_path / "b" / "metrics.jsonl").read_bytes()


@pytest.mark.parametrize("recipe", TRAIN)
def test_steps_are_logged_and_cut_up_the_same_training(
    recipe: str, text: Path, tmp_path: Path, say: Callable, read: Callable
) -> None:
    """How long a step is decides what is logged, and not what is learned; save_every decides what is kept."""
    for name, more in (
        ("long", ()),
        ("short", ("--step-size", SHORT[recipe], "--save-every", "7", "--keep-last", "1")),
    ):
        assert say(*words_of(recipe, text, tmp_path / name, *more)).code == 0
    rows = {name: read(tmp_path / name / "metrics.jsonl") for name in ("long", "short")}
    assert len(rows["short"]) > 2 * len(rows["long"])
    assert rows["long"][-1]["num_tokens"] == rows["short"][-1]["num_tokens"]
    assert sum(r["predictions"] for r in rows["long"]) == sum(r["predictions"] for r in rows["short"])
    assert [row["step"] for row in rows["short"]] == list(range(1, len(rows["short"]) + 1))
    np.testing.assert_array_equal(vectors_of(tmp_path / "long"), vectors_of(tmp_path / "short"))
    assert len(list((tmp_path / "short" / "checkpoints").glob("step-*"))) == 1


def test_the_rate_that_is_logged_falls_from_one_end_to_the_other(
    text: Path, tmp_path: Path, say: Callable, read: Callable
) -> None:
    more = ("--learning-rate", "0.1", "--final-rate", "0.02")
    assert say(*words_of("word2vec", text, tmp_path / "run", *more)).code == 0
    rates = [row["learning_rate"] for row in read(tmp_path / "run" / "metrics.jsonl")]
    assert rates[0] == 0.1 and rates == sorted(rates, reverse=True) and 0.02 < rates[-1] < 0.05


@pytest.mark.parametrize("recipe", TRAIN)
def test_a_limit_of_time_ends_a_run_with_vectors_and_resume_adds_nothing(
    recipe: str, text: Path, tmp_path: Path, say: Callable, read: Callable
) -> None:
    run = tmp_path / "run"
    assert say(*words_of(recipe, text, run, "--time-limit", "1e-9")).code == 0
    assert len(read(run / "metrics.jsonl")) == 1
    ended = vectors_of(run).copy()
    (run / "final").rename(run / "before")
    assert say("resume", run).code == 0
    assert len(read(run / "metrics.jsonl")) == 1
    np.testing.assert_array_equal(vectors_of(run), ended)


@pytest.mark.parametrize("recipe", TRAIN)
def test_resuming_a_finished_run_changes_nothing(
    recipe: str, text: Path, tmp_path: Path, say: Callable
) -> None:
    run = tmp_path / "run"
    assert say(*words_of(recipe, text, run)).code == 0
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file() and path.suffix == ".bin"}
    assert say("resume", run).code == 0
    assert {path: path.read_bytes() for path in before} == before and len(before) >= 2


@pytest.mark.parametrize("symmetric", [True, False])
def test_co_occurrences_on_the_disk_are_those_of_the_text(
    symmetric: bool, text: Path, tmp_path: Path, say: Callable
) -> None:
    more = ("--memory", "1") if symmetric else ("--no-symmetric",)
    assert say(*words_of("glove", text, tmp_path / "run", *more)).code == 0
    pairs = np.fromfile(tmp_path / "run" / "cooccurrence" / "pairs.bin", PAIR)
    names = load_vectors(tmp_path / "run" / "final" / "vectors.bin").words
    expected: dict[tuple[str, str], float] = {}
    for line in LINES * 15:
        words = line.split()
        for i, word in enumerate(words):
            for j in range(i + 1, min(len(words), i + 4)):
                for key in ((word, words[j]), (words[j], word))[: 1 + symmetric]:
                    expected[key] = expected.get(key, 0) + 1 / (j - i)
    found = {(names[i], names[k]): x for i, k, x in pairs.tolist()}
    assert found.keys() == expected.keys()
    assert all(found[key] == pytest.approx(value, rel=1e-6) for key, value in expected.items())
    assert not (tmp_path / "run" / "cooccurrence.work").exists()


def test_a_card_tells_what_was_trained(text: Path, tmp_path: Path, say: Callable) -> None:
    assert say(*words_of("word2vec", text, tmp_path / "run", "--model", "cbow")).code == 0
    card = (tmp_path / "run" / "final" / "README.md").read_text()
    assert "tags: [lineal, word2vec, word-vectors]" in card
    for row in (
        "| words | 10 |",
        "| dimensions | 6 |",
        "| model | cbow |",
        "| output | negative |",
        "| window | 5 |",
    ):
        assert row in card, row


def test_without_a_compiled_core_the_plain_form_trains_and_says_so(
    text: Path, tmp_path: Path, say: Callable, monkeypatch
) -> None:
    text.write_text("\n".join(LINES) + "\n")
    assert say(*words_of("word2vec", text, tmp_path / "fast")).code == 0
    monkeypatch.setattr("lineal.recipes.word2vec_loop.core", lambda: None)
    monkeypatch.setattr(lineal.representations.word2vec, "core", lambda: None)
    said = say(*words_of("word2vec", text, tmp_path / "plain"))
    assert said.code == 0 and "no compiled core: the plain form trains" in said.err
    np.testing.assert_allclose(
        vectors_of(tmp_path / "plain"), vectors_of(tmp_path / "fast"), rtol=1e-3, atol=1e-4
    )
    monkeypatch.undo()
    (tmp_path / "plain" / "final").rename(tmp_path / "plain" / "before")
    said = say("resume", tmp_path / "plain")
    if lineal.representations.word2vec.core() is not None:
        assert said.code == 0 and "was started with the core Python" in said.err


def test_vectors_of_a_run_are_looked_up_by_the_command(text: Path, tmp_path: Path, say: Callable) -> None:
    assert (
        say(*words_of("word2vec", text, tmp_path / "run", "--epochs", "4", "--learning-rate", "0.2")).code
        == 0
    )
    path = tmp_path / "run" / "final" / "vectors.bin"
    found = json.loads(say("vectors", "near", path, "cat", "--count", "3", "--json").out)
    assert len(found) == 3 and all(-1 <= row["cosine"] <= 1 for row in found)
    assert say("vectors", "convert", path, tmp_path / "a.safetensors").code == 0
    assert load_vectors(tmp_path / "a.safetensors").words == load_vectors(path).words
    said = say("vectors", "near", path, "Cat")
    assert said.code == 1 and "no vector of 'Cat'; there is one of 'cat'" in said.err
