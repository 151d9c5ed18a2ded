"""`lineal embed` and `lineal fill` from end to end: files, standard input, odd bytes, and what is refused with its line."""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from lineal import cli_embed
from lineal.cli import main
from lineal.models.awd_lstm import AWDLSTM, AWDConfig
from lineal.models.bert import Bert, BertConfig
from lineal.models.char_cnn import CharacterConfig
from lineal.models.elmo import BiLM, ElmoConfig
from lineal.models.hf.awd import save_awd
from lineal.models.hf.bert import save_bert
from lineal.models.hf.elmo import save_elmo
from lineal.tokenizers.training import KINDS, Learning, train
from lineal.train.embedding import load_embedder
from lineal.train.recurrent.vocabulary import learn_words

TEXTS = ["a cat sat", "the dog is a dog. It ran", "cat"]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A folder of each kind of model that embeds."""
    root = tmp_path_factory.mktemp("models")
    pieces = train(
        "wordpiece", texts=TEXTS * 3, parts=KINDS["wordpiece"].parts, learning=Learning(vocab_size=60)
    )
    save_bert(Bert(BertConfig(pieces.vocab_size, 8, 12, 2, 2, 16)).initialise(0), root / "bert")
    pieces.save(root / "bert")
    words = learn_words(TEXTS, 50, 1)
    config = AWDConfig(words.vocab_size, width=3, hidden=5, layers=2)
    save_awd({"forward": AWDLSTM(config).initialise(0)}, root / "awd", eos_id=words.eos_id)
    words.save(root / "awd")
    reader = CharacterConfig(((1, 3),), 1, 4, 4)
    elmo = BiLM(ElmoConfig(reader, cells=6, cell_clip=None, output_clip=None)).initialise(0)
    save_elmo(elmo, root / "elmo")
    return {name: root / name for name in ("bert", "awd", "elmo")}


@dataclass
class Said:
    """What a command ended with."""

    code: int
    out: bytes
    err: str

    def vectors(self) -> np.ndarray:
        """Its output as an array."""
        return np.load(io.BytesIO(self.out), allow_pickle=False)


class Stream(io.StringIO):
    """A standard stream with its bytes; no terminal."""

    def __init__(self, raw: bytes = b"") -> None:
        super().__init__("")
        self.raw = io.BytesIO(raw)
        self.buffer = self.raw  # type: ignore[assignment]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Said]:
    """`run(b"standard input", "embed", ...)`: the command in this process."""

    def call(raw: bytes, *words: object) -> Said:
        out, err, threads = Stream(), io.StringIO(), torch.get_num_threads()
        with monkeypatch.context() as patch:
            patch.setattr("sys.stdin", Stream(raw))
            patch.setattr("sys.stdout", out)
            patch.setattr("sys.stderr", err)
            try:
                code = main([str(word) for word in words])
            finally:
                torch.set_num_threads(threads)
        return Said(code, out.raw.getvalue() or out.getvalue().encode(), err.getvalue())

    return call


@pytest.mark.parametrize("kind", ["bert", "awd", "elmo"])
def test_every_way_in_gives_the_same_vectors(kind: str, models: dict, tmp_path: Path, run) -> None:
    model, wanted = models[kind], load_embedder(models[kind], "cpu")(TEXTS).numpy()
    (tmp_path / "t.jsonl").write_text("".join(json.dumps({"body": text}) + "\n" for text in TEXTS))
    (tmp_path / "t.csv").write_text("body\n" + "".join(f'"{text}"\n' for text in TEXTS))
    (tmp_path / "t.txt.gz").write_bytes(gzip.compress("\n".join(TEXTS).encode()))
    lines = "\n".join(TEXTS)
    ways = [
        run(b"", "embed", model, *TEXTS),
        run(lines.encode(), "embed", model),
        run(("\ufeff" + lines.replace("\n", "\r\n") + "\r\n").encode(), "embed", model),
        run(b"", "embed", model, "--data", tmp_path / "t.jsonl", "--text-field", "body"),
        run(b"", "embed", model, "--data", tmp_path / "t.csv", "--text-field", "body"),
    ]
    for said in ways:
        assert (said.code, said.err) == (0, "")
        found = said.vectors()
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-6)
    said = run(b"", "embed", model, *TEXTS, "--out", tmp_path / "v.npy")
    assert said.code == 0 and not said.out
    np.testing.assert_array_equal(np.load(tmp_path / "v.npy", allow_pickle=False), ways[0].vectors())


@pytest.mark.parametrize("odd", ["a cat\u2028sat", "a\u0085cat", "\u00a0cat", "cat\x0bsat", "a\tcat"])
def test_nothing_but_a_line_feed_ends_a_line(odd: str, models: dict, run) -> None:
    said = run(f"{odd}\ncat\n".encode(), "embed", models["bert"])
    assert said.code == 0 and said.vectors().shape == (2, 8)
    np.testing.assert_allclose(
        said.vectors()[0], run(b"", "embed", models["bert"], odd).vectors()[0], rtol=1e-5
    )


def test_blocks_of_texts_make_one_array(models: dict, run, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [f"cat {'dog ' * i}" for i in range(7)]
    whole = run(b"", "embed", models["bert"], *texts).vectors()
    monkeypatch.setattr(cli_embed, "BLOCK", 3)
    np.testing.assert_allclose(
        run(b"", "embed", models["bert"], *texts).vectors(), whole, rtol=1e-4, atol=1e-6
    )


def test_the_nearest_are_printed_with_their_cosine(models: dict, run) -> None:
    texts = [*TEXTS, "x\x1b[31m"]
    said = run(b"", "embed", models["bert"], *texts, "--nearest", TEXTS[1], "--count", 9)
    lines = said.out.decode().splitlines()
    assert said.code == 0 and len(lines) == 4 and lines[0] == f"1.0000  {TEXTS[1]}"
    values = [float(line.split()[0]) for line in lines]
    assert values == sorted(values, reverse=True) and "\x1b" not in said.out.decode()
    first = run("\n".join(texts).encode(), "embed", models["bert"], "--nearest", TEXTS[1], "--count", 1)
    assert first.out.decode().splitlines() == lines[:1]


@pytest.mark.parametrize(
    ("raw", "words", "code", "said"),
    [
        (b"", (), 1, "there is no text to embed"),
        (b"", ("--nearest", "cat"), 1, "no text to compare with"),
        (b"a\n \nb\n", (), 1, "standard input:2: the text is empty"),
        (b"a\nb\xff\n", (), 1, "standard input:2: byte 0xff is not UTF-8"),
        ("a\n".encode("utf-16"), (), 1, "standard input:1: byte 0xff is not UTF-8"),
        (b"", ("cat", "--threads", "-1"), 2, "--threads -1: it must be at least 0"),
        (b"", ("cat", "--count", "0"), 2, "--count 0: it must be at least 1"),
        (b"", ("cat", "--pooling", "max"), 2, "--pooling max"),
        (b"", ("cat", "--layers", "3"), 2, "--layers 3: the model has 2"),
        (b"", ("cat", "--layer", "1"), 2, "--layers"),
        (b"", ("cat", "--data", "rows.csv"), 2, "texts in quotes and --data rows.csv: give one of them"),
        (b"", ("--data", "none.csv"), 1, "none.csv does not exist"),
        (b"", ("--data", "rows.csv", "--text-field", "txet"), 1, "text"),
        (b"", ("--data", "rows.csv"), 1, "rows.csv:3"),
        (b"", ("cat", "--out", "none/v.npy"), 2, "--out none/v.npy cannot be written"),
        (b"", ("cat", "--device", "tpu"), 2, "tpu"),
    ],
)  # fmt: skip
def test_what_has_no_vector_is_said(
    models: dict,
    tmp_path: Path,
    run,
    monkeypatch: pytest.MonkeyPatch,
    raw: bytes,
    words: tuple,
    code: int,
    said: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("rows.csv").write_text('text\ncat\n" "\n')
    found = run(raw, "embed", models["bert"], *words)
    assert found.code == code and said in found.err and found.err.count("\n") == 1, found.err
    assert not found.out and not list(tmp_path.glob("*.npy*"))


@pytest.mark.parametrize("verb", ["embed", "fill", "predict"])
def test_help_and_a_missing_model(verb: str, tmp_path: Path, run) -> None:
    said = run(b"", verb, "--help")
    assert said.code == 0 and f"lineal {verb} RUN" in said.out.decode() and "--threads" in said.out.decode()
    assert run(b"", verb).code == 2
    assert "does not exist" in run(b"cat\n", verb, tmp_path / "none").err


def test_gaps_are_filled_a_line_each(models: dict, run) -> None:
    text = "the [MASK] is a [MASK]"
    said = run(b"", "fill", models["bert"], text, "--top", 2)
    lines = said.out.decode().splitlines()
    assert said.code == 0 and len(lines) == 2 and all(len(line.split("  ")) == 2 for line in lines)
    read = run(f"\ufeff{text}\r\n[MASK]\n".encode(), "fill", models["bert"], "--top", 2)
    assert read.out.decode().splitlines()[:2] == lines and len(read.out.decode().splitlines()) == 3


@pytest.mark.parametrize(
    ("kind", "words", "code", "said"),
    [
        ("bert", ("nothing",), 2, "write [MASK]"),
        ("bert", ("[MASK]", "--top", "0"), 2, "--top 0: it must be at least 1"),
        ("bert", ("[MASK]", "--threads", "-2"), 2, "--threads -2"),
        ("bert", ("[MASK] " * 20,), 2, "and the model reads 16"),
        ("awd", ("[MASK]",), 1, "is no BERT"),
        ("elmo", ("[MASK]",), 1, "tokenizer"),
    ],
)
def test_what_cannot_be_filled_is_said(
    models: dict, run, kind: str, words: tuple, code: int, said: str
) -> None:
    found = run(b"", "fill", models[kind], *words)
    assert found.code == code and said in found.err and found.err.count("\n") == 1, found.err
