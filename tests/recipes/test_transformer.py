"""`lineal run transformer` and `lineal translate` as they are typed: two files in, a translation model out."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch

from lineal.models.hf.marian import load_marian
from lineal.recipes import staged, transformer, transformer_loop
from lineal.train.run import Run
from lineal.train.translation import snapshots
from lineal.train.translation.snapshots import average, put, snapshot

SMALL = ("--encoder-layers", "1", "--decoder-layers", "1", "--width", "16", "--inner", "32", "--heads", "2", "--dropout", "0.1",
         "--threads", "1", "--dtype", "float32", "--quiet", "--vocab-size", "300", "--batch-tokens", "60", "--warmup", "2",
         "--beams", "2", "--max-new-tokens", "8")  # fmt: skip
STEPS = ("--steps", "6", "--save-every", "2", "--snapshot-every", "1", "--average", "3", "--eval-every", "3")
WORDS = "a b c d e f g h i j"
needs_bleu = pytest.mark.skipif(find_spec("sacrebleu") is None, reason="BLEU needs the [mt] extra")


@pytest.fixture
def files(tmp_path: Path) -> tuple[str, ...]:
    """Forty pairs in two files, as options."""
    for name, text in (("s.en", "a dog {} runs"), ("t.de", "ein Hund {} rennt")):
        (tmp_path / name).write_text(
            "".join(text.format(WORDS.split()[i % 10] * (i // 10 + 1)) + "\n" for i in range(40))
        )
    return "--source-file", str(tmp_path / "s.en"), "--target-file", str(tmp_path / "t.de")


def metrics(path: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl."""
    return [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]


def test_the_copy_task_is_solved(say: Callable[..., Any], tmp_path: Path) -> None:
    """The default run, to the last word of 100 new sentences; 5 s on one core."""
    run = tmp_path / "run"
    said = say(
        "run",
        "transformer",
        "--out",
        run,
        "--threads",
        "1",
        "--dtype",
        "float32",
        "--quiet",
        "--eval-every",
        "0",
    )
    assert said.code == 0, said.err
    assert "100.0 % word for word" in said.err
    final = metrics(run)[-1]
    assert final["eval/final"] and final["eval/exact"] == 1.0 and final["eval/perplexity"] < 1.2
    assert f"lineal translate {run} < FILE" in said.out
    translated = say("translate", run, "c a d h b", "j i h", "--beams", "1", "--threads", "1")
    assert translated.out == "c a d h b\nj i h\n"


@pytest.fixture
def trained(say: Callable[..., Any], files: tuple[str, ...], tmp_path: Path) -> Path:
    """A few steps on two files."""
    said = say("run", "transformer", "--out", tmp_path / "run", *SMALL, *STEPS, *files, "--held-out", "0.2")
    assert said.code == 0, said.err
    return tmp_path / "run"


def test_what_a_run_leaves(trained: Path) -> None:
    lines = metrics(trained)
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5, 6, 6]
    assert {"loss", "nll", "token_accuracy", "grad_norm", "learning_rate", "num_tokens", "epoch"} <= set(
        lines[0]
    )
    assert {"eval/loss", "eval/perplexity", "eval/bits_per_byte", "eval/token_accuracy"} <= set(lines[2])
    assert len((trained / "translations.txt").read_text().splitlines()) == 8
    names = sorted(path.name for path in (trained / "final").iterdir())
    assert names == ["README.md", "config.json", "generation_config.json", "model.safetensors", "tokenizer.json",
                     "tokenizer_config.json"]  # fmt: skip
    assert sorted(p.name for p in (trained / "snapshots").iterdir()) == ["step-4", "step-5", "step-6"]
    assert (trained / "best" / "step-3").is_dir() and "transformer" in (trained / "report.html").read_text()


