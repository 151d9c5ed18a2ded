"""Byte-pair encoding at its bounds: odd vocabularies, bytes that are no text, dropout by its rule, threads, worst cases."""

from __future__ import annotations

import importlib.util
import itertools
import os
import random
import subprocess
import sys
from array import array
from collections import Counter, defaultdict
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import lineal.tokenizers.core
from lineal.errors import DataError, ModelError, UsageError
from lineal.native import compiled
from lineal.tokenizers import bpe, bpe_learn
from lineal.tokenizers.bpe import BPE, train_bpe
from lineal.tokenizers.text.split import Gpt2

FOLDER = lineal.tokenizers.core.__path__[0]
LETTERS = [
    b"a",
    b"b",
    b"c",
    b"#",
    "é".encode(),
    b"\xc3",
    b"\xe6\x97",
    b"\xe6\x97\xa5",
    b"\xff",
    b"\0",
    b"\xf0\x9f",
]
"""Bytes that begin, continue, break off and never belong to characters."""


def as_python(name: str) -> ModuleType:
    """A core's source, run by the interpreter."""
    pytest.importorskip("cython")
    spec = importlib.util.spec_from_file_location(f"{name}_as_python", f"{FOLDER}/{name}.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module", params=["compiled", "python", "obvious"])
def cores(request) -> dict[str, ModuleType | None]:
    names = (bpe.TABLES, bpe.ENCODER, bpe_learn.CORE)
    if request.param == "obvious":
        return dict.fromkeys(names)
    if request.param == "python":
        return {name: as_python(name.rsplit(".", 1)[1]) for name in names}
    found = {name: compiled(name) for name in names}
    if None in found.values():
        pytest.skip("nothing was compiled at install")
    return found


@pytest.fixture
def form(cores, monkeypatch) -> Iterator[None]:
    """Everything made in the test runs on these cores, with a small cache."""
    monkeypatch.setattr(bpe, "compiled", cores.get)
    monkeypatch.setattr(bpe_learn, "compiled", cores.get)
    monkeypatch.setattr(bpe, "CACHE", 2)
    yield


def ids_of(model: BPE, piece: bytes) -> list[int]:
    return model.encode(piece, array("i", [0, len(piece)]))


def obvious(model: BPE, piece: bytes) -> list[int]:
    return [token for token, _, _ in model.segment(piece)]


def joined(parts: list[bytes]) -> bytes:
    return b"".join(parts)


PIECES = st.lists(
    st.lists(st.sampled_from(LETTERS), min_size=1, max_size=20).map(joined), min_size=1, max_size=5
)
KINDS: dict[str, dict[str, Any]] = {
    "bytes": {"initial": "bytes"},
    "characters": {"initial": "characters"},
    "prefix": {"initial": "characters", "prefix": b"#"},
    "suffix": {"initial": "characters", "suffix": b"#"},
    "both": {"initial": "characters", "prefix": b"##", "suffix": b"##"},
}


@pytest.mark.usefixtures("form")
@pytest.mark.parametrize("kind", KINDS.values(), ids=[*KINDS])
def test_learned_from_bytes_that_are_no_text(kind: dict[str, Any]) -> None:
    @settings(max_examples=25)
    @given(PIECES, st.booleans())
    def check(pieces: list[bytes], whole: bool) -> None:
        like = train_bpe(Counter(pieces), 300, alphabet=b"", **kind)
        model = BPE(**{**like.__reduce__()[1][0], "ignore_merges": whole})
        for piece in [*pieces, pieces[0][:-1], pieces[0][1:], pieces[0] * 9]:
            assert ids_of(model, piece) == obvious(model, piece)
        for piece in pieces:
            spelled = [
                model.tokens[token].removeprefix(model.prefix if i else b"")
                for i, token in enumerate(ids_of(model, piece))
            ]
            if not whole and not model.prefix:
                # Every symbol of what was learned from is known, so that nothing is lost.
                assert b"".join(spelled).removesuffix(model.suffix) == piece

    check()


