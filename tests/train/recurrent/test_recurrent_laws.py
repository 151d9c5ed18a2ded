"""Laws of what recurrent models read: nothing lost between text and windows, and files that survive odd characters."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from lineal.errors import DataError
from lineal.models.awd_lstm import AWDLSTM, AWDConfig, with_vocabulary
from lineal.recipes.elmo_loop import read_vocabulary
from lineal.train.files import replace_file
from lineal.train.recurrent.corpus import SPECIAL, count_words, sentences, typed, vocabulary
from lineal.train.recurrent.reading import held_out_figures, listener
from lineal.train.recurrent.text import parted
from lineal.train.recurrent.vocabulary import encoded, learn_words, origins, unknown_share, words_of
from lineal.train.recurrent.windows import LEAST, Columns, lengths

ODD = "ab.!? \n\t\r\x0b\x0c\x1c\x85\u00a0\u2028\u2029\u3000\u200b\ufeff\"'(A1é"
"""Spaces, ends of lines and marks of every kind."""


@given(st.text(ODD, max_size=40))
@example("\x1c\n")
def test_sentences_lose_nothing_but_blanks(text: str) -> None:
    found = sentences(text)
    assert all(words and all(words) for words in found)
    kept = "".join(word for words in found for word in words)
    assert "".join(kept.split()) == "".join(text.split())
    # An empty line always ends a sentence.
    assert sentences(text + "\n\n" + text) == found + found


@given(st.lists(st.text(ODD, min_size=1, max_size=12), min_size=1, max_size=6), st.integers(3, 30))
def test_a_vocabulary_comes_back_from_its_file(texts: list[str], size: int) -> None:
    counts = count_words([sentences(text) for text in texts])
    words = vocabulary(counts, size)
    assert tuple(words[:3]) == SPECIAL and len(set(words)) == len(words) <= size
    rest = words[3:]
    assert all((-counts[a], a) < (-counts[b], b) for a, b in pairwise(rest))
    left = [word for word in counts if word not in words]
    assert not rest or all(counts[word] <= counts[rest[-1]] for word in left)


@pytest.mark.parametrize("word", ["a\x85b", "a\u2028b", "\ufeff", "a\x0bb", "a\x1cb", "\u00a0"])
def test_a_vocabulary_s_file_is_cut_at_line_feeds_only(tmp_path: Path, word: str) -> None:
    words = [*SPECIAL, word, "last"]
    replace_file(tmp_path / "vocab.txt", "".join(w + "\n" for w in words).encode())
    assert read_vocabulary(tmp_path / "vocab.txt") == words


def test_marks_in_a_text_are_words_and_no_marks() -> None:
    (words,) = sentences("a <S> b </S>")
    assert "<S>" not in words and "".join(words) == "a<S>b</S>"
    corpus = typed([[words]], vocabulary(Counter(words), 20), 8)
    assert corpus.documents[0].tolist().count(0) == 1 and corpus.unknown_share() == 0


@given(st.lists(st.text("ab ", max_size=30), min_size=1, max_size=6), st.floats(0, 1, exclude_max=True))
def test_parts_make_up_the_whole(documents: list[str], share: float) -> None:
    train, held = parted(documents, share)
    assert "".join([*train, *held]) == "".join(documents)
    if len(documents) > 1:
        assert train + held == documents
    total = sum(map(len, documents))
    if share and total:
        # At least the share, and at most a document (or of one document a word) more.
        kept = sum(map(len, held))
        assert kept >= share * total - 1 or len(train) == 1
        assert train


@given(
    st.integers(40, 400),
    st.integers(1, 6),
    st.integers(5, 40),
    st.booleans(),
    st.booleans(),
    st.integers(0, 99),
)
def test_windows_follow_one_another_through_every_column(
    tokens: int, rows: int, mean: int, vary: bool, reverse: bool, seed: int
) -> None:
    text_N = torch.arange(tokens, dtype=torch.int32)
    columns = Columns([text_N], rows, mean, seed, vary, reverse)
    windows = columns.windows(0)
    there = tokens // rows - 1
    assert windows[0][0] == 0 and sum(length for _, length in windows) == there
    assert all(start + length == after for (start, length), (after, _) in pairwise(windows))
    assert all(length >= LEAST for _, length in windows[:-1]) or not vary
    stream_N = text_N.flip(0) if reverse else text_N
    wanted_BN = stream_N[: rows * (there + 1)].view(rows, -1).long()
    read = [columns.window(step) for step in range(len(windows))]
    assert torch.equal(torch.cat([w.input_BT for w in read], 1), wanted_BN[:, :-1])
    assert torch.equal(torch.cat([w.target_BT for w in read], 1), wanted_BN[:, 1:])
    assert [w.first for w in read] == [True] + [False] * (len(windows) - 1)
    assert columns.place(len(windows)) == (1, 0) and columns.steps(1.0) == len(windows)


def test_windows_have_the_paper_s_lengths_on_the_whole() -> None:
    found = torch.tensor(lengths(20_000, 70, 0, 0), dtype=torch.float64)
    assert found.min() >= LEAST
    short_N = found < 52
    # 5 % about 35 and 95 % about 70, each with a spread of 5.
    assert short_N.double().mean().item() == pytest.approx(0.05, abs=0.006)
    assert found[~short_N].mean().item() == pytest.approx(69.5, abs=0.2)
    assert found[~short_N].std().item() == pytest.approx(5.0, abs=0.15)


def test_a_vocabulary_keeps_what_it_knew_whatever_its_order() -> None:
    old, new = learn_words(["a a a b b c"], 50, 1), learn_words(["d d d c c a"], 50, 1)
    before, after = words_of(old), words_of(new)
    origin_V = origins(new, old)
    assert len(origin_V) == new.vocab_size
    for i, origin in enumerate(origin_V):
        if origin is not None and after[i]:
            assert before[origin] == after[i]
    special = [i for i, word in enumerate(after) if not word]
    assert [origin_V[i] for i in special] == special and special
    assert sum(origin is None for origin in origin_V) == 1
    model = AWDLSTM(AWDConfig(old.vocab_size, width=3, hidden=4, layers=1)).initialise(0)
    other = with_vocabulary(model, AWDConfig(new.vocab_size, width=3, hidden=4, layers=1), origin_V)
    (ids,), (same,) = (encoded(["a c"], tokenizer) for tokenizer in (old, new))
    torch.testing.assert_close(other(same[None].long())[0, :2], model(ids[None].long())[0, :2])


@given(st.lists(st.text("ab c\n", max_size=20), min_size=1, max_size=4))
def test_unknown_words_are_counted_as_they_are(documents: list[str]) -> None:
    tokenizer = learn_words(["a b a b"], 50, 1)
    if not any(document.split() for document in documents):
        with pytest.raises(DataError, match="empty"):
            encoded(documents, tokenizer)
        return
    words = [word for document in documents for word in document.split()]
    ends = sum(bool(document.split()) for document in documents)
    share = unknown_share(encoded(documents, tokenizer), tokenizer)
    assert share == pytest.approx(sum(word not in ("a", "b") for word in words) / (len(words) + ends))


@pytest.mark.parametrize("most", [0, 5, 40, 1000])
def test_a_part_of_a_stream_is_its_beginning(most: int) -> None:
    model = AWDLSTM(AWDConfig(9, width=4, hidden=5, layers=2)).initialise(0).eval()
    stream_N = torch.randint(9, (61,), generator=torch.Generator().manual_seed(0))
    found = held_out_figures(listener(model), stream_N, most)
    assert found == held_out_figures(listener(model), stream_N[: most + 1 if most else None])
    with torch.no_grad():
        read = stream_N[: min(most or 60, 60) + 1]
        logits_NV = model.logits(model(read[None, :-1])[0])
        loss = torch.nn.functional.cross_entropy(logits_NV, read[1:]).item()
    assert found["loss"] == pytest.approx(loss, rel=1e-5)
