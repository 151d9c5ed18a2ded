"""From files to pairs: what is read, what is held out, which vocabulary, and laws of documents and of held-out figures."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lineal.errors import DataError, ModelError, UsageError
from lineal.models.bert import Bert, BertConfig
from lineal.recipes.config import BertRunConfig, with_options
from lineal.tokenizers import CharTokenizer
from lineal.tokenizers.training import Learning, train
from lineal.train.bert_corpus import pairs_of, read_corpus, tokenizer_of
from lineal.train.bert_options import DocumentOptions
from lineal.train.distributed import Ranks
from lineal.train.masked import Held, held_out, losses_of, micro_batches
from lineal.train.masked_batches import PairOrder
from lineal.train.sentence_pairs import documents_of, encode_documents, make_pairs, segments

LINES = ["The cat sat. It ran!", 'A dog, e.g. "Rex." He saw it.', "no end", "Who? Me."]


def write(folder: Path, documents: int, name: str = "text.txt") -> str:
    """A file of documents of four lines."""
    text = "\n\n".join("\n".join(f"{line} {i}" for line in LINES) for i in range(documents))
    (folder / name).write_text(text)
    return str(folder / name)


def test_the_same_documents_are_held_out_whatever_the_seed(tmp_path: Path) -> None:
    options = DocumentOptions(data=write(tmp_path, 20), held_out=0.25)
    corpus = read_corpus(options)
    assert (len(corpus.train), len(corpus.held)) == (15, 5) and not {*corpus.train} & {*corpus.held}
    whole = documents_of([Path(str(options.data)).read_text()])
    assert [text for text in whole if text not in corpus.held] == corpus.train
    assert read_corpus(options) == corpus
    more = read_corpus(replace(options, eval_data=write(tmp_path, 3, "other.txt")))
    assert more.train == whole and len(more.held) == 3


@pytest.mark.parametrize("share", [0.0, 0.01, 0.99])
def test_a_part_that_leaves_nothing_is_refused(tmp_path: Path, share: float) -> None:
    with pytest.raises(UsageError, match="give more documents") as raised:
        read_corpus(DocumentOptions(data=write(tmp_path, 4), held_out=share))
    assert "of 4 documents" in str(raised.value)


def configuration(tmp_path: Path, **options: object) -> BertRunConfig:
    """Small pairs of twenty documents."""
    data = write(tmp_path, 20)
    return with_options(
        BertRunConfig(), data=data, held_out=0.2, vocab_size=90, block=24, batch_size=4, **options
    )


def test_a_vocabulary_is_learned_once_and_then_the_run_s(tmp_path: Path) -> None:
    config = configuration(tmp_path)
    corpus = read_corpus(config.documents)
    learned = tokenizer_of(config, corpus, tmp_path / "tokenizer")
    assert learned.vocab_size <= 90 and learned.id("[MASK]") is not None
    # A resumed run takes what is there, though its text has changed.
    changed = replace(corpus, train=["quite other words"])
    again = tokenizer_of(config, changed, tmp_path / "tokenizer")
    assert list(again.tokens) == list(learned.tokens)
    named = with_options(config, tokenizer=str(tmp_path / "tokenizer"))
    assert list(tokenizer_of(named, changed, None).tokens) == list(learned.tokens)
    assert list(tokenizer_of(config, changed, None).tokens) != list(learned.tokens)


@pytest.mark.parametrize("cased", [True, False])
def test_capitals_are_kept_where_they_are_asked_for(tmp_path: Path, cased: bool) -> None:
    config = configuration(tmp_path, cased=cased)
    tokenizer = tokenizer_of(config, read_corpus(config.documents), None)
    assert (tokenizer.encode("THE") == tokenizer.encode("the")) is not cased


def test_a_tokenizer_without_a_mask_is_refused(tmp_path: Path) -> None:
    train("bpe", texts=LINES, learning=Learning(vocab_size=270)).save(tmp_path / "bpe")
    config = configuration(tmp_path, tokenizer=str(tmp_path / "bpe"))
    corpus = read_corpus(config.documents)
    with pytest.raises(ModelError, match=r"has no \[PAD\], \[CLS\], \[SEP\], \[MASK\]"):
        pairs_of(config, corpus, tokenizer_of(config, corpus, None))


def test_documents_of_single_sentences_make_no_pair(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("\n\n".join(f"Only one {i}" for i in range(12)))
    config = replace(
        configuration(tmp_path), documents=DocumentOptions(data=str(path), held_out=0.5, vocab_size=60)
    )
    corpus = read_corpus(config.documents)
    pairs, _ = pairs_of(config, corpus, tokenizer_of(config, corpus, None))
    with pytest.raises(DataError, match="no document has two sentences"):
        pairs.of(0)


TEXT = st.text("aB.!? \n\r\t\x0b\x85\u2028\u00a0\"'", max_size=60)


@given(TEXT, st.sampled_from(["lines", "sentences"]))
def test_segments_lose_nothing_but_blanks(text: str, cut: str) -> None:
    found = segments(text, cut)
    assert all(part == part.strip() and part for part in found)
    assert "".join("".join(found).split()) == "".join(text.split())
    if cut == "sentences":
        # Lines are cut further, never put together.
        lines = segments(text, "lines")
        assert len(found) >= len(lines)


@given(st.lists(TEXT, max_size=4), st.integers(0, 5))
def test_documents_lose_nothing_but_blanks(texts: list[str], words: int) -> None:
    found = documents_of(texts, words)
    assert all(part.strip() for part in found)
    assert "".join("".join(found).split()) == "".join("".join(texts).split())
    if not words:
        assert not any(re.search(r"\n[ \t]*\n", part.strip()) for part in found)
    for part in found[:-1] if words and len(texts) == 1 else ():
        # Each is as long as asked for, and no line longer than it must be.
        *before, _ = [line for line in part.splitlines() if line.strip()]
        assert len(part.split()) >= words > sum(len(line.split()) for line in before)


@given(st.lists(st.lists(st.text("ab1 .", max_size=6), max_size=4), min_size=1, max_size=4))
def test_ids_stand_where_the_places_say(documents: list[list[str]]) -> None:
    texts, letters = ["\n".join(lines) for lines in documents], CharTokenizer.train("ab1 .")
    wanted = [[ids for line in segments(text, "lines") if (ids := letters.encode(line))] for text in texts]
    wanted = [own for own in wanted if own]
    if not wanted:
        with pytest.raises(DataError, match="every document is empty"):
            encode_documents(texts, letters, "lines")
        return
    found = encode_documents(texts, letters, "lines")
    at, first = found.at.tolist(), found.first.tolist()
    assert len(found) == len(wanted)
    for d, own in enumerate(wanted):
        assert [found.token_N[at[i] : at[i + 1]].tolist() for i in range(first[d], first[d + 1])] == own
    if any(len(own) > 1 for own in wanted):
        rows = make_pairs(found, 8, 0.5, 0, 0)
        assert (rows.lengths() <= 8).all() and (rows.place_N4[:, 1] > rows.place_N4[:, 0]).all()


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> tuple:
    """A random model with held-out pairs."""
    folder = tmp_path_factory.mktemp("small")
    config = configuration(folder)
    corpus = read_corpus(config.documents)
    tokenizer = tokenizer_of(config, corpus, None)
    train_pairs, held = pairs_of(config, corpus, tokenizer)
    model = Bert(BertConfig(tokenizer.vocab_size, 16, 24, 2, 1, 32)).initialise(0)
    return model, train_pairs, held, config


def test_figures_are_the_sums_over_single_pairs(small: tuple) -> None:
    model, _, held, _ = small
    with torch.no_grad():
        each = [losses_of(model.eval(), held.batch(0, np.array([i]))).sums() for i in range(len(held.of(0)))]
    words, follows, words_right, follows_right, hidden, rows = torch.stack(each).sum(0).tolist()
    found = held_out(model, held)
    assert found.words == pytest.approx(words / hidden, rel=1e-4) and found.pairs == rows == len(held.of(0))
    assert found.follows == pytest.approx(follows / rows, rel=1e-4)
    assert (found.word_accuracy, found.next_accuracy) == pytest.approx(
        (words_right / hidden, follows_right / rows)
    )
    assert found.metrics()["eval/masked_perplexity"] == pytest.approx(math.exp(found.words))
    assert f"{found.pairs:,} held-out pairs" in found.line()


def test_a_part_of_the_pairs_is_spread_evenly_and_the_mode_comes_back(small: tuple) -> None:
    model, _, held, _ = small
    model.train()
    try:
        some = held_out(model, held, most=3)
        assert some.pairs == 3 and model.training
        assert held_out(model, held, most=10_000) == held_out(model, held)
    finally:
        model.eval()
    assert Held(800.0, 0, 0, 0, 1, 1).metrics()["eval/masked_perplexity"] == math.exp(700)


def test_processes_share_the_pairs_of_a_step(small: tuple) -> None:
    _, pairs, _, config = small
    order = PairOrder(pairs, config.optimiser.batch_size)
    variant, row_B = order.drawn(5)
    assert len(order.epoch(0)) and variant in (0, 1, 2, 3, 4, 5)
    shares = [micro_batches(pairs, variant, row_B[rank::3], 30) for rank in range(3)]
    hidden = sum(len(batch.word_M) for share in shares for batch in share)
    (whole,) = micro_batches(pairs, variant, row_B, 10_000)
    assert hidden == len(whole.word_M) and Ranks(2, 3).mine(row_B.tolist()) == row_B.tolist()[2::3]
    kept = [int(batch.mask_BT.sum()) for share in shares for batch in share]
    assert sum(kept) == int(whole.mask_BT.sum())
    assert micro_batches(pairs, variant, row_B[:0], 30) == []
