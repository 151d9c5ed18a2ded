"""Encoding by merges: the obvious rule, the compiled core, and the core run as Python, all the same."""

from __future__ import annotations

import importlib.util
import random
from array import array
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import lineal.tokenizers.core
from lineal.errors import ModelError
from lineal.native import compiled
from lineal.tokenizers import bpe
from lineal.tokenizers.bpe import BPE, train_bpe

FOLDER = lineal.tokenizers.core.__path__[0]
Cores = dict[str, ModuleType | None]


def as_python(name: str) -> ModuleType:
    """A core's source, run by the interpreter."""
    pytest.importorskip("cython")
    spec = importlib.util.spec_from_file_location(f"{name}_as_python", f"{FOLDER}/{name}.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module", params=["compiled", "python"])
def cores(request) -> Cores:
    if request.param == "compiled":
        found: Cores = {name: compiled(name) for name in (bpe.TABLES, bpe.ENCODER)}
    else:
        found = {name: as_python(name.rsplit(".", 1)[1]) for name in (bpe.TABLES, bpe.ENCODER)}
    if None in found.values():
        pytest.skip("nothing was compiled at install")
    return found


def made(cores: Cores, like: BPE, bits: int = 1, **changes: Any) -> BPE:
    """A model like another one on these cores, with a cache so small that lines are lost."""
    kind, values = like.__reduce__()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bpe, "compiled", cores.get)
        patch.setattr(bpe, "CACHE", bits)
        found = kind({**values[0], **changes})
        if found._core is not None:
            found._encoders.append(found._encoder())
    return found


def encoded(model: BPE, pieces: Sequence[bytes]) -> list[int]:
    """Ids of pieces, as a text with something between them that is no piece."""
    data, spans = b"", array("i")
    for piece in pieces:
        spans.extend((len(data) + 1, len(data) + 1 + len(piece)))
        data += b"|" + piece
    return model.encode(data, spans)


def obvious(model: BPE, pieces: Sequence[bytes]) -> list[int]:
    return [token for piece in pieces for token, _, _ in model.segment(piece)]


WORDS = [
    "the",
    " cat",
    "aaaaaaaaa",
    "abababab",
    "été",
    "日本語日本",
    "a#b##",
    "x" * 40,
    "",
    "ab" * 50,
    "日本" * 40,
]


def some(draw: random.Random) -> bytes:
    """A random piece: short, long, or with odd characters."""
    letters = draw.choice(["ab", "abcdefgh ", "aé日😀#"])
    return "".join(draw.choices(letters, k=draw.choice([1, 2, 5, 12, 16, 30, 90]))).encode()


def corpus(seed: int) -> dict[bytes, int]:
    draw = random.Random(seed)
    return {some(draw): draw.randint(1, 9) for _ in range(60)} | {word.encode(): 3 for word in WORDS}


OPTIONS = {
    "bytes": {},
    "seen bytes": {"alphabet": b""},
    "characters": {"initial": "characters"},
    "fallback": {"initial": "characters", "byte_fallback": True, "limit": 4},
    "unknown": {"initial": "characters", "special": ["<unk>"], "unknown": "<unk>", "limit": 3},
    "dropped": {"initial": "characters", "limit": 3},
    "suffix": {
        "initial": "characters",
        "suffix": b"</w>",
        "special": ["<unk>"],
        "unknown": "<unk>",
        "limit": 6,
    },
    "prefix": {
        "initial": "characters",
        "prefix": b"##",
        "special": ["<unk>"],
        "unknown": "<unk>",
        "limit": 6,
    },
    "both": {"prefix": b"#", "suffix": b"_"},
}


@pytest.mark.parametrize("fuse", [False, True])
@pytest.mark.parametrize("options", OPTIONS.values(), ids=[*OPTIONS])
def test_every_kind_of_vocabulary_gives_the_same_ids(cores, options, fuse: bool) -> None:
    model = made(cores, train_bpe(corpus(1), 700, **options), fuse_unknown=fuse)
    draw = random.Random(2)
    pieces = [some(draw) for _ in range(20)] + [word.encode() for word in WORDS] + [*corpus(1)][:10]
    pieces += pieces[:20]
    assert encoded(model, pieces) == obvious(model, pieces)


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("initial", ["bytes", "characters"])
def test_merging_by_rank(cores, initial, whole: bool) -> None:
    like = train_bpe(corpus(3), 600, initial=initial, special=["<s>"], unknown="<s>")
    draw = random.Random(4)
    tokens = [like.tokens[0], *draw.sample(like.tokens[1:], len(like.tokens) - 1)]
    model = made(cores, like, tokens=tokens, merges=(), by_rank=True, ignore_merges=whole)
    pieces = [some(draw) for _ in range(20)] + tokens[:20]
    assert encoded(model, pieces) == obvious(model, pieces)
    assert [model.tokens[token] for token in encoded(model, pieces)] != pieces


