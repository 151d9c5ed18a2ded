"""The corpus of a run on disk: read once, the same whatever the file's form, read again where it was damaged, refused where nothing is near."""

from __future__ import annotations

import csv
import gzip
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lineal.errors import DataError, UsageError
from lineal.representations.subwords import Subwords
from lineal.representations.words import END, SPLITTERS
from lineal.train.data import stream_documents
from lineal.train.vectors.corpus import IDS, WORDS, Corpus, open_corpus, read_vocabulary
from lineal.train.vectors.files import load_ngrams, save_ngrams
from lineal.train.vectors.options import GloveOptions, VectorsRunOptions, Word2VecOptions, WordsOptions

LINES = ["the cat sat", "the dog sat", "", "a lone", "the end"]


def opened(folder: Path, path: Path, window: int = 2, **options: object) -> Corpus:
    """The corpus of a file."""
    asked = {"min_count": 1, **options}
    return open_corpus(folder / "corpus", WordsOptions(data=str(path), **asked), window)  # type: ignore[arg-type]


def told(corpus: Corpus) -> list[list[str]]:
    """Its sentences as words again."""
    found: list[list[str]] = [[]]
    for i in corpus.ids.tolist():
        if i == END:
            found.append([])
        else:
            found[-1].append(corpus.vocabulary.words[i])
    assert found[-1] == []
    return found[:-1]


def write(folder: Path, form: str, texts: list[str]) -> Path:
    """Texts as rows of a form."""
    path = folder / f"text.{form}"
    if form == "csv":
        with open(path, "w", newline="") as file:
            csv.writer(file).writerows([["text"], *([text] for text in texts)])
    else:
        text = "".join(json.dumps({"text": text}) + "\n" for text in texts)
        path.write_bytes(gzip.compress(text.encode()) if form.endswith(".gz") else text.encode())
    return path


@pytest.mark.parametrize("form", ["jsonl", "csv", "jsonl.gz"])
def test_rows_hold_documents_and_their_lines_sentences(form: str, tmp_path: Path) -> None:
    path = write(tmp_path, form, ["the cat sat\nthe dog", "sat down"])
    assert told(opened(tmp_path, path)) == [["the", "cat", "sat"], ["the", "dog"], ["sat", "down"]]
    (tmp_path / "corpus").rename(tmp_path / "before")
    whole = opened(tmp_path, path, across_lines=True)
    assert told(whole) == [["the", "cat", "sat", "the", "dog"], ["sat", "down"]]


@pytest.mark.parametrize("mark", ["\u0085", "\u2028", "\u2029", "\x0b", "\x0c", "\x1c"])
def test_only_line_feeds_end_the_lines_of_rows_as_in_plain_text(mark: str, tmp_path: Path) -> None:
    """A page break or a line separator of Unicode in a row is white space, in a row as in a file of lines."""
    text = f"one{mark}two\nthree four"
    rows = write(tmp_path, "jsonl", [text])
    (tmp_path / "text.txt").write_bytes(text.encode())
    expected = [["one", "two"], ["three", "four"]]
    for name, path in (("rows", rows), ("lines", tmp_path / "text.txt")):
        assert told(opened(tmp_path / name, path)) == expected, name


def test_line_ends_of_windows_are_line_ends(tmp_path: Path) -> None:
    rows = write(tmp_path, "jsonl", ["a b\r\nc d\r\n", "e\n\nf"])
    assert [list(lines) for lines in stream_documents(rows)] == [["a b", "c d"], ["e", "", "f"]]


