"""The command about tokenizers: trains, encodes, decodes, shows, compares, converts; one line for what goes wrong."""

from __future__ import annotations

import io
import json
import shlex
import signal
import subprocess
import sys
import time
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from lineal import cli_tokenizer_work
from lineal.cli import main
from lineal.cli_tokenizer import ACTIONS
from lineal.cli_tokenizer_look import coloured, in_colour
from lineal.cli_tokenizer_work import Bar, staged
from lineal.errors import ModelError
from lineal.tokenizers.inspecting import Cell
from lineal.tokenizers.opening import open_tokenizer
from lineal.tokenizers.training import KINDS

CORPUS = "the cat sat on the mat\nhugs and mugs, 12 or 345 coins\nthe naïve cat\n" * 5


class Page(HTMLParser):
    """The tags, attributes and text of a page."""

    def __init__(self, content: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[str] = []
        self.said = ""
        self.feed(content)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [name for name, _ in attrs]

    def handle_data(self, data: str) -> None:
        self.said += data


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    path = tmp_path / "corpus.txt"
    path.write_text(CORPUS, encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def bpe(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder with a small byte-level BPE."""
    folder = tmp_path_factory.mktemp("bpe")
    (folder / "corpus.txt").write_text(CORPUS, encoding="utf-8")
    assert tokenizer("train", folder / "corpus.txt", "--vocab-size", 300, "--out", folder / "t") == 0
    return str(folder / "t")


def tokenizer(*words: object) -> int:
    """The exit code of `lineal tokenizer WORDS`."""
    return main(["tokenizer", *map(str, words)])


def said(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    capsys.readouterr()
    code = tokenizer(*words)
    out, err = capsys.readouterr()
    return code, out, err


def test_help_names_every_action_and_loads_nothing_heavy(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = said(capsys, "--help")
    assert code == 0 and all(f"\n  {name} " in out for name in ACTIONS)
    assert said(capsys)[0] == 2
    for action in ACTIONS:
        code, out, _ = said(capsys, action, "--help")
        assert code == 0 and out.startswith(f"lineal tokenizer {action} ")
    program = (
        "import sys; from lineal.cli import main; main(['tokenizer', 'train', '--help'])\n"
        "assert not {'torch', 'numpy', 'tyro', 'rich'} & set(sys.modules), sys.modules.keys()"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert all(f"  {kind} " in done.stdout for kind in KINDS)


@pytest.mark.parametrize("kind", [*(kind for kind in KINDS if kind != "unigram"), "unigram"])
def test_each_kind_is_trained_and_used(
    corpus: Path, tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "new folder" / kind
    words = ("train", corpus, "--kind", kind, "--vocab-size", 320, "--algorithm", "bpe", "--out", out)
    code, text, err = said(capsys, *words)
    assert (code, err) == (0, "")
    assert (out / "tokenizer.json").is_file() and (out / "tokenizer.model").is_file() == (
        kind == "sentencepiece"
    )
    assert not [path for path in out.parent.iterdir() if path != out]
    assert f"{kind}: " in text and "bytes and" in text
    following = text.splitlines()[-1]
    assert following.startswith("next: lineal ")
    assert main(shlex.split(following)[2:]) == 0
    capsys.readouterr()
    assert tokenizer("encode", out, "--text", "the cat") == 0
    ids = capsys.readouterr().out
    assert json.loads(ids) == open_tokenizer(out).encode("the cat")
    assert said(capsys, "decode", out, "--ids", *json.loads(ids)) == (0, "the cat\n", "")


def test_training_says_what_it_reached(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, out, _ = said(capsys, "train", corpus, "--vocab-size", 5000, "--out", tmp_path / "t")
    assert f"the corpus gives no more than {open_tokenizer(tmp_path / 't').vocab_size} of the 5,000" in out


def test_a_dry_run_writes_nothing(corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = said(capsys, "train", corpus, "--kind", "wordpiece", "--out", tmp_path / "t", "--dry-run")
    assert (
        code == 0 and "BertSplit" in out and "[MASK]" in out and str(tmp_path / "t" / "tokenizer.json") in out
    )
    assert not (tmp_path / "t").exists()


def test_options_exchange_parts(corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = (
        "--split",
        "digit",
        "cl100k",
        "--normalise",
        "nfkc",
        "lowercase",
        "--special",
        "<|user|>",
        "--vocab-size",
        300,
    )
    assert said(capsys, "train", corpus, *options, "--out", tmp_path / "t")[0] == 0
    made = open_tokenizer(tmp_path / "t")
    assert made.decode(made.encode("ﬁT 12")) == "fit 12"
    assert made.encode("<|user|>", special=True) == [1]


def test_another_tokenizer_is_not_replaced_unasked(
    bpe: str, corpus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = Path(bpe, "tokenizer.json").read_bytes()
    code, _, err = said(capsys, "train", corpus, "--kind", "word", "--out", bpe)
    assert code == 2 and "has a tokenizer.json already" in err and "--overwrite" in err
    assert Path(bpe, "tokenizer.json").read_bytes() == before
    assert said(capsys, "train", corpus, "--vocab-size", 300, "--out", bpe, "--overwrite")[0] == 0
    assert Path(bpe, "tokenizer.json").read_bytes() == before


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        ("train {c} {t}/none.txt --out {t}/o", 1, "none.txt does not exist"),
        ("train {c} {t} --out {t}/o", 1, "is a folder, not a file"),
        ("train {t}/empty.txt --out {t}/o", 1, "There is no text in"),
        ("train {t}/latin.txt --out {t}/o", 1, "latin.txt:2: byte 0xff"),
        ("train {c} --vocab-size 9 --out {t}/o", 2, "vocab_size=9 is smaller than the 257 tokens"),
        ("train {c} --vocab-size x --out {t}/o", 2, "--vocab-size x: must be a whole number"),
        ("train {c} --kind morse --out {t}/o", 2, "--kind morse: must be one of word, char"),
        ("train {c} --split axe --out {t}/o", 2, "--split axe: must be one of gpt2"),
        ("train {c} --normalise x --out {t}/o", 2, "--normalise x: must be one of nfc"),
        ("train {c} --kind char --split bert --out {t}/o", 2, "takes no --special, --split"),
        ("train {c} --kind unigram --split gpt2 --out {t}/o", 2, "cuts before its spaces"),
        ("train {c} --workers 0 --out {t}/o", 2, "workers"),
        ("train {c} --out {c}", 2, "is a file: name a folder"),
        ("train {c} --out {c}/o", 1, "cannot be written"),
        ("train --out {t}/o", 2, "nothing was named: lineal tokenizer train FILE"),
        ("trian {c}", 2, "no action 'trian'; did you mean train?"),
        ("encode {t}/none --text a", 1, "none does not exist"),
        ("encode {b} {b} --text a", 2, "2 tokenizers were given, not one"),
        ("encode {b} --input {t}/latin.txt", 1, "latin.txt:2:1: byte 0xff"),
        ("encode {b} --text a --template --tokens", 2, "--template does not go with"),
        ("decode {b} --ids 5 99999", 1, "there is no id 99999: those of"),
        ("decode {b} --ids five", 2, "--ids five: must be a whole number"),
        ("decode {b} --input {c}", 1, "corpus.txt:1: this is no JSON list of ids"),
        ("inspect {b} {b}", 2, "2 tokenizers were given: lineal tokenizer compare"),
        ("inspect {b} --html {c}", 2, "corpus.txt is there already"),
        ("inspect {b} --longest -1", 2, "must be at least 0"),
        ("compare {b}", 2, "give --input FILE"),
        ("convert {b} {t}/o", 2, "--to None: must be one of huggingface"),
        ("convert {b} {t}/o --to gguf", 2, "--to gguf: must be one of huggingface"),
        ("convert {b} --to vocab", 2, "1 names were given"),
        ("convert {b} {b} --to huggingface", 2, "has a tokenizer.json already"),
        ("convert {b} {t}/o --to sentencepiece", 1, "split by Gpt2"),
    ],
)
def test_what_is_wrong_is_one_line(
    words: str,
    code: int,
    message: str,
    bpe: str,
    corpus: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "empty.txt").write_text("")
    (tmp_path / "latin.txt").write_bytes(b"fine\n\xff\n")
    filled = words.format(c=corpus, t=tmp_path, b=bpe).split()
    before = sorted(path.name for path in tmp_path.iterdir())
    found, _, err = said(capsys, *filled)
    assert found == code and message in err, err
    assert err.startswith("lineal: ") and err.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_texts_and_ids_go_there_and_back(
    bpe: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = "the  cat\n\n naïve 日\x1b[31m\t\nlast\n"
    (tmp_path / "in.txt").write_text(lines, encoding="utf-8")
    _, ids, _ = said(capsys, "encode", bpe, "--input", tmp_path / "in.txt")
    (tmp_path / "ids.txt").write_text(ids)
    assert said(capsys, "decode", bpe, "--input", tmp_path / "ids.txt") == (0, lines, "")
    _, out, _ = said(capsys, "decode", bpe, "--input", tmp_path / "ids.txt", "--json")
    assert [json.loads(line) for line in out.splitlines()] == lines.split("\n")[:-1]
    for action, content, wanted in (("encode", lines, ids), ("decode", ids, lines)):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content.encode())))
        assert said(capsys, action, bpe, "--input", "-")[1] == wanted


def test_tokens_offsets_and_special(bpe: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = "the ï<|endoftext|>"
    row = json.loads(said(capsys, "encode", bpe, "--text", text, "--tokens", "--offsets")[1])
    assert len(row["ids"]) == len(row["tokens"]) == len(row["offsets"])
    assert 0 not in row["ids"] and row["offsets"][0][0] == 0 and row["offsets"][-1][1] == len(text)
    special = json.loads(said(capsys, "encode", bpe, "--text", text, "--special")[1])
    assert special[-1] == 0
    assert said(capsys, "decode", bpe, "--ids", *special)[1] == "the ï\n"
    assert said(capsys, "decode", bpe, "--ids", *special, "--keep-special")[1] == text + "\n"


def test_a_template_is_put_around(corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tokenizer("train", corpus, "--kind", "wordpiece", "--vocab-size", 100, "--out", tmp_path / "t")
    plain, framed = (
        json.loads(said(capsys, "encode", tmp_path / "t", "--text", "the cat", *more)[1])
        for more in ((), ("--template",))
    )
    assert framed == [2, *plain, 3]


def test_rows_have_a_field(bpe: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"text": "a\\nb", "body": "the"}\n')
    texts = [
        json.loads(said(capsys, "encode", bpe, "--input", path, *more)[1])
        for more in ((), ("--field", "body"))
    ]
    made = open_tokenizer(bpe)
    assert texts == [made.encode("a\nb"), made.encode("the")]


def test_inspect_shows_tokens_trees_and_files(
    bpe: str, corpus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = said(
        capsys, "inspect", bpe, "--text", "the cat\x1b[31m\n日", "--word", "the", "--input", corpus
    )
    assert code == 0
    assert "|the| cat|" in out and "␛" in out and "\x1b" not in out and "⏎\n" in out
    assert "bytes per token" in out and "└─ " in out and "(merge " in out
    assert "corpus.txt" in out and "100.0%" in out
    _, out, _ = said(capsys, "inspect", bpe)
    assert "single characters" in out and "longest" in out and "Latin" in out


def test_inspect_in_json(bpe: str, corpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
    facts = json.loads(said(capsys, "inspect", bpe, "--text", "the", "--input", corpus, "--json")[1])
    assert facts["vocab_size"] == sum(facts["make_up"].values()) == open_tokenizer(bpe).vocab_size
    assert facts["texts"][0]["text"] == "the" and facts["files"][str(corpus)]["tokens"] > 0


def test_only_bpe_has_trees(corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tokenizer("train", corpus, "--kind", "word", "--out", tmp_path / "t")
    code, _, err = said(capsys, "inspect", tmp_path / "t", "--word", "the")
    assert code == 2 and "only BPE has merges, and this is WordLevel" in err


def test_the_page_is_text_and_colours(
    bpe: str, corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hostile = "<script>alert(1)</script> \x1b[31m\u202e\"'&"
    page = tmp_path / "page.html"
    assert said(capsys, "inspect", bpe, "--text", hostile, "--input", corpus, "--html", page)[0] == 0
    content = page.read_text(encoding="utf-8")
    parser = Page(content)
    assert "script" not in parser.tags and "\x1b" not in content and "\u202e" not in content
    assert not [
        name for name in parser.attributes if name.startswith("on") or name in ("style", "src", "href")
    ]
    assert "default-src 'none'; style-src 'sha256-" in content
    assert "<script>alert(1)</script>" in parser.said and "corpus.txt" in parser.said


def test_colours_are_for_terminals(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert in_colour(Terminal()) and not in_colour(io.StringIO())
    monkeypatch.setenv("NO_COLOR", "1")
    assert not in_colour(Terminal())
    cells = [Cell("a\n", (1,), (b"a\n",)), Cell(" ", (), ()), Cell("\x1b[2J", (2,), (b"x",))]
    assert coloured(cells, False) == "|a⏎\n|~ ~|␛[2J|"
    plain = coloured(cells, True)
    assert "\x1b[2J" not in plain and "\x1b[97;48;5;24ma⏎\x1b[0m\n" in plain
    assert coloured([], False) == ""


def test_compare_measures_side_by_side(
    bpe: str, corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tokenizer("train", corpus, "--kind", "word", "--out", tmp_path / "word")
    code, out, _ = said(capsys, "compare", bpe, tmp_path / "word", "--input", corpus)
    assert code == 0 and out.count("\n") == 5
    assert "MB/s" in out and "100.0%" in out and "0.0%" in out
    assert "word: the first loss, at character" in out
    facts = json.loads(said(capsys, "compare", bpe, tmp_path / "word", "--input", corpus, "--json")[1])
    assert facts[bpe]["lossless"] == facts[bpe]["texts"] and facts[bpe]["unknown"] == 0
    assert facts[bpe]["bytes_per_token"] == pytest.approx(len(CORPUS.encode()) / facts[bpe]["tokens"])


@pytest.mark.parametrize("to", ["huggingface", "tiktoken", "vocab"])
def test_convert(bpe: str, tmp_path: Path, to: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = said(capsys, "convert", bpe, tmp_path / "out", "--to", to)
    assert code == 0 and ("not said in this format" in out) == (to == "vocab")
    assert open_tokenizer(tmp_path / "out").encode("the naïve cat") == open_tokenizer(bpe).encode(
        "the naïve cat"
    )
    assert said(capsys, "convert", bpe, tmp_path / "out", "--to", to)[0] == 2
    assert said(capsys, "convert", bpe, tmp_path / "out", "--to", to, "--overwrite")[0] == 0


def test_a_full_disk_leaves_nothing_half_written(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("lineal.tokenizers.base.os.fsync", full)
    code, _, err = said(capsys, "train", corpus, "--kind", "word", "--out", tmp_path / "t")
    assert code == 1 and "No space left" in err and err.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["corpus.txt"]


def test_what_is_staged_arrives_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with staged(tmp_path / "a" / "b") as folder:
        (folder / "x").write_text("1")
        assert not (tmp_path / "a" / "b").exists()
    assert (tmp_path / "a" / "b" / "x").read_text() == "1"
    with pytest.raises(KeyError), staged(tmp_path / "a" / "b") as folder:
        (folder / "x").write_text("2")
        raise KeyError
    assert (tmp_path / "a" / "b" / "x").read_text() == "1" and len(list((tmp_path / "a").iterdir())) == 1
    monkeypatch.setattr(cli_tokenizer_work.os, "access", lambda *_: False)
    with pytest.raises(ModelError, match="permission denied"), staged(tmp_path / "a" / "b"):
        pass


def test_progress_is_a_line_now_and_then() -> None:
    now = iter([0.0, 1.0, 6.0, 7.0, 8.0, 20.0, 30.0, 31.0])
    stream = io.StringIO()
    with Bar(stream, lambda: next(now)) as bar:
        for done in (1, 2, 3):
            bar.update("counting", done, 4)
        bar.update("learning", 0, 10)
        bar.update("learning", 10, 10)
    assert stream.getvalue() == "counting 50% after 6 s\nlearning 100% after 20 s\n"
    assert bar.times() == " in 30.0 s (counting 7.0 s, learning 13.0 s)"


def test_progress_is_a_bar_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setenv("TERM", "xterm")
    stream = Terminal()
    with Bar(stream) as bar:
        bar.update("counting", 5, 10)
        bar.update("counting", 10, 10)
    assert "counting" in stream.getvalue() and "100%" in stream.getvalue()


@pytest.mark.serial
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_ends_it_cleanly(tmp_path: Path, number: int, code: int) -> None:
    program = (
        "import sys, time; from lineal import cli_tokenizer; from lineal.cli import main\n"
        "def slow(*_):\n    print('here', flush=True); time.sleep(60)\n"
        "cli_tokenizer._train = slow; sys.exit(main(sys.argv[1:]))"
    )
    (tmp_path / "c.txt").write_text("a b")
    words = [
        sys.executable,
        "-c",
        program,
        "tokenizer",
        "train",
        str(tmp_path / "c.txt"),
        "--out",
        str(tmp_path / "t"),
    ]
    process = subprocess.Popen(
        words,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # Where the tests run in the background, SIGINT is ignored, and children would inherit that.
        preexec_fn=lambda: signal.signal(number, signal.SIG_DFL),  # type: ignore[func-returns-value]
    )
    assert process.stdout is not None and process.stdout.readline() == "here\n"
    time.sleep(0.1)
    process.send_signal(number)
    _, err = process.communicate(timeout=30)
    assert process.returncode == code and "Traceback" not in err
    assert [path.name for path in tmp_path.iterdir()] == ["c.txt"]
