"""What `lineal generate` can show beside plain samples: streams, beams, seeds per prompt, and explanations."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest

from lineal.cli import main
from lineal.models.decoder import PRESETS, Decoder
from lineal.models.hf import save_model
from lineal.tokenizers import CharTokenizer


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model that knows digits and signs, with weights from a seed."""
    folder = tmp_path_factory.mktemp("models") / "tiny"
    tokenizer = CharTokenizer.train("0123456789+-= <")
    shape = {"width": 16, "layers": 1, "heads": 2, "kv_heads": 2, "inner": 32, "context": 24}
    decoder = Decoder(PRESETS["llama"](vocab_size=tokenizer.vocab_size, **shape)).initialise(3)
    save_model(decoder, folder, eos_id=tokenizer.eos_id, pad_id=tokenizer.pad_id, bos_id=tokenizer.bos_id)
    tokenizer.save(folder)
    return folder


def said(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    """Exit code, output and errors of a command line."""
    code = main(["generate", *map(str, words)])
    out, err = capsys.readouterr()
    return code, out, err


def test_a_stream_shows_what_is_sampled(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [model, "--prompt", "1+1=", "--max-new-tokens", 12, "--seed", 4]
    whole = said(capsys, *words)
    assert said(capsys, *words, "--stream") == whole
    assert whole[1].startswith("1+1=")


def test_a_stream_of_several_is_lines_of_json(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [model, "--prompt", "1+1=", "2-1=", "--samples", 2, "--max-new-tokens", 9, "--json"]
    _, out, _ = said(capsys, *words)
    whole = [json.loads(line) for line in out.splitlines()]
    code, out, _ = said(capsys, *words, "--stream")
    texts, ends = [""] * 4, {}
    for line in out.splitlines():
        piece = json.loads(line)
        row = 2 * piece["prompt"] + piece["sample"]
        texts[row] += piece["text"]
        ends |= {row: piece["finish"]} if piece["finish"] else {}
    assert code == 0
    assert [(texts[i], ends[i]) for i in range(4)] == [(w["completion"], w["finish"]) for w in whole]


def test_beams_come_best_first_with_their_scores(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [model, "--prompt", "1+1=", "--beams", 4, "--samples", 3, "--max-new-tokens", 6, "--json"]
    code, out, _ = said(capsys, *words)
    scores = [json.loads(line)["score"] for line in out.splitlines()]
    assert code == 0 and len(scores) == 3 and scores == sorted(scores, reverse=True)
    assert said(capsys, *words, "--no-repeat-ngram", 2)[0] == 0


def test_each_prompt_may_have_its_seed(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [model, "--max-new-tokens", 12, "--json", "--prompt"]
    _, both, _ = said(capsys, *words, "1+1=", "2-1=", "--seed", 5, 6)
    _, alone, _ = said(capsys, *words, "1+1=", "--seed", 5)
    assert both.splitlines()[0] == alone.splitlines()[0]


def test_an_explanation_is_a_table_of_every_filter(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = said(
        capsys, model, "--prompt", "1+1=", "--generated", "22", "--explain", "--tokens", 5, "--top-k", 3,
        "--frequency-penalty", 0.5, "--temperature", 0.7, "--filter-order", "top_k", "temperature", "frequency",
    )  # fmt: skip
    assert (code, err) == (0, "")
    head, *rows = out.splitlines()
    assert head.split() == ["token", "model", "top_k", "temperature", "frequency"]
    assert len([row for row in rows if "." in row and row.split()[0] not in ("kept", "nats")]) >= 5
    (kept,) = [row.split()[1:] for row in rows if row.startswith("kept")]
    assert kept[1:] == ["3", "3", "3"] and int(kept[0]) > 3
    assert "logit - 0.5 n" in out and "seed 0 draws" in out


@pytest.mark.parametrize("suffix", [".svg", ".html"])
def test_an_explanation_draws_its_picture(
    model: Path, suffix: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / f"filters{suffix}"
    words = ["--explain", "--top-p", 0.4, "--min-p", 0.2, "--out", path, "--tokens", 99]
    code, _, err = said(capsys, model, "--prompt", "1<script>"[:2], *words)
    assert code == 0 and str(path) in err
    text = path.read_text()
    if suffix == ".svg":
        tree = ElementTree.fromstring(text)
        bars = [r for r in tree.iter() if r.tag.endswith("rect") and r.get("class") == "now"]
        assert len(bars) > 18
    for part in ("top_p", "min_p", "the fewest that sum to 0.4", "×", "&lt;"):
        assert part in text
    assert "<script" not in text


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--stream", "--samples", "2"], "--stream shows one completion"),
        (["--beams", "2", "--top-p", "0.5"], "--top-p belongs to sampling"),
        (["--beams", "2", "--stream"], "--stream belongs to sampling"),
        (["--beams", "2", "--samples", "3"], "--beams 2 finds no 3 completions"),
        (["--beams", "-1"], "--beams -1: must be"),
        (["--seed", "1", "2"], "--seed has 2 numbers for 1 prompts"),
        (["--out", "x.html"], "--out names the picture that --explain draws"),
        (["--explain", "--out", "x.png"], "a picture ends in .html or .svg"),
        (["--explain", "--tokens", "0"], "--tokens 0: must be at least 1"),
        (["--explain", "--prompt", "1", "2"], "--explain shows one distribution"),
        (["--top-k", "2", "--filter-order", "top_p"], "top_k is on, but filter_order top_p leaves it out"),
    ],
)
def test_what_cannot_be_combined_is_refused(
    model: Path, words: list[str], text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    prompt = [] if "--prompt" in words else ["--prompt", "1"]
    code, out, err = said(capsys, model, *prompt, *words)
    assert (code, out) == (2, "")
    assert text in err and err.count("\n") == 1
