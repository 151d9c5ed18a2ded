"""Laws of spans, and words as they stand in files: other spaces, other line ends, other columns."""

from __future__ import annotations

import gzip
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lineal.errors import DataError, UsageError
from lineal.models.char_cnn import CharacterConfig, character_ids
from lineal.models.elmo import BiLM, ElmoConfig
from lineal.representations.vectors import Vectors
from lineal.train.tagging.conll import read_conll, read_tagging
from lineal.train.tagging.features import ElmoFeatures, StaticFeatures, layers_of_sentences, make_features
from lineal.train.tagging.options import TaggerOptions, TagOptions
from lineal.train.tagging.spans import span_scores, spans_of

TAGS = st.lists(st.sampled_from(["O", "B-a", "I-a", "B-b", "I-b"]), max_size=12)
STRETCHES = st.lists(st.tuples(st.sampled_from("abO"), st.integers(1, 3)), max_size=6)


def obvious(tags: list[str]) -> list[tuple[str, int, int]]:
    """conlleval's rules, place by place: what begins here, and how far it goes on."""
    found = []
    for start, tag in enumerate(tags):
        before = tags[start - 1] if start else "O"
        begins = tag != "O" and (tag[0] == "B" or before == "O" or before[2:] != tag[2:])
        if begins:
            end = start + 1
            while end < len(tags) and tags[end] == f"I-{tag[2:]}":
                end += 1
            found.append((tag[2:], start, end))
    return found


@given(TAGS)
def test_spans_are_those_of_the_rules(tags: list[str]) -> None:
    assert spans_of(tags) == obvious(tags)


@given(STRETCHES)
def test_both_schemes_say_the_same_spans(stretches: list[tuple[str, int]]) -> None:
    first, second = [], []
    for name, length in stretches:
        touches = bool(first) and first[-1][2:] == name
        first += (
            ["O"] * length
            if name == "O"
            else [f"{'B' if touches else 'I'}-{name}", *[f"I-{name}"] * (length - 1)]
        )
        second += ["O"] * length if name == "O" else [f"B-{name}", *[f"I-{name}"] * (length - 1)]
    assert spans_of(first) == spans_of(second)
    spans = spans_of(second)
    assert sum(end - start for _, start, end in spans) == sum(tag != "O" for tag in second)
    assert all(a[2] <= b[1] for a, b in pairwise(spans))


@given(st.lists(st.tuples(TAGS, TAGS), max_size=5))
def test_scores_are_of_whole_spans_and_turn_round(pairs: list[tuple[list[str], list[str]]]) -> None:
    told, right = [a[: len(b)] for a, b in pairs], [b[: len(a)] for a, b in pairs]
    found, turned = span_scores(told, right), span_scores(right, told)
    assert (found.precision, found.recall, found.f1) == (turned.recall, turned.precision, turned.f1)
    hits = sum(len({*obvious(a)} & {*obvious(b)}) for a, b in zip(told, right, strict=True))
    assert found.support == sum(len(obvious(tags)) for tags in right)
    assert found.recall == (hits / found.support if found.support else 0)
    same = span_scores(right, right)
    assert same.f1 == float(same.support > 0)


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize(
    "word", ["New\u00a0York", "a\u2028b", "a\u0085b", "\u3000", "caf\u00e9", "\u200b", "#", "3-4"]
)
@pytest.mark.parametrize("between", ["\t", " "])
def test_only_tabs_and_spaces_part_columns(tmp_path: Path, word: str, between: str, end: str) -> None:
    path = tmp_path / "a.conll"
    path.write_bytes(f"{word}{between}B-x{end}of{between}O{end}{end}b{between}O{end}".encode())
    one, other = read_conll(path, 0, -1)
    assert (one.words, one.tags) == ((word, "of"), ("B-x", "O"))
    assert (one.place, other.place) == (f"{path}:1", f"{path}:4")


def test_a_mark_of_byte_order_and_a_zipped_file_are_read(tmp_path: Path) -> None:
    path = tmp_path / "a.conllu.gz"
    text = "\ufeff# sent\n1-2\tdon't\t_\tX\n1\tdo\t_\tAUX\n2\tn't\t_\tPART\n2.1\tx\t_\tX\n\n"
    path.write_bytes(gzip.compress(text.encode()))
    (found,) = read_conll(path, 1, 3)
    assert (found.words, found.tags) == (("do", "n't"), ("AUX", "PART"))


