"""`lineal predict`: plain lines, lines of JSON, files of columns, and what is wrong named with its line."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from lineal.cli import main
from lineal.models.decoder import Decoder, gpt1_config
from lineal.models.finetuned import DecoderBody, FineTuned
from lineal.models.hf import save_model
from lineal.tokenizers.training import Learning, train
from lineal.train.finetune.inputs import extended
from lineal.train.finetune.predictor import Facts, Predictor, save_predictor


def make(folder: Path, kind: str, columns: dict) -> Path:
    """A folder with a random fine-tuned model."""
    tokenizer, marks = extended(train("bpe", texts=["a fine film"] * 5, learning=Learning(vocab_size=280)))
    decoder = Decoder(gpt1_config(marks.extract + 1, 16, 1, 2, 64, 24)).initialise(0)
    model = FineTuned(DecoderBody(decoder), kind, 2, 0.0)
    facts = Facts(kind, ("no", "yes"), marks, columns={"task": kind, **columns})
    save_model(decoder, folder)
    tokenizer.save(folder)
    save_predictor(folder, Predictor(model, tokenizer, facts))
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classifier that was trained on a column `review`."""
    return make(tmp_path_factory.mktemp("m"), "classification", {"text_field": "review"})


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of pairs."""
    return make(tmp_path_factory.mktemp("p"), "pair", {"text_field": "one", "second_field": "two"})


class Input(io.StringIO):
    """Standard input with its bytes."""

    def __init__(self, raw: bytes):
        super().__init__("")
        self.buffer = io.BytesIO(raw)  # type: ignore[assignment]


def said(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, raw: bytes, *words: object
) -> tuple[int, str, str]:
    """Exit code, output and errors."""
    monkeypatch.setattr("sys.stdin", Input(raw))
    code = main(["predict", *map(str, words)])
    out, err = capsys.readouterr()
    return code, out, err


def test_a_line_in_is_a_line_out(model: Path, capsys, monkeypatch) -> None:
    code, out, err = said(capsys, monkeypatch, b"a fine film\na film\r\nfine", model)
    assert (code, err) == (0, "")
    assert len(out.splitlines()) == 3 and set(out.split()) <= {"no", "yes"}


def test_json_gives_probabilities(model: Path, capsys, monkeypatch) -> None:
    code, out, _ = said(capsys, monkeypatch, b"", model, "a fine film", "film", "--json")
    found = [json.loads(line) for line in out.splitlines()]
    assert code == 0 and len(found) == 2
    assert all(sum(row["probabilities"].values()) == pytest.approx(1) for row in found)


def test_lines_of_json_are_read_by_the_columns_of_training(
    model: Path, pairs: Path, capsys, monkeypatch
) -> None:
    plain = said(capsys, monkeypatch, b"a fine film\n", model, "--json")
    assert said(capsys, monkeypatch, b'{"review": "a fine film"}\n', model, "--json") == plain
    assert said(capsys, monkeypatch, b'{"one": "a film", "two": "fine"}\n', pairs)[0] == 0


def test_a_mark_of_byte_order_is_no_text(model: Path, capsys, monkeypatch) -> None:
    plain = said(capsys, monkeypatch, b"a fine film\n", model, "--json")
    for raw in ("\ufeffa fine film\r\n", '\ufeff{"review": "a fine film"}\n'):
        assert said(capsys, monkeypatch, raw.encode(), model, "--json") == plain
    assert said(capsys, monkeypatch, "a fine film\u2028a\u0085b\nb".encode(), model)[1].count("\n") == 2


def test_texts_in_quotes_and_a_file_are_one_too_many(model: Path, capsys, monkeypatch) -> None:
    code, _, err = said(capsys, monkeypatch, b"", model, "a film", "--data", "rows.csv")
    assert code == 2 and "texts in quotes and --data rows.csv: give one of them" in err
    assert said(capsys, monkeypatch, b"", model, "a", "--threads", "-1")[0] == 2


def test_a_file_of_columns(model: Path, tmp_path: Path, capsys, monkeypatch) -> None:
    data = tmp_path / "d.csv"
    data.write_text("id,review\n1,a fine film\n2,film\n")
    code, out, _ = said(capsys, monkeypatch, b"", model, "--data", data)
    assert code == 0 and len(out.splitlines()) == 2


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (b"a\n\nb\n", "standard input:2: the line is empty"),
        (b"a\n\xff\n", "standard input:2: byte 0xff is not UTF-8"),
        (b'{"review": 3}\n', "standard input:1: 'review' is a int, not text"),
        (b'{"text": "a"}\n', "standard input:1: there is no field 'review'"),
        (b'{"review": "a", "review": "b"}\n', "standard input:1:17: a line that starts with { must be"),
        (b'a\n{"review": "a", "n": NaN}\n', "standard input:2:22: a line that starts with { must be"),
        (b'{"review": "a"} b\n', "standard input:1:17: a line that starts with { must be"),
        (b'{"review": "\\ud800"}\n', "a line that starts with { must be a JSON object"),
        (b'{"review": \n', "standard input:1:12: a line that starts with { must be a JSON object"),
    ],
)
def test_what_cannot_be_read_is_named_with_its_line(
    model: Path, raw: bytes, text: str, capsys, monkeypatch
) -> None:
    code, _, err = said(capsys, monkeypatch, raw, model)
    assert code == 1 and text in err and err.count("\n") == 1


def test_plain_lines_are_no_pairs(pairs: Path, capsys, monkeypatch) -> None:
    code, _, err = said(capsys, monkeypatch, b"a film\n", pairs)
    assert code == 1 and "pair takes several texts: give JSON objects with the columns 'one'" in err


def test_no_model_and_no_text_are_refused(model: Path, tmp_path: Path, capsys, monkeypatch) -> None:
    assert said(capsys, monkeypatch, b"")[0] == 2
    code, _, err = said(capsys, monkeypatch, b"a", tmp_path / "none")
    assert code == 1 and "does not exist" in err
    assert "predict RUN" in said(capsys, monkeypatch, b"", "--help")[1]