@pytest.mark.usefixtures("form")
def test_vocabularies_of_random_tokens() -> None:
    """Not learned: tokens that stand twice, empty ones, ids that are silent, unknown and bytes to fall back on."""

    @settings(max_examples=15)
    @given(st.randoms(use_true_random=False))
    def check(draw: random.Random) -> None:
        tokens = [joined(draw.choices(LETTERS, k=draw.randint(0, 3))) for _ in range(draw.randint(4, 40))]
        options: dict[str, Any] = {"initial": draw.choice(["bytes", "characters"])}
        options["unknown"] = draw.choice([None, draw.randrange(len(tokens))])
        options["fuse_unknown"] = draw.random() < 0.5
        options["ignore_merges"] = draw.random() < 0.3
        options["silent"] = frozenset(draw.sample(range(len(tokens)), draw.randint(0, 3)))
        kind = draw.choice(["plain", "fallback", "affixes"])
        if kind == "fallback":
            options["byte_fallback"] = tuple(draw.choices(range(len(tokens)), k=256))
        if kind == "affixes":
            options |= {"prefix": draw.choice([b"", b"#"]), "suffix": draw.choice([b"", b"c", b"##"])}
        merges: list[tuple[int, int]] = []
        options["by_rank"] = kind == "plain" and draw.random() < 0.5
        pairs = [(left, right) for left in range(len(tokens)) for right in range(len(tokens))]
        for pair in [] if options["by_rank"] else draw.sample(pairs, min(60, len(pairs))):
            try:
                BPE(tokens, [pair], **options)
            except ModelError:
                continue
            merges.append(pair)
        model = BPE(tokens, merges, **options)
        for _ in range(6):
            piece = joined(draw.choices(LETTERS, k=draw.choice([1, 4, 9, 80])))
            assert ids_of(model, piece) == obvious(model, piece)
            ends = [0, *(end for _, _, end in model.segment(piece))]
            assert ends == sorted(ends) and ends[-1] <= len(piece)

    check()


@pytest.mark.usefixtures("form")
def test_an_empty_vocabulary() -> None:
    nothing = BPE([], (), initial="bytes")
    assert ids_of(nothing, b"abc") == [] and ids_of(nothing, b"") == []
    with pytest.raises(ModelError, match="unknown has the id 0, and there are 0 tokens"):
        BPE([], (), initial="bytes", unknown=0)
    with pytest.raises(ModelError, match="silent has the id 0"):
        BPE([b""][:0], (), initial="bytes", silent=frozenset([0]))
    alone = BPE([b"?"], (), initial="bytes", unknown=0)
    assert ids_of(alone, b"ab?") == [0, 0, 0]
    assert ids_of(BPE([b"?"], (), initial="bytes", unknown=0, fuse_unknown=True), b"ab?c") == [0, 0, 0]


@pytest.mark.usefixtures("form")
@pytest.mark.parametrize("unknown", [0, 3, 4])
def test_by_rank_the_unknown_token_takes_no_part(unknown: int) -> None:
    # It is a gap, a token that is spelled like an earlier one, or a special one.
    tokens = [b"", b"b", b"a", b"a", b"c", b"ab", b"cb"]
    model = BPE(tokens, (), initial="bytes", by_rank=True, unknown=unknown, silent=frozenset([4]))
    assert ids_of(model, b"xb") == obvious(model, b"xb") == [unknown, 1]
    assert ids_of(model, b"xab") == [unknown, 5]


@pytest.mark.usefixtures("form")
@pytest.mark.parametrize("spans", [[0, 5], [-1, 2], [3, 2], [5, 9], [0, 1 << 30], [1 << 30, 1 << 30 | 3]])
def test_spans_of_another_text_are_refused(spans: list[int]) -> None:
    model = train_bpe({b"abab": 2, b"cd": 1}, 300)
    texts, places = [b"abab", b"cdcd", b"abcd"], [array("i", [0, 2, 2, 4]) for _ in range(3)]
    with pytest.raises(DataError, match="outside the text of 4 bytes: give the spans of this text"):
        model.encode(texts[1], array("i", [0, 2, *spans]))
    with pytest.raises(DataError, match="outside the text of 4 bytes"):
        model.sample(texts[1], array("i", spans), random.Random(0), 0.5)
    for threads in (1, 2):
        with pytest.raises(DataError, match="outside the text of 4 bytes"):
            model.encode_batch(texts, [places[0], array("i", spans), places[2]], threads)
    assert model.encode_batch(texts, places, 2) == [model.encode(*each) for each in zip(texts, places)]