def test_a_limit_takes_the_first_sentences_and_says_so_where_nothing_is_left(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("".join(f"w{i} {'AB'[i % 2]}\n\n" for i in range(10)))
    whole = read_tagging(TagOptions(data=str(path)))
    some = read_tagging(TagOptions(data=str(path), limit=5))
    assert some.train == whole.train[:5] and some.held == whole.held and len(whole.held) == 2
    with pytest.raises(DataError, match="0 to evaluate on"):
        read_tagging(TagOptions(data=str(path), held_out=0.0))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"features": "none", "model": "RUN"}, "--model"),
        ({"features": "none", "vectors": "FILE"}, "--vectors"),
        ({"features": "elmo", "model": "RUN", "vectors": "FILE"}, "--vectors"),
        ({"features": "static", "model": "RUN", "tune_features": True}, "--tune-features"),
        ({"layer_norm": True}, "--layer-norm"),
    ],
)
def test_an_option_that_would_do_nothing_is_refused(options: dict, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        TagOptions(**options)


@pytest.mark.parametrize("dropout", [1.0, float("nan"), -0.1])
def test_a_dropout_that_leaves_nothing_is_refused(dropout: float) -> None:
    with pytest.raises(UsageError, match="--tagger-dropout"):
        TaggerOptions(tagger_dropout=dropout)


@pytest.mark.parametrize("name", ["v.txt", "v.txt.gz"])
def test_words_of_vectors_keep_what_no_space_parts(tmp_path: Path, name: str) -> None:
    text = "4 2\nNew\u00a0York 1 2\na\u2028b 3 4 \n\u0085 5 6\r\n. . . 7 8\n".encode()
    (tmp_path / name).write_bytes(gzip.compress(text) if name.endswith(".gz") else text)
    features = make_features(TagOptions(features="static", vectors=str(tmp_path / name)))
    assert features is not None and features.width == 2
    found = features([("New\u00a0York", "a\u2028b", "\u0085", ". . .", "York")])
    assert found.tolist() == [[[1, 2], [3, 4], [5, 6], [7, 8], [0, 0]]]


@pytest.mark.parametrize(
    ("text", "said"),
    [("a 1 2\nb 3 nan\n", ":2: .* not finite"), ("a 1 2\nb 3\n", ":2: .* 1 numbers"), ("", "empty")],
)
def test_bad_vectors_are_named(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "v.txt").write_text(text)
    with pytest.raises(DataError, match=said):
        make_features(TagOptions(features="static", vectors=str(tmp_path / "v.txt")))


def test_a_table_finds_words_as_they_stand_then_in_lower_case() -> None:
    table = Vectors(["the", "Bank"], np.array([[1, 2], [3, 4]], dtype=np.float32))
    found = StaticFeatures(table)([("The", "Bank", "bank"), ("the",)])
    assert found.tolist() == [[[1, 2], [3, 4], [0, 0]], [[1, 2], [0, 0], [0, 0]]]
    assert StaticFeatures(table).double()([("the",)]).dtype == torch.float64


def test_no_vector_of_a_fixed_table_is_trained_or_kept() -> None:
    features = StaticFeatures(model_of().requires_grad_(False))
    assert features([("a", "bank")]).shape == (1, 2, 3)
    assert not list(features.parameters()) and not features.state_dict()


def model_of() -> BiLM:
    """A small model."""
    reader = CharacterConfig(((1, 3), (2, 3)), 1, 4, 3, max_characters=9)
    return BiLM(ElmoConfig(reader, cells=5, cell_clip=None, output_clip=None, dropout=0.4)).initialise(0)


@torch.no_grad()
def test_a_sentence_s_layers_do_not_depend_on_the_others() -> None:
    model, rows = model_of().eval(), [("a",), ("the", "river", "bank"), ("bank",) * 5]
    layers, mask_BT = layers_of_sentences(model, rows)
    assert mask_BT.sum(1).tolist() == [1, 3, 5] and len(layers) == 3
    for i, words in enumerate(rows):
        alone, _ = layers_of_sentences(model, [words])
        for all_BTD, one_BTD in zip(layers, alone, strict=True):
            torch.testing.assert_close(all_BTD[i, : len(words)], one_BTD[0])
    # The layer without context is the same wherever its word stands.
    torch.testing.assert_close(layers[0][1, 2], layers[0][2, 0])
    assert not torch.allclose(layers[2][2, 0], layers[2][2, 4])


def test_frozen_features_are_read_once_and_never_dropped_out() -> None:
    model = model_of()
    features = ElmoFeatures(model).train()
    rows = [("a", "bank"), ("river",)]
    first = features(rows)
    calls: list[int] = []
    model.words.register_forward_hook(lambda *given: calls.append(1))
    torch.testing.assert_close(features(rows), first)
    assert not calls and first[1, 1].abs().sum() == 0
    features([("new",)])
    assert len(calls) == 1


@pytest.mark.parametrize("kind", ["elmo", "static"])
def test_what_is_kept_is_the_same_bit_for_bit_in_any_order(kind: str) -> None:
    rows = [
        tuple("river bank the a of deep"[i : i + k].split() or ["x"]) for i in range(18) for k in (3, 7, 9)
    ]

    def kept(order: list[tuple[str, ...]]) -> torch.Tensor:
        features = ElmoFeatures(model_of()) if kind == "elmo" else StaticFeatures(model_of())
        features.keep(order)
        # What is asked for later, and with which others, changes nothing.
        features(rows[5:6])
        return torch.cat([features([words]).flatten() for words in rows])

    assert torch.equal(kept(rows), kept(rows[::-1]))
    assert torch.equal(kept(rows), kept(rows[7:] + rows[:7] + rows))


def test_tuned_features_are_read_anew_and_drop_in_training_only() -> None:
    features = ElmoFeatures(model_of(), tune=True)
    rows = [("a", "bank"), ("river",)]
    features.train()
    assert not torch.equal(features(rows), features(rows))
    features.eval()
    torch.testing.assert_close(features(rows), features(rows))
    features(rows).sum().backward()
    moved = [name for name, p in features.named_parameters() if p.grad is not None]
    assert "mix.score" in moved and any(name.startswith("model.words.") for name in moved)


@given(st.text(max_size=30))
def test_characters_are_the_bytes_between_their_marks(word: str) -> None:
    (row,) = character_ids([word], 12).tolist() if word not in ("<S>", "</S>") else [[259, *[0] * 11]]
    data = word.encode("utf-8", "ignore")[:10]
    assert word in ("<S>", "</S>") or row == [259, *(b + 1 for b in data), 260, *[261] * (10 - len(data))]
