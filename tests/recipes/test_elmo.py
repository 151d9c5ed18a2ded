"""`lineal run elmo` and `lineal run tagger`: a corpus to a tagger with its layers, resumed exactly, and what is refused."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from lineal.models.hf.elmo import load_elmo
from lineal.recipes import staged

SMALL = ("--preset", "seconds", "--threads", "1", "--quiet")
TAGGER = (
    "--threads",
    "1",
    "--quiet",
    "--epochs",
    "20",
    "--lstm-width",
    "12",
    "--word-width",
    "8",
    "--learning-rate",
    "2e-2",
)
NAMES, THINGS, DOES = ("Ada", "Alan", "Grace"), ("cat", "dog", "bank", "river"), ("saw", "liked", "left")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a corpus and tagged sentences of the same small language."""
    folder, draw = tmp_path_factory.mktemp("data"), random.Random(0)
    rows = [
        [
            (draw.choice(NAMES), "I-PER"),
            (draw.choice(DOES), "O"),
            ("the", "O"),
            (draw.choice(THINGS), "O"),
            (".", "O"),
        ]
        for _ in range(300)
    ]
    (folder / "corpus.txt").write_text(" ".join(" ".join(word for word, _ in row) for row in rows))
    tagged = "\n".join("".join(f"{word} {tag}\n" for word, tag in row) for row in rows[:80])
    (folder / "tagged.txt").write_text(tagged)
    return folder


@pytest.fixture(scope="module")
def trained(data: Path, command: Callable[..., int]) -> Path:
    """A run of elmo."""
    words = ("run", "elmo", *SMALL, "--data", data / "corpus.txt", "--epochs", "4", "--out", data / "elmo")
    assert command([str(word) for word in words], log=data / "log") == 0, (data / "log").read_text()
    return data / "elmo"


def test_both_directions_learn(trained: Path, final_of: Callable) -> None:
    final = final_of(trained)
    words = len((trained / "final" / "vocab.txt").read_text().split())
    assert final["eval/forward_perplexity"] < words / 2 and final["eval/backward_perplexity"] < words / 2
    model = load_elmo(trained / "final")
    assert model.softmax is not None and model.config.vocab_size == words
    assert "held-out" in (trained.parent / "log").read_text()


@pytest.mark.parametrize("features", ["none", "static", "elmo"])
def test_a_tagger_tells_names(
    trained: Path, data: Path, say: Callable, final_of: Callable, tmp_path: Path, features: str
) -> None:
    own = () if features == "none" else ("--model", trained)
    words = ("run", "tagger", *TAGGER, "--data", data / "tagged.txt", "--spans", "--features", features, *own)
    said = say(*words, "--out", tmp_path / "run")
    assert said.code == 0, said.err
    final = final_of(tmp_path / "run")
    assert final["eval/span_f1"] > 0.95 and final["eval/accuracy"] > 0.95
    if features == "elmo":
        shares = [final[f"mix/layer_{i}"] for i in range(3)]
        assert sum(shares) == pytest.approx(1) and shares != pytest.approx([1 / 3] * 3, abs=1e-4)
        assert "Mixture of ELMo" in (tmp_path / "run" / "report.html").read_text()


@pytest.mark.parametrize("name", ["elmo", "tagger", "frozen", "static"])
def test_a_killed_run_ends_as_the_uninterrupted_one(
    trained: Path,
    data: Path,
    tmp_path: Path,
    command: Callable[..., int],
    name: str,
    die_at: Callable,
    outcome: Callable,
) -> None:
    words: tuple[object, ...] = (
        "run",
        "elmo",
        *SMALL,
        "--data",
        data / "corpus.txt",
        "--save-every",
        "7",
        "--dropout",
        "0.2",
    )
    if name != "elmo":
        kinds = {
            "tagger": ("elmo", "--tune-features", "--layer-norm"),
            "frozen": ("elmo",),
            "static": ("static",),
        }
        own = ("--model", trained, "--save-every", "7", "--features", *kinds[name])
        words = ("run", "tagger", *TAGGER, "--data", data / "tagged.txt", "--batch-size", "16", *own)
    log = tmp_path / "log"

    whole, cut = tmp_path / "whole", tmp_path / "cut"
    line = [str(word) for word in words]
    assert command([*line, "--out", str(whole)], log=log) == 0, log.read_text()
    assert command([*line, "--out", str(cut)], before=die_at(staged, "set_learning_rate", 13), log=log) == -9
    assert command(["resume", str(cut)], log=log) == 0, log.read_text()
    assert outcome(whole) == outcome(cut)


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (("elmo",), "--data"),
        (("elmo", "--data", "corpus.txt", "--cells", "12"), "cells"),
        (("elmo", "--data", "corpus.txt", "--filter-widths", "1", "2"), "--filter-counts"),
        (("elmo", "--data", "corpus.txt", "--held-out", "0"), "--held-out"),
        (("tagger",), "--data"),
        (("tagger", "--data", "tagged.txt", "--tag-column", "5"), "tagged.txt:1"),
        (("tagger", "--data", "tagged.txt", "--features", "elmo"), "--model"),
        (("tagger", "--data", "tagged.txt", "--features", "elmo", "--model", "nowhere"), "nowhere"),
    ],
)
def test_what_cannot_work_says_what_to_do(
    data: Path, tmp_path: Path, say: Callable, monkeypatch: pytest.MonkeyPatch, words: tuple, wanted: str
) -> None:
    monkeypatch.chdir(data)
    options = SMALL if words[0] == "elmo" else TAGGER
    said = say("run", words[0], *options, *words[1:], "--out", tmp_path / "run")
    assert said.code != 0 and wanted in said.err and "unexpected" not in said.err, said.err


def test_dry_runs_say_what_they_would_do(data: Path, say: Callable) -> None:
    said = say("run", "elmo", *SMALL, "--data", data / "corpus.txt", "--dry-run")
    assert said.code == 0 and "sampled words" in said.out, said.err
    said = say("run", "tagger", *TAGGER, "--data", data / "tagged.txt", "--dry-run")
    assert said.code == 0 and "2 tags" in said.out, said.err


def test_every_preset_is_a_configuration() -> None:
    from lineal.recipes import elmo
    from lineal.recipes.config import ElmoRecipeConfig, with_options
    from lineal.recipes.elmo_loop import shape_of

    for preset in elmo.PRESETS:
        config = elmo.tuned(with_options(ElmoRecipeConfig(), preset=preset))
        shape = shape_of(config, config.sentences.vocab_size)
        assert shape.cells > shape.projection
    paper = shape_of(elmo.tuned(with_options(ElmoRecipeConfig(), preset="paper")), 10)
    assert (paper.cells, paper.projection, paper.characters.width, paper.cell_clip) == (4096, 512, 2048, 3.0)