@pytest.mark.usefixtures("form")
def test_threads_give_what_one_gives_for_texts_of_every_size(monkeypatch) -> None:
    monkeypatch.setattr(bpe, "SHORT", 40)
    monkeypatch.setattr(bpe, "BLOCK", 100)
    draw = random.Random(8)
    texts = [
        "".join(draw.choices("abcdé ", k=draw.choice([0, 1, 7, 17, 39, 40, 41, 200]))).encode()
        for _ in range(30)
    ]
    model = train_bpe(Counter(texts), 400)
    spans = [Gpt2().spans(text) for text in texts]
    expected = [
        [token for piece in pieces(text, places) for token in obvious(model, piece)]
        for text, places in zip(texts, spans)
    ]
    for threads in (1, 3):
        assert model.encode_batch(texts, spans, threads) == expected
    with pytest.raises(UsageError, match="0 threads"):
        model.encode_batch(texts, spans, 0)


def pieces(text: bytes, spans: array[int]) -> list[bytes]:
    return [text[start:end] for start, end in zip(spans[::2], spans[1::2])]


def chances(
    piece: tuple[int, ...], merges: dict[tuple[int, int], tuple[int, int]], share: float
) -> dict[tuple[int, ...], float]:
    """How likely dropout gives each result, by the rule itself: at each step all merges anew, first to last."""
    found: dict[tuple[int, ...], float] = defaultdict(float)
    can = [(merges[pair][0], i) for i, pair in enumerate(itertools.pairwise(piece)) if pair in merges]
    passed = 1.0
    for _, i in sorted(can):
        after = (*piece[:i], merges[piece[i], piece[i + 1]][1], *piece[i + 2 :])
        for result, chance in chances(after, merges, share).items():
            found[result] += passed * (1 - share) * chance
        passed *= share
    found[piece] += passed
    return found


@pytest.mark.parametrize("text,draws", [(b"abc", 900), (b"aabb", 300)])
def test_dropout_is_as_likely_as_the_rule_says(text: bytes, draws: int) -> None:
    # What has been merged since may not take a step, or others would have a second chance by it.
    tokens = [b"a", b"b", b"c", b"ab", b"abc", b"bc", b"aa", b"bb"]
    pairs = [(0, 1), (3, 2), (1, 2), (0, 0), (1, 1)]
    model = BPE(tokens, pairs, initial="bytes")
    made = {pair: (rank, tokens.index(tokens[pair[0]] + tokens[pair[1]])) for rank, pair in enumerate(pairs)}
    expected = chances(tuple(tokens.index(bytes([byte])) for byte in text), made, 0.5)
    source, spans = random.Random(11), array("i", [0, len(text)])
    seen = Counter(tuple(model.sample(text, spans, source, 0.5)) for _ in range(draws))
    assert {*seen} <= {*expected}
    for result, chance in expected.items():
        assert abs(seen[result] / draws - chance) < 1.5 / draws**0.5, (result, chance)


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan"), float("inf")])
def test_a_dropout_that_is_no_probability(share: float) -> None:
    model = train_bpe({b"ab": 1}, 257)
    with pytest.raises(UsageError, match="is no probability: give a number from 0 to 1"):
        model.sample(b"ab", array("i", [0, 2]), random.Random(0), share)
    with pytest.raises(ModelError, match="no probability"):
        BPE(model.tokens, model.merges, initial="bytes", dropout=share)


BOUNDS: dict[str, tuple[dict[str, Any], str]] = {
    "merges": ({"merges": -1}, "merges=-1 can't be: give 0 or more"),
    "limit": ({"limit": 0}, "limit=0 can't be: give 1 or more"),
    "limit below": ({"limit": -3}, "limit=-3 can't be"),
    "longest": ({"longest": 0}, "longest=0 can't be: give 1 or more"),
    "min_frequency": ({"min_frequency": -1}, "min_frequency=-1 can't be: give 0 or more"),
    "special": ({"special": ["\ud800"]}, "lone surrogate"),
    "alphabet": ({"alphabet": ["a", "\udfff"]}, "lone surrogate"),
}


