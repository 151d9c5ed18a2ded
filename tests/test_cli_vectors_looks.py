"""Looking at vectors with the command: what is drawn of which words, lists and limits, formats told, and evaluation's corners."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from lineal.cli import main
from lineal.errors import DataError
from lineal.representations.files import load_vectors, save_vectors
from lineal.representations.vectors import Vectors
from lineal.web.word_map import Spot, bars_svg, map_svg

WORDS = ["sun", "moon", "sea", "land", "Sun", "<b>&"]
MATRIX = np.array([[1, 0, 1], [0, 1, 1], [1, 1, 0], [2, 1, -1], [0.9, 0.1, 1], [0, -1, 3]], np.float32)
SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return save_vectors(tmp_path / "sky.vec", Vectors(WORDS, MATRIX))


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """`run("near", ...)`: exit code, output, errors."""

    def call(*words: object) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main(["vectors", *map(str, words)])
        said = capsys.readouterr()
        return code, str(said.out), str(said.err)

    return call


def texts(path: Path) -> list[str]:
    """The texts of a picture."""
    return [element.text or "" for element in ET.fromstring(path.read_text()).iter(f"{SVG}text")]


def test_a_list_of_words_joins_those_that_were_named_each_once(
    file: Path, tmp_path: Path, run: Callable
) -> None:
    (tmp_path / "list.txt").write_text("moon\n\n  sea \nmoon\n")
    out = tmp_path / "m.svg"
    assert run("plot", file, "sun", "moon", "--input", tmp_path / "list.txt", "--out", out)[0] == 0
    assert texts(out)[:3] == ["sun", "moon", "sea"] and "sky.vec: 3 words" in texts(out)[-1]
    assert run("plot", file, "sun", "--first", "4", "--out", out, "--overwrite")[0] == 0
    assert texts(out)[:4] == WORDS[:4]


def test_a_page_holds_hostile_words_as_text_and_no_more_than_was_asked(
    file: Path, tmp_path: Path, run: Callable
) -> None:
    out = tmp_path / "m.html"
    assert run("plot", file, "--out", out, "--count", "2")[0] == 0
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', out.read_text(), re.S)
    assert found
    data = json.loads(found[1])
    assert data["words"] == WORDS and "<b>&<" not in out.read_text()
    assert all(len(near) == 2 for near in data["near"])
    sun = data["words"].index("sun")
    assert data["words"][data["near"][sun][0][0]] == "Sun"


@pytest.mark.parametrize("count", ["0", "-2"])
def test_no_answers_is_refused_alike(count: str, file: Path, run: Callable) -> None:
    for words, what in (
        (("near", file, "sun"), "neighbours"),
        (("analogy", file, "sun", "moon", "sea"), "answers"),
    ):
        code, out, err = run(*words, f"--count={count}")
        assert (code, out) == (2, "") and f"{count} {what} can't be" in err


def test_spelling_is_folded_unless_told_otherwise(file: Path, tmp_path: Path, run: Callable) -> None:
    (tmp_path / "q").write_text(": s\nSUN MOON SEA LAND\n")
    for more, covered in (((), 1), (("--no-fold",), 0)):
        report = json.loads(run("evaluate", file, "--analogies", tmp_path / "q", "--json", *more)[1])
        assert report["analogies"]["add"][0]["covered"] == covered
        assert report["words"] == 6 and report["dimensions"] == 3
    both = json.loads(run("evaluate", file, "--analogies", tmp_path / "q", "--json", "--method", "both")[1])
    assert set(both["analogies"]) == {"add", "mul"}
    few = json.loads(run("evaluate", file, "--analogies", tmp_path / "q", "--json", "--restrict", "3")[1])
    assert few["analogies"]["add"][0]["unknown"] == ["LAND"]


def test_several_sets_of_pairs_stand_in_one_table(file: Path, tmp_path: Path, run: Callable) -> None:
    for name, rows in (
        ("one.txt", "sun moon 3\nsea land 5\nsun sea 4\n"),
        ("two.csv", "sun,star,3\nmoon,sea,1\n"),
    ):
        (tmp_path / name).write_text(rows)
    code, out, _ = run("evaluate", file, "--pairs", tmp_path / "one.txt", tmp_path / "two.csv")
    rows = [line.split() for line in out.splitlines()]
    assert (
        code == 0
        and rows[1][:3] == ["one.txt", "3", "100.0%"]
        and rows[2][:4] == ["two.csv", "2", "50.0%", "undefined"]
    )
    assert "1 words have no vector" in out
    assert "without a vector: star" in run("evaluate", file, "--pairs", tmp_path / "two.csv", "--unknown")[1]


@pytest.mark.parametrize("corpus", ["nothing of both here\n", "ice is cold\n"])
def test_ratios_need_both_words(corpus: str, file: Path, tmp_path: Path, run: Callable) -> None:
    pytest.importorskip("scipy")
    (tmp_path / "c").write_text(corpus)
    code, out, err = run("evaluate", file, "--corpus", tmp_path / "c")
    assert (code, out) == (1, "") and err.count("\n") == 1
    assert "no word" in err or "There is no word" in err


@pytest.mark.parametrize("name", ["a.bin", "a.vec.gz", "glove.txt", "a.safetensors"])
def test_any_form_becomes_any_other_and_comes_back(
    name: str, file: Path, tmp_path: Path, run: Callable
) -> None:
    code, out, err = run("convert", file, tmp_path / name)
    assert (code, out) == (0, "") and "6 words, 3 dimensions" in err
    assert run("convert", tmp_path / name, tmp_path / "back.vec")[0] == 0
    assert (tmp_path / "back.vec").read_bytes() == file.read_bytes()


def test_a_form_that_is_told_goes_before_the_name_and_a_file_may_be_rewritten_in_place(
    file: Path, tmp_path: Path, run: Callable
) -> None:
    assert run("convert", file, tmp_path / "x.vec", "--to", "lineal")[0] == 0
    assert isinstance(load_vectors(tmp_path / "x.vec").matrix, np.memmap)
    assert (
        run(
            "convert", tmp_path / "x.vec", tmp_path / "x.vec", "--overwrite", "--to", "lineal", "--limit", "2"
        )[0]
        == 0
    )
    assert load_vectors(tmp_path / "x.vec").words == WORDS[:2]
    code, _, err = run("convert", file, tmp_path / "y.safetensors.gz")
    assert code == 2 and "can't be zipped" in err and not (tmp_path / "y.safetensors.gz").exists()
    assert run("near", file, "sun", "--format", "lineal")[0] == 1
    code, _, err = run("convert", file, tmp_path / "z", "--to", "numpy")
    assert code == 2 and "word2vec-binary" in err


def test_a_map_of_nothing_or_to_nowhere_is_refused() -> None:
    with pytest.raises(DataError, match="A map needs a word"):
        map_svg([])
    with pytest.raises(DataError, match="no place on the map for 'pole'"):
        map_svg([Spot("sun", 0, 0)], [("sun", "pole")])


@pytest.mark.parametrize("size", [3, 60, 400])
def test_bars_of_long_words_stay_inside_their_picture(size: int) -> None:
    root = ET.fromstring(bars_svg("sun", [("x" * size, 0.9), ("short", 0.3)]))
    wide = float(root.get("viewBox", "").split()[2])
    bars = [(float(r.get("x", 0)), float(r.get("width", 0))) for r in list(root.iter(f"{SVG}rect"))[1:]]
    assert all(x > 0 and x + width + 40 < wide for x, width in bars)
    assert bars[0][1] == pytest.approx(3 * bars[1][1], rel=0.02) and bars[0][1] > 100