@given(st.data())
def test_merges_in_any_order_give_the_same_ids(cores, data) -> None:
    pieces = data.draw(st.lists(st.text("abc", min_size=1, max_size=90).map(str.encode), min_size=1))
    like = train_bpe(dict.fromkeys(pieces, 1), 300)
    merges = data.draw(st.permutations(like.merges))
    cut = data.draw(st.integers(0, len(merges)))
    model = made(cores, like, merges=merges[:cut], ignore_merges=data.draw(st.booleans()))
    assert encoded(model, pieces) == obvious(model, pieces)


@given(st.lists(st.binary(max_size=40), min_size=1))
def test_bytes_that_are_no_text(cores, pieces) -> None:
    like = train_bpe(dict.fromkeys(pieces, 1) | {b"ab": 1}, 280)
    assert encoded(made(cores, like), pieces) == obvious(like, pieces)
    spelled = train_bpe({b"ab": 3, "é".encode(): 1}, 300, initial="characters", byte_fallback=True)
    model = made(cores, spelled)
    assert encoded(model, pieces) == obvious(model, pieces)
    assert b"".join(model.tokens[token] for token in encoded(model, pieces)) == b"".join(pieces)


def test_long_texts_and_pieces_need_more_room(cores) -> None:
    like = train_bpe({b"ab": 3, b"abab": 2, b"cc": 1}, 260)
    model = made(cores, like, bits=4)
    draw = random.Random(5)
    known = {piece: obvious(model, [piece]) for piece in (b"a", b"cab", b"bca" * 200, b"abc" * 900)}
    pieces = [*known, *draw.choices([*known], k=20)]
    assert encoded(model, pieces) == [token for piece in pieces for token in known[piece]]
    many = draw.choices([*known][:2], k=12000)
    assert encoded(model, many) == [token for piece in many for token in known[piece]]


def test_several_short_texts_at_once(cores) -> None:
    like = train_bpe(corpus(6), 400)
    texts = [b"", b"the cat", b"abab", b"the cat" * 9, b""]
    spans = [array("i"), array("i", [0, 3, 3, 7]), array("i", [1, 4]), array("i", [0, 63]), array("i")]
    encoder = made(cores, like)._encoder()
    begins = [sum(map(len, texts[:i])) for i in range(len(texts))]
    joined = memoryview(array("i", [place for each in spans for place in each]))
    found = encoder.encode_many(b"".join(texts), joined, begins, [*map(len, spans)])
    assert found == [like.encode(text, places) for text, places in zip(texts, spans)]


@pytest.mark.parametrize("spans", [[-1, 2], [0, 4], [2, 1], [3, 9]])
def test_pieces_outside_the_text(cores, spans) -> None:
    encoder = made(cores, train_bpe({b"ab": 1}, 257))._encoder()
    with pytest.raises(IndexError):
        encoder.encode(b"abc", memoryview(array("i", spans)))
    with pytest.raises(IndexError):
        encoder.encode_many(b"abc", memoryview(array("i", spans)), [0], [2])


DAMAGE = {
    "out of range": ([(0, 7)], "merge 1 of 1, (0, 7)"),
    "negative": ([(0, 1), (-1, 0)], "merge 2 of 2"),
    "beyond 32 bits": ([(0, 1), (1, 1 << 40)], "merge 2 of 2"),
    "no token": ([(1, 0)], "b'ba' is no token"),
    "twice": ([(0, 1), (0, 1)], "stands twice"),
    "empty": ([(2, 0)], "merge 1 of 1, (2, 0)"),
    "its own part": ([(0, 4)], "for ever"),
}


@pytest.mark.parametrize("merges,message", DAMAGE.values(), ids=[*DAMAGE])
@pytest.mark.parametrize("kind", ["core", "obvious"])
def test_damaged_merges_are_refused(cores, kind: str, merges, message: str) -> None:
    tokens = [b"a", b"b", b"", b"ab", b"##"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bpe, "compiled", cores.get if kind == "core" else {}.get)
        with pytest.raises(ModelError) as caught:
            BPE(tokens, merges, initial="bytes", prefix=b"##")
    assert message in str(caught.value)