@needs_bleu
def test_bleu_is_logged_with_its_signature(trained: Path) -> None:
    assert "eval/bleu" in metrics(trained)[2] and "eval/bleu_tokenised_lower" in metrics(trained)[-1]
    assert "tok:13a" in (trained / "final" / "README.md").read_text()
    assert "<b>BLEU</b>" in (trained / "report.html").read_text()


def test_final_is_the_mean_of_the_last_snapshots(trained: Path) -> None:
    with Run.open(trained) as run:
        expected = average(run, 3, 6)
        last = average(run, 1, 6)
    model = load_marian(trained / "final")
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter, expected[name], atol=1e-7, rtol=0)
    assert not torch.equal(last["embedding.weight"], expected["embedding.weight"])


def test_averages_by_hand_and_damage_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = torch.nn.Linear(2, 2)
    with Run.create(tmp_path / "run", {}) as run:
        for step, value in ((10, 1.0), (20, 2.0), (30, 6.0), (40, 100.0)):
            put(model, {"weight": torch.full((2, 2), value), "bias": torch.zeros(2)})
            snapshot(run, model, step, keep=5)
        assert average(run, 3, upto=30)["weight"].unique().tolist() == [3.0]
        file = run.path / "snapshots" / "step-20" / "tensors.safetensors"
        file.write_bytes(file.read_bytes()[:-1])
        assert average(run, 3, upto=30)["weight"].unique().tolist() == [3.5]
    assert "step-20" in capsys.readouterr().err
    assert not snapshots.average(Run.follow(tmp_path / "none", {}), 3, 10)