@given(
    texts=st.lists(st.text(st.sampled_from("abc \té东'\n"), max_size=20), min_size=1, max_size=5),
    words=st.sampled_from(sorted(SPLITTERS)),
)
@settings(max_examples=20)
def test_a_corpus_is_the_words_of_its_lines(
    texts: list[str], words: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("corpus")
    sentences = [SPLITTERS[words](line) for text in texts for line in text.split("\n")]
    sentences = [sentence for sentence in sentences if sentence]
    path = write(folder, "jsonl", texts)
    if (
        len({word for sentence in sentences for word in sentence}) < 2
        or max(map(len, sentences), default=0) < 2
    ):
        with pytest.raises(DataError, match=r"at least two|no word|one word|no line has two|no text"):
            opened(folder, path, words=words)
    else:
        assert told(opened(folder, path, words=words)) == sentences


def test_the_text_is_read_once_and_again_only_where_the_ids_were_damaged(tmp_path: Path) -> None:
    path = tmp_path / "text.txt"
    path.write_text("\n".join(LINES))
    first = opened(tmp_path, path)
    path.write_text("other words entirely\n")
    again = opened(tmp_path, path)
    assert again.mark == first.mark and told(again) == told(first)
    (tmp_path / "corpus" / IDS).write_bytes(b"\0\0\0\0")
    anew = opened(tmp_path, path)
    assert anew.mark != first.mark and told(anew) == [["other", "words", "entirely"]]
    path.write_text("\n".join(LINES))
    (tmp_path / "corpus" / WORDS).unlink()
    assert opened(tmp_path, path).mark == first.mark


def test_words_are_kept_with_their_counts(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("\n".join(LINES))
    corpus = opened(tmp_path, tmp_path / "text.txt", max_words=2)
    assert (tmp_path / "corpus" / WORDS).read_text() == "the 3\nsat 2\n"
    assert corpus.vocabulary.counts.tolist() == [3, 2]
    assert told(corpus) == [["the", "sat"], ["the", "sat"], ["the"]]
    assert isinstance(corpus.ids, np.memmap) and not corpus.ids.flags.writeable


def test_words_of_odd_characters_are_kept_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text('a"b \ufeffx 𝔘 -1 3.5\n\ud7ff \u200b\u200b 👩\u200d🚀 -1\n')
    corpus = opened(tmp_path, tmp_path / "text.txt", words="spaces")
    assert told(corpus) == [
        ['a"b', "\ufeffx", "𝔘", "-1", "3.5"],
        ["\ud7ff", "\u200b\u200b", "👩\u200d🚀", "-1"],
    ]


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        ("a\nb\n", {}, "no line has two words that are kept"),
        ("a b\n", {"min_count": 2}, "text.txt: 0 of 2 words occur at least 2 times"),
        ("...\n", {}, "text.txt: there is no word in the text"),
        ("a a a\n", {}, "text.txt: the text has one word only, 'a', 3 times"),
    ],
)
def test_what_teaches_nothing_is_refused_with_its_file(
    content: str, options: dict, message: str, tmp_path: Path
) -> None:
    (tmp_path / "text.txt").write_text(content)
    with pytest.raises(DataError, match=message):
        opened(tmp_path, tmp_path / "text.txt", **options)


def test_a_missing_file_is_named_and_no_file_is_asked_for(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere.txt does not exist"):
        read_vocabulary(WordsOptions(data=str(tmp_path / "nowhere.txt")))
    with pytest.raises(UsageError, match="needs --data FILE"):
        read_vocabulary(WordsOptions())


def test_a_window_that_is_too_wide_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "text.txt").write_text("\n".join(LINES))
    opened(tmp_path, tmp_path / "text.txt", window=3)
    assert "--window 3 reaches beyond the longest sentence (3 words): it acts as 2" in capsys.readouterr().err
    opened(tmp_path, tmp_path / "text.txt", window=2)
    assert "window" not in capsys.readouterr().err


def test_bad_rows_are_an_error_or_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "text.jsonl").write_text('{"text": "a b"}\n{"other": 1}\n{"text": "b a"}\n')
    with pytest.raises(DataError, match=r"text.jsonl:2"):
        opened(tmp_path, tmp_path / "text.jsonl")
    for how in ("skip", "warn"):
        found = opened(tmp_path / how, tmp_path / "text.jsonl", on_bad_row=how)
        assert told(found) == [["a", "b"], ["b", "a"]]
    assert "text.jsonl" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("group", "wrong", "message"),
    [
        (WordsOptions, {"min_count": 0}, "--min-count 0"),
        (WordsOptions, {"words": "letter"}, "letters"),
        (WordsOptions, {"on_bad_row": "ignore"}, "skip"),
        (Word2VecOptions, {"window": 0}, "--window 0"),
        (Word2VecOptions, {"sample": -0.1}, "--sample -0.1"),
        (Word2VecOptions, {"final_rate": -1.0}, "--final-rate -1"),
        (Word2VecOptions, {"sampling": "gensim"}, "code"),
        (Word2VecOptions, {"preset": "hours"}, "minutes"),
        (GloveOptions, {"memory": 0}, "--memory 0"),
        (GloveOptions, {"x_max": 0.0}, "--x-max 0"),
        (GloveOptions, {"alpha": -1.0}, "--alpha -1"),
        (VectorsRunOptions, {"threads": 0}, "--threads 0"),
        (VectorsRunOptions, {"save_every": 0}, "--save-every 0"),
        (VectorsRunOptions, {"time_limit": -1.0}, "--time-limit -1"),
    ],
)
def test_options_that_mean_nothing_are_named_as_they_are_typed(
    group: type, wrong: dict, message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        group(**wrong)


def test_ngrams_come_back_with_how_words_are_cut(tmp_path: Path) -> None:
    table = np.random.default_rng(0).standard_normal((50, 3)).astype(np.float32)
    save_ngrams(tmp_path, Subwords(2, 4, 50), table)
    how, again = load_ngrams(tmp_path)
    assert how == Subwords(2, 4, 50) and np.array_equal(again, table)
    np.testing.assert_array_equal(how.vector("unseen", again), table[how.rows("unseen")].mean(0))