@pytest.mark.parametrize("options,message", BOUNDS.values(), ids=[*BOUNDS])
def test_options_out_of_bounds(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        train_bpe({b"abab": 1}, 300, **options)


@pytest.mark.usefixtures("form")
@pytest.mark.parametrize(
    "options", [{}, {"merges": 1 << 70}, {"longest": 1 << 70}, {"limit": 1 << 70}, {"special": ["é", "<s>"]}]
)
def test_options_beyond_all_bounds_are_no_bounds(options: dict[str, Any]) -> None:
    found = train_bpe({b"abab": 2}, 1 << 100, **options)
    assert found.tokens[-2:] == (b"ab", b"abab") and len(found.tokens) == 258 + len(
        options.get("special", ())
    )
    assert not train_bpe({b"abab": 2}, 300, min_frequency=1 << 70).merges


@pytest.mark.usefixtures("form")
def test_a_merge_that_comes_again_is_counted_once() -> None:
    """Where symbols have affixes, a pair that is all merged can come back; it is still one merge."""
    counts = {b"ba#": 1, b"b#": 4, b"#ba#aa#b##aa#ab##": 2, b"b##bbbbbab###bb##aaba#a": 1}
    every = train_bpe(counts, 70, prefix=b"#", suffix=b"#", alphabet=b"").merges
    assert len(every) > 21
    for most in (0, 1, 20, 21, len(every)):
        some = train_bpe(counts, 70, prefix=b"#", suffix=b"#", alphabet=b"", merges=most)
        assert some.merges == every[:most]


@pytest.mark.usefixtures("form")
def test_steps_of_any_size_learn_the_same(monkeypatch) -> None:
    draw = random.Random(21)
    counts = {
        "".join(draw.choices("ab#", k=draw.randint(2, 12))).encode(): draw.randint(1, 4) for _ in range(20)
    }
    expected = train_bpe(counts, 90, prefix=b"#", alphabet=b"", merges=40)
    for step in (1, 7, 39, 40):
        monkeypatch.setattr(bpe_learn, "STEP", step)
        calls: list[tuple[int, int]] = []
        found = train_bpe(
            counts,
            90,
            prefix=b"#",
            alphabet=b"",
            merges=40,
            progress=lambda *done, calls=calls: calls.append(done),
        )
        assert found == expected
        assert calls == sorted(calls) and all(wanted == 40 for _, wanted in calls)


def steps_of(kind: type, names: list[str], work) -> int:
    """How often methods of a core run as Python are called."""
    count = 0
    with pytest.MonkeyPatch.context() as patch:
        for name in names:
            own = getattr(kind, name)

            def counted(*arguments, own=own):
                nonlocal count
                count += 1
                return own(*arguments)

            patch.setattr(kind, name, counted)
        work()
    return count


@pytest.mark.parametrize("unit", [b"a", b"ab", b"abc"])
def test_a_long_piece_takes_steps_in_proportion(unit: bytes) -> None:
    tables, encode, train = as_python("bpe_tables"), as_python("bpe_encode"), as_python("bpe_train")
    like = train_bpe({unit * 40: 1}, 280)
    named = {bpe.TABLES: tables, bpe.ENCODER: encode, bpe_learn.CORE: train}
    with pytest.MonkeyPatch.context() as patch:
        for module in (bpe, bpe_learn):
            patch.setattr(module, "compiled", named.get)
        patch.setattr(bpe, "CACHE", 2)
        model = BPE(**like.__reduce__()[1][0])
        few, many = (
            steps_of(
                encode.Encoder, ["_make", "_sink", "_find"], lambda size=size: ids_of(model, unit * size)
            )
            for size in (200, 800)
        )
        assert 0 < many < 4.5 * few
        few, many = (
            steps_of(
                train.Pairs, ["_join", "_add", "_find"], lambda size=size: train_bpe({unit * size: 1}, 262)
            )
            for size in (200, 800)
        )
        assert 0 < many < 4.5 * few


def test_a_piece_of_a_megabyte_is_merged_whole() -> None:
    model = train_bpe({b"a" * 64: 1}, 262)
    if model._core is None:
        pytest.skip("nothing was compiled at install")
    assert ids_of(model, b"a" * (1 << 20)) == [model.tokens.index(b"a" * 64)] * (1 << 14)
    # The room that it took is given back, and short pieces go on as before.
    assert ids_of(model, b"aab") == obvious(model, b"aab")


PROGRAM = """
from array import array
from lineal import native
from lineal.tokenizers.corpus import counting
from lineal.tokenizers.text import split
from lineal.tokenizers.bpe import train_bpe
counts = counting.count_texts(["It's the 2nd cat, the cat's hat.\\n"] * 3, None, split.Gpt2())
model = train_bpe(counts, 280)
data = "The cats' hats, été!".encode()
print(native.compiled("lineal.tokenizers.core.scan") is None, model._core is None, split.scanners() is None)
print(list(counts.items()), model.merges, model.encode(data, split.Cl100k().spans(data)))
"""


def test_with_every_core_switched_off_all_is_the_same() -> None:
    said = []
    for switch in ("0", "1"):
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM],
            env={**os.environ, "LINEAL_COMPILED": switch},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        said.append(done.stdout.splitlines())
    assert said[0][0] == "True True True"
    assert said[0][1] == said[1][1]