@pytest.mark.parametrize("what", ["last", "best"])
def test_other_weights_can_be_kept(
    what: str, say: Callable[..., Any], files: tuple[str, ...], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    assert say("run", "transformer", "--out", run, *SMALL, *STEPS, *files, "--final", what).code == 0
    with Run.open(run) as opened:
        expected = average(opened, 1, 6, "best" if what == "best" else "snapshots")
    model = load_marian(run / "final")
    torch.testing.assert_close(
        model.embedding.weight.detach(), expected["embedding.weight"], atol=1e-7, rtol=0
    )


def outcome(path: Path) -> dict[str, bytes]:
    """Everything that must be equal."""
    names = (
        "final/model.safetensors",
        "final/tokenizer.json",
        "metrics.jsonl",
        "samples.jsonl",
        "translations.txt",
    )
    content = {name: (path / name).read_bytes() for name in names}
    content["checkpoint"] = (path / "checkpoints" / "step-6" / "tensors.safetensors").read_bytes()
    return content


def die() -> None:
    """What kill -9 does."""
    os.kill(os.getpid(), signal.SIGKILL)


def test_killed_anywhere_and_resumed_it_ends_the_same(
    command: Callable[..., int], files: tuple[str, ...], tmp_path: Path, die_at: Callable
) -> None:
    words = ["run", "transformer", *SMALL, *STEPS, *files, "--held-out", "0.2"]
    assert command([*words, "--out", str(tmp_path / "straight")]) == 0
    expected = outcome(tmp_path / "straight")
    faults = {
        "optimiser": die_at(torch.optim.AdamW, "step", 4),
        "snapshot": die_at(transformer_loop, "snapshot", 5),
        "checkpoint": die_at(staged, "save", 2),
        "validation": die_at(transformer_loop, "judge", 1),
        "average": die_at(transformer_loop, "average", 1),
        "final": die_at(transformer_loop, "save_marian", 1),
    }
    for name, fault in faults.items():
        run, log = tmp_path / name, tmp_path / f"{name}.log"
        assert command([*words, "--out", str(run)], before=fault, log=log) == -signal.SIGKILL, log.read_text()
        assert command(["resume", str(run)], log=log) == 0, log.read_text()
        assert [k for k, v in outcome(run).items() if v != expected[k]] == [], name


def test_the_gradient_does_not_depend_on_the_token_budget(
    say: Callable[..., Any], files: tuple[str, ...], tmp_path: Path
) -> None:
    found = []
    for number, budget in enumerate((16384, 20)):
        words = (
            "--out",
            tmp_path / str(number),
            *SMALL,
            *files,
            "--steps",
            "1",
            "--dropout",
            "0",
            "--dtype",
            "float64",
        )
        assert say("run", "transformer", *words, "--token-budget", budget).code == 0
        found.append(metrics(tmp_path / str(number))[0])
    assert found[0]["grad_norm"] == pytest.approx(found[1]["grad_norm"], rel=1e-9)
    assert found[0]["loss"] == pytest.approx(found[1]["loss"], rel=1e-12)


def test_a_step_that_is_not_finite_is_refused(
    say: Callable[..., Any], files: tuple[str, ...], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    said = say(
        "run",
        "transformer",
        "--out",
        run,
        *SMALL,
        *files,
        "--steps",
        "9",
        "--schedule",
        "constant",
        "--learning-rate",
        "1e30",
    )
    assert said.code == 1 and "refused 3 times in a row" in said.err and "Lower the learning rate" in said.err
    assert list((run / "refused").iterdir())


def test_a_dry_run_says_what_it_would_take(
    say: Callable[..., Any], files: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    said = say("run", "transformer", *SMALL, *files, "--dry-run")
    assert said.code == 0, said.err
    for part in (
        "minimise mean over target tokens",
        "39 pairs",
        "parameters",
        "GFLOP a step",
        "MiB",
        "time, about",
    ):
        assert part in said.out, part
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("preset", ["tiny", "multi30k", "base", "big"])
def test_presets(preset: str) -> None:
    asked = dataclasses.replace(
        transformer.default(), model=dataclasses.replace(transformer.default().model, preset=preset)
    )
    config = transformer.tuned(asked)
    assert config.model.preset == preset
    names = [field.name for group in vars(config).values() for field in dataclasses.fields(group)]
    assert len(vars(config)) <= 5 and len(names) == len(set(names))
    assert all(len(dataclasses.fields(group)) <= 25 for group in vars(config).values())
    if preset in ("base", "big"):
        assert (
            config.optimiser.schedule == "noam"
            and config.optimiser.warmup == 4000
            and config.optimiser.epsilon == 1e-9
        )


BAD = {
    "preset": (("--preset", "huge"), 2, ("--preset huge", "tiny, multi30k, base, big")),
    "half a pair": (("--target-file", "x"), 2, ("belong together",)),
    "smoothing": (("--smoothing", "1"), 2, ("--smoothing 1",)),
    "width": (("--width", "30", "--heads", "4"), 2, ("--width 30", "--heads 4")),
    "batch": (("--batch-tokens", "5"), 2, ("--batch-tokens 5", "11 tokens")),
    "schedule": (
        ("--schedule", "nom"),
        2,
        ("--schedule nom is not one of noam, constant, linear", "Did you mean noam?"),
    ),
    "final": (("--final", "first"), 2, ("--final first",)),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_options(case: str, say: Callable[..., Any], tmp_path: Path) -> None:
    words, code, parts = BAD[case]
    said = say(
        "run", "transformer", "--out", tmp_path / "run", "--steps", "2", "--quiet", "--threads", "1", *words
    )
    (line,) = [line for line in said.err.splitlines() if line.startswith("lineal: ")]
    assert said.code == code and all(part in line for part in parts), said.err
    assert (
        not (tmp_path / "run" / "metrics.jsonl").exists()
        or not (tmp_path / "run" / "metrics.jsonl").read_text()
    )


def test_files_of_unequal_length(say: Callable[..., Any], files: tuple[str, ...], tmp_path: Path) -> None:
    Path(files[3]).write_text("nur eine\n")
    said = say("run", "transformer", "--out", tmp_path / "run", *SMALL, *files)
    assert (
        said.code == 1 and "s.en has 40 lines" in said.err and "t.de 1:" in said.err and "s.en:2:" in said.err
    )


def test_odd_lines_are_counted_by_name(
    say: Callable[..., Any], files: tuple[str, ...], tmp_path: Path
) -> None:
    with open(files[1], "a") as source, open(files[3], "a") as target:
        source.write("\n" + "dog " * 100_000 + "\nshort\n\u4e2d\u6587 \U0001f600 \x07\n")
        target.write("leer\nlang\n" + "gar nicht kurz " * 20 + "\n\u4e2d\u6587\n")
    said = say(
        "run",
        "transformer",
        "--out",
        tmp_path / "run",
        *SMALL,
        *files,
        "--steps",
        "1",
        "--batch-tokens",
        "200",
    )
    assert said.code == 0, said.err
    assert "left out: 1 empty, 1 too long, 1 ratio" in said.err


class TestTranslate:
    def test_lines_keep_their_places(
        self, trained: Path, say: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        feed(monkeypatch, b"a dog a runs\n\r\n   \na dog runs\xe4\xb8\xad\n")
        said = say("translate", trained, "--threads", "1", "--max-new-tokens", "5")
        assert said.code == 0, said.err
        lines = said.out.split("\n")
        assert len(lines) == 5 and lines[1] == lines[2] == lines[4] == ""
        alone = say("translate", trained, "a dog a runs", "--threads", "1", "--max-new-tokens", "5")
        assert alone.out.rstrip("\n") == lines[0]

    def test_a_line_too_long(
        self, trained: Path, say: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        feed(monkeypatch, b"a dog\n" + b"dog " * 100_000 + b"\n")
        said = say("translate", trained, "--threads", "1", "--max-new-tokens", "3")
        assert (
            said.code == 2
            and "line 2 has 100,000 subwords and the model takes 1,023" in said.err
            and not said.out
        )
        feed(monkeypatch, b"a dog\n" + b"dog " * 2000 + b"\n")
        said = say("translate", trained, "--threads", "1", "--max-new-tokens", "3", "--cut")
        assert said.code == 0 and said.out.count("\n") == 2

    def test_bytes_that_are_no_text(
        self, trained: Path, say: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        feed(monkeypatch, b"a\n\xff\n")
        said = say("translate", trained, "--threads", "1")
        assert said.code == 1 and "standard input:2: byte 0xff is not UTF-8" in said.err

    @needs_bleu
    def test_a_reference_gives_bleu(self, trained: Path, say: Callable[..., Any], tmp_path: Path) -> None:
        (tmp_path / "r").write_text("ein Hund a rennt\n")
        words = (
            "translate",
            trained,
            "a dog a runs",
            "--threads",
            "1",
            "--max-new-tokens",
            "4",
            "--reference",
        )
        said = say(*words, tmp_path / "r")
        assert said.code == 0 and "BLEU" in said.err and "tok:13a" in said.err
        (tmp_path / "r").write_text("eins\nzwei\n")
        assert "has 2 lines, and 1 were translated" in say(*words, tmp_path / "r").err

    def test_maps(self, trained: Path, say: Callable[..., Any], tmp_path: Path) -> None:
        page = tmp_path / "maps.html"
        said = say(
            "translate", trained, "a <b> dog", "--threads", "1", "--max-new-tokens", "4", "--maps", page
        )
        assert said.code == 0, said.err
        text = page.read_text()
        assert text.count("<svg") == 3 * 1 * 2 and "<script" not in text and "style=" not in text
        assert "a &lt;b&gt; dog" in text and "Content-Security-Policy" in text

    def test_other_models_say_so(self, trained: Path, say: Callable[..., Any], tmp_path: Path) -> None:
        said = say("generate", trained, "--prompt", "a")
        assert said.code == 1 and "lineal translate" in said.err
        (tmp_path / "gpt2").mkdir()
        (tmp_path / "gpt2" / "config.json").write_text('{"model_type": "gpt2"}')
        assert "a gpt2 is no translation model" in say("translate", tmp_path / "gpt2", "a").err


def feed(monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    """Standard input with these bytes."""
    import io

    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(content)))
