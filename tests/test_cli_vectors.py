"""The command about word vectors: looks up, answers, measures, draws, converts; one line for what goes wrong."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from lineal.cli import main
from lineal.cli_vectors import ACTIONS
from lineal.representations.files import load_vectors, save_vectors
from lineal.representations.vectors import Vectors

WORDS = ["man", "woman", "king", "queen", "apple"]
MATRIX = np.array([[1, 0, 0], [0, 1, 0], [1, 0, 2], [0, 1, 2], [3, 3, -1]], dtype=np.float32)


@pytest.fixture
def file(tmp_path: Path) -> str:
    return str(save_vectors(tmp_path / "royal.vec", Vectors(WORDS, MATRIX)))


def said(capsys, *words: str) -> str:
    """What a command that works prints."""
    code = main(["vectors", *words])
    out, err = capsys.readouterr()
    assert code == 0, err
    return out


def complaint(capsys, *words: str, code: int = 2) -> str:
    """The one line of a command that does not work."""
    assert main(["vectors", *words]) == code
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and err.startswith("lineal: ")
    return err


def test_help_of_every_action_names_its_options(capsys) -> None:
    assert all(action in said(capsys, "--help") for action in ACTIONS)
    for action in ACTIONS:
        text = said(capsys, action, "--help")
        assert f"lineal vectors {ACTIONS[action].usage}" in text and "--duplicates" in text


def test_near(capsys, file: str) -> None:
    assert said(capsys, "near", file, "king").splitlines()[1].split()[0] == "queen"
    found = json.loads(
        said(capsys, "near", file, "king", "woman", "--minus", "man", "--count", "1", "--json")
    )
    assert found[0]["word"] == "queen" and 0 < found[0]["cosine"] <= 1


def test_analogy(capsys, file: str) -> None:
    for method in ("add", "mul"):
        lines = said(capsys, "analogy", file, "man", "king", "woman", "--method", method).splitlines()
        assert lines[0].split() == ["word", "score"] and lines[1].startswith("queen")


def test_evaluate_tells_sections_coverage_and_what_is_unknown(capsys, tmp_path: Path, file: str) -> None:
    questions, pairs, corpus = tmp_path / "q.txt", tmp_path / "p.txt", tmp_path / "c.txt"
    questions.write_text(
        ": family\nman king woman queen\nman king woman apple\nboy king girl queen\n: gram1\na b c d\n"
    )
    pairs.write_text("king queen 9\nman woman 7\nking apple 1\nking emperor 8\n")
    corpus.write_text("Ice is solid water\nsteam is a gas of water\nno fashion here\n")
    where = [file, "--analogies", str(questions), "--pairs", str(pairs)]
    text = said(capsys, "evaluate", *where, "--method", "both", "--unknown")
    rows = {line.split()[0]: line.split() for line in text.splitlines() if line}
    assert rows["family"] == ["family", "3", "66.7%", "50.00%", "50.00%"]
    assert rows["gram1"][2:] == ["0.0%", "none", "covered", "none", "covered"]
    assert rows["total"][1:3] == ["4", "50.0%"]
    assert rows["p.txt"][1:4] == ["4", "75.0%", "1.0000"]
    assert "boy" in text and "emperor" in text
    found = json.loads(said(capsys, "evaluate", *where, "--json"))
    assert found["analogies"]["add"][0]["right"] == 1
    assert found["similarity"][0]["unknown"] == ["emperor"]
    pytest.importorskip("scipy")
    table = said(capsys, "evaluate", file, "--corpus", str(corpus))
    assert "8.9" in table and "0.085" in table and "1.36" in table and "0.96" in table
    ratios = json.loads(said(capsys, "evaluate", file, "--corpus", str(corpus), "--json"))["ratios"]
    # Before and after ice: is 1, solid 1/2, water 1/3; around steam: is 1, a 1/2, gas 1/3, of 1/4, water 1/5.
    ice, steam = 1 + 1 / 2 + 1 / 3, 1 + 1 / 2 + 1 / 3 + 1 / 4 + 1 / 5
    assert ratios["water"]["ratio"] == pytest.approx((1 / 3 / ice) / (1 / 5 / steam))


def test_plot_draws_pictures_pages_and_files(capsys, tmp_path: Path, file: str) -> None:
    svg, page, bars = tmp_path / "m.svg", tmp_path / "m.html", tmp_path / "b.svg"
    said(capsys, "plot", file, "apple", "--arrows", "man", "king", "woman", "queen", "--out", str(svg))
    assert all(word in svg.read_text() for word in WORDS) and svg.read_text().count("marker-end") == 2
    said(capsys, "plot", file, "--out", str(page), "--projector", str(tmp_path / "tsv"))
    assert '"words":["man","woman","king","queen","apple"]' in page.read_text()
    assert (tmp_path / "tsv" / "metadata.tsv").read_text().split() == WORDS
    assert len((tmp_path / "tsv" / "vectors.tsv").read_text().splitlines()) == 5
    said(capsys, "plot", file, "king", "--bars", "--count", "2", "--out", str(bars))
    assert bars.read_text().count("<rect") == 3
    assert "is there already" in complaint(capsys, "plot", file, "--first", "5", "--out", str(svg))
    said(capsys, "plot", file, "--first", "5", "--out", str(svg), "--overwrite")


def test_convert_keeps_every_bit(capsys, tmp_path: Path, file: str) -> None:
    said(capsys, "convert", file, str(tmp_path / "a.bin"))
    said(capsys, "convert", str(tmp_path / "a.bin"), str(tmp_path / "a.safetensors"), "--limit", "3")
    again = load_vectors(tmp_path / "a.safetensors")
    assert again.words == WORDS[:3]
    np.testing.assert_array_equal(again.matrix, MATRIX[:3])


def test_a_file_with_faults_is_read_on_request(capsys, tmp_path: Path) -> None:
    path = tmp_path / "glove.txt"
    path.write_text("a 1 2\nNew York 3 4\na 5 6\n")
    assert "glove.txt:2: the word 'New York' has a space" in complaint(capsys, "near", str(path), "a", code=1)
    assert "glove.txt:3: the word 'a' was on line 1" in complaint(
        capsys, "near", str(path), "a", "--spaces", code=1
    )
    assert "New York" in said(capsys, "near", str(path), "a", "--spaces", "--duplicates", "first")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nearest", "x"], "did you mean near?"),
        (["near"], "no file of vectors was named"),
        (["near", "FILE"], "no word was named"),
        (["near", "FILE", "king", "--counts", "3"], "--counts"),
        (["near", "FILE", "king", "--count", "0"], "0 neighbours"),
        (["analogy", "FILE", "a", "b"], "2 words, where an analogy has three"),
        (["analogy", "FILE", "man", "king", "woman", "--method", "sum"], "one of add, mul"),
        (["evaluate", "FILE"], "nothing to evaluate on"),
        (["evaluate", "FILE", "FILE", "--pairs", "x"], "one at a time"),
        (["evaluate", "FILE", "--pairs", "x", "--restrict", "-1"], "at least 0"),
        (["plot", "FILE", "king", "--out", "m.png"], "ends in .svg or .html"),
        (["plot", "FILE", "king", "--arrows", "man"], "give pairs"),
        (["plot", "FILE"], "no word was named"),
        (["plot", "FILE", "king", "man", "--bars"], "neighbours of one word"),
        (["convert", "FILE"], "1 files, where two are needed"),
        (["near", "FILE", "king", "--limit", "0"], "limit of 0 words"),
    ],
)
def test_wrong_use_is_one_line(
    capsys, monkeypatch, tmp_path: Path, file: str, words: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert message in complaint(capsys, *(file if word == "FILE" else word for word in words))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["near", "nowhere.vec", "king"], "nowhere.vec can't be read"),
        (["near", "FILE", "kings"], "no vector of 'kings'; did you mean 'king'?"),
        (["plot", "FILE", "king", "man"], "2 words make no map"),
        (["evaluate", "FILE", "--analogies", "nowhere"], "nowhere can't be read"),
    ],
)
def test_what_is_not_there_is_one_line(
    capsys, monkeypatch, tmp_path: Path, file: str, words: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert message in complaint(capsys, *(file if word == "FILE" else word for word in words), code=1)
