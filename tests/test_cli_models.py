"""generate, eval and doctor on a tiny model; hostile text stays harmless; pass@k is the unbiased estimate."""

from __future__ import annotations

import io
import json
import math
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

from lineal.cli import main
from lineal.cli_models import Judging, Loading, load, measure, visible
from lineal.environments.text import Example, TextTask
from lineal.generate.sampling import Sampling
from lineal.models.decoder import PRESETS, Decoder
from lineal.models.hf import save_model
from lineal.recipes.config import DataOptions, PolicyGradientConfig, to_json
from lineal.tokenizers import CharTokenizer
from lineal.train.gathered import Gathered
from lineal.types import Completion


def make_model(folder: Path) -> Path:
    """A tiny model that knows digits and signs, with weights from a seed."""
    tokenizer = CharTokenizer.train("0123456789+-=")
    shape = {"width": 16, "layers": 1, "heads": 2, "kv_heads": 2, "inner": 32, "context": 24}
    decoder = Decoder(PRESETS["llama"](vocab_size=tokenizer.vocab_size, **shape))
    decoder.initialise(3)
    save_model(decoder, folder, eos_id=tokenizer.eos_id, pad_id=tokenizer.pad_id, bos_id=tokenizer.bos_id)
    tokenizer.save(folder)
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder."""
    return make_model(tmp_path_factory.mktemp("models") / "tiny")


def said(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    """Exit code, output and errors of a command line."""
    code = main(list(words))
    out, err = capsys.readouterr()
    return code, out, err


def rows(out: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in out.splitlines()]


def test_generate_prints_prompt_and_completion(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["generate", str(model), "--prompt", "1+1=", "2-1=", "--samples", "2", "--max-new-tokens", "5"]
    code, out, err = said(capsys, *words)
    assert (code, err) == (0, "")
    assert [line[:4] for line in out.splitlines()] == ["1+1=", "1+1=", "2-1=", "2-1="]


def test_generate_is_determined_by_its_seed(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["generate", str(model), "--prompt", "1+1=", "--samples", "6", "--json", "--seed"]
    first, again, other = (said(capsys, *words, seed)[1] for seed in ("5", "5", "6"))
    assert first == again != other
    assert {"prompt", "completion", "tokens", "finish"} == set(rows(first)[0])
    assert all(row["tokens"] <= 20 and row["finish"] in ("stop", "length") for row in rows(first))


def test_a_prompt_from_standard_input(
    model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("3+4=\n"))
    code, out, _ = said(capsys, "generate", str(model), "--json", "--temperature", "0")
    assert code == 0 and rows(out)[0]["prompt"] == "3+4="


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (["--samples", "0"], 2, "--samples 0: must be at least 1."),
        (["--top-p", "2"], 2, "top_p is 2.0"),
        (["--dtype", "int8"], 2, "--dtype int8 is not one of"),
        (["--tempreature", "1"], 2, "did you mean --temperature?"),
        (["--prompt", "1" * 30], 1, "context"),
        (["--prompt", ""], 1, "no tokens"),
    ],
)
def test_generate_refuses_what_cannot_work(
    model: Path, words: list[str], code: int, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    prompt = [] if "--prompt" in words else ["--prompt", "1"]
    found, out, err = said(capsys, "generate", str(model), *prompt, *words)
    assert (found, out) == (code, "")
    assert text in err and err.count("\n") == 1


def test_a_model_that_is_not_there(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert said(capsys, "generate", str(tmp_path / "no"), "--prompt", "1")[0] == 1
    code, _, err = said(capsys, "generate", "--prompt", "1")
    assert code == 2 and "0 models were given, not one" in err


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\nb", "a\nb"),
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x1b]0;title\x07x", "x"),
        ("a\rb", "a\ufffdb"),
        ("[bold]x[/bold]", "[bold]x[/bold]"),
    ],
)
def test_what_terminals_obey_is_not_printed(text: str, shown: str) -> None:
    assert visible(text) == shown


def test_eval_of_a_file(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = tmp_path / "d.jsonl"
    data.write_text("".join(json.dumps({"q": f"{i}+1=", "a": str(i + 1)}) + "\n" for i in range(6)))
    fields = ["--prompt-field", "q", "--completion-field", "a", "--max-new-tokens", "4"]
    code, out, _ = said(capsys, "eval", str(model), "--data", str(data), *fields, "--samples", "5", "--json")
    result = json.loads(out)
    assert code == 0
    assert (result["prompts"], result["samples"]) == (6, 5)
    assert [k for k in result if k.startswith("pass@") and "_" not in k] == ["pass@1", "pass@2", "pass@4"]
    assert 0 <= result["pass@1"] <= result["pass@2"] <= result["pass@4"] <= 1
    assert result["pass@1"] == pytest.approx(result["reward"])


def test_eval_reads_as_lines(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = tmp_path / "d.jsonl"
    data.write_text('{"prompt": "1+1=", "answer": "2"}\n')
    out = said(capsys, "eval", str(model), "--data", str(data), "--max-new-tokens", "3")[1]
    assert [line.split()[0] for line in out.splitlines()] == [
        "prompts",
        "samples",
        "pass@1",
        "greedy",
        "reward",
        "length",
    ]
    assert " ± " in out.splitlines()[2]


def make_run(folder: Path, reward: tuple[str, ...] = ()) -> Path:
    """A finished run of the embedded task."""
    folder.mkdir()
    make_model(folder / "final")
    config = to_json(PolicyGradientConfig(data=DataOptions(level=1, reward=reward)))
    record = {"config": {"recipe": "grpo", "options": config}, "device": {}, "versions": {}, "keep": {}}
    (folder / "config.json").write_text(json.dumps(record))
    return folder


@pytest.mark.parametrize("part", ["", "final"])
def test_eval_of_a_run_uses_its_own_held_out_prompts(
    tmp_path: Path, part: str, capsys: pytest.CaptureFixture[str]
) -> None:
    from lineal.environments.arithmetic import arithmetic_task

    code, out, _ = said(capsys, "eval", str(make_run(tmp_path / "run") / part), "--json")
    assert code == 0
    assert json.loads(out)["prompts"] == len(arithmetic_task(1).held_out)


def test_eval_of_a_bare_model_needs_data(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = said(capsys, "eval", str(model))
    assert code == 2 and "is a model, not a run: say what it is judged on with --data FILE." in err


def test_a_run_s_reward_file_is_not_run_unasked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "evil.py"
    file.write_text(
        f"open({str(tmp_path / 'ran')!r}, 'w')\ndef f(completions, **_): return [1.0] * len(completions)\n"
    )
    run = make_run(tmp_path / "run", (f"{file}:f",))
    code, _, err = said(capsys, "eval", str(run))
    assert code == 2 and f"--reward {file}:f" in err
    assert not (tmp_path / "ran").exists()
    code, out, _ = said(capsys, "eval", str(run), "--reward", f"{file}:f", "--json")
    assert code == 0 and json.loads(out)["pass@1"] == 1.0


def test_pass_at_k_is_what_drawing_k_of_n_gives(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rewards = [[1.0, 0.0, 0.0, 1.0], [0.0] * 4, [1.0] * 4, [0.0, 0.5, 2.0, 0.0]]

    def answered(decoder: Any, source: Any, examples: Any, samples: int) -> Gathered:
        said = [[Completion((1,), (0.0,), "stop")] * samples for _ in examples]
        return Gathered(examples, [], said, [], [group[:samples] for group in rewards])

    monkeypatch.setattr("lineal.train.evaluate.answers", answered)
    examples = [Example(f"{i}+", {"answer": "1"}, "1") for i in range(4)]
    task = TextTask("t", tuple(examples), (), ())
    loaded = load(str(model), Loading())
    result = measure(loaded, examples, task, DataOptions(), Sampling(max_new_tokens=2), Judging(samples=4))
    for k in (1, 2, 4):
        drawn = [[any(r >= 1 for r in some) for some in combinations(group, k)] for group in rewards]
        expected = [sum(group) / len(group) for group in drawn]
        mean = sum(expected) / 4
        assert result[f"pass@{k}"] == pytest.approx(mean)
        spread = sum((x - mean) ** 2 for x in expected) / 3
        assert result[f"pass@{k}_error"] == pytest.approx(math.sqrt(spread / 4))
    assert result["greedy"] == 0.5
    assert result["reward"] == pytest.approx((0.5 + 0 + 1 + 0.625) / 4)


def test_doctor_prints_what_there_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    facts = {"versions": {"torch": "9.9", "datasets": None}, "device": "cpu", "probe_ms": {"float32": 1.5}}
    monkeypatch.setattr("lineal.train.device.describe", lambda: facts)
    code, out, _ = said(capsys, "doctor")
    assert code == 0
    lines = [" ".join(line.split()) for line in out.splitlines()]
    assert lines == [
        "versions torch 9.9",
        "versions datasets not installed",
        "device cpu",
        "probe ms float32 1.5",
    ]
    assert json.loads(said(capsys, "doctor", "--json")[1]) == facts


def test_every_end_token_of_the_model_ends_a_completion(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_model(tmp_path / "m")
    greedy = ["generate", str(folder), "--prompt", "1+1=", "--temperature", "0", "--json"]
    (folder / "generation_config.json").write_text("{}")
    whole = rows(said(capsys, *greedy)[1])[0]
    assert whole["tokens"] > 1
    first = load(str(folder), Loading()).tokenizer.encode(whole["completion"])[0]
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [0, first]}))
    cut = rows(said(capsys, *greedy)[1])[0]
    assert (cut["tokens"], cut["finish"]) == (1, "stop")
