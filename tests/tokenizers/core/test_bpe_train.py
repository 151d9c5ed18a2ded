"""Learning merges: the obvious rule, the compiled core, and the core run as Python, all the same."""

from __future__ import annotations

import importlib.util
import random
from array import array
from itertools import accumulate
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import lineal.tokenizers.core
from lineal.native import compiled
from lineal.tokenizers import bpe_learn
from lineal.tokenizers.bpe import BPE, train_bpe

FILE = f"{lineal.tokenizers.core.__path__[0]}/bpe_train.py"


def as_python() -> ModuleType:
    """The core's source, run by the interpreter."""
    pytest.importorskip("cython")
    spec = importlib.util.spec_from_file_location("bpe_train_as_python", FILE)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module", params=["compiled", "python"])
def core(request) -> ModuleType:
    found = compiled(bpe_learn.CORE) if request.param == "compiled" else as_python()
    if found is None:
        pytest.skip("nothing was compiled at install")
    return found


def learned(core: ModuleType | None, counts: dict[bytes, int], size: int, **options: Any) -> BPE:
    """A vocabulary that this core learned, or the obvious form."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bpe_learn, "compiled", lambda name: core)
        return train_bpe(counts, size, **options)


PIECES = st.dictionaries(
    st.text("ab#é", min_size=1, max_size=12).map(str.encode), st.integers(1, 5), min_size=1
)
OPTIONS = st.fixed_dictionaries(
    {},
    optional={
        "initial": st.sampled_from(["bytes", "characters"]),
        "ties": st.sampled_from(["hf", "bytes", "text"]),
        "prefix": st.sampled_from([b"", b"##"]),
        "suffix": st.sampled_from([b"", b"</w>"]),
        "longest": st.integers(1, 6),
        "min_frequency": st.integers(0, 4),
        "special": st.sampled_from([(), ("<s>", "ab"), ("aa", "bab")]),
        "merges": st.integers(0, 10),
        "limit": st.integers(1, 3),
    },
)


@given(PIECES, OPTIONS, st.integers(0, 30))
def test_any_corpus_gives_the_same_merges(core, counts, options, more: int) -> None:
    if options.get("prefix"):
        # A text that has the prefix itself may spell one token in two ways, of which only one is too long.
        options.pop("longest", None)
    alphabet = () if options.get("initial") == "characters" else b""
    size = 20 + more
    expected = learned(None, counts, size, alphabet=alphabet, **options)
    assert learned(core, counts, size, alphabet=alphabet, **options) == expected


@pytest.mark.parametrize("ties", ["hf", "bytes", "text"])
@pytest.mark.parametrize("letters", ["ab", "abcdefgh", "".join(map(chr, range(0x4E00, 0x4F00)))])
def test_a_larger_corpus_gives_the_same_merges(core, letters: str, ties) -> None:
    draw = random.Random(len(letters))
    words = ["".join(draw.choices(letters, k=draw.randint(1, 30))) for _ in range(400)]
    counts = {word.encode(): draw.randint(1, 9) for word in words}
    expected = learned(None, counts, 1200, ties=ties)
    assert len(expected.merges) == 1200 - 256
    assert learned(core, counts, 1200, ties=ties) == expected


def test_counts_may_be_beyond_32_bits(core) -> None:
    counts = {b"ab": (1 << 40) + 1, b"cd": 1 << 40, b"abcd": 1}
    assert learned(core, counts, 258).tokens[-2:] == (b"ab", b"cd")
    assert learned(core, {**counts, b"cd": (1 << 40) + 2}, 258).tokens[-2:] == (b"cd", b"ab")


def test_runs_are_merged_from_the_left(core) -> None:
    found = learned(core, {b"aaaaa": 3, b"aab": 1}, 300)
    assert found.tokens[256:] == learned(None, {b"aaaaa": 3, b"aab": 1}, 300).tokens[256:]
    assert found.tokens[256] == b"aa"


def test_it_may_go_step_by_step(core) -> None:
    words = [b"banana", b"bandana", b"ananas", b"cabana"]
    first = sorted({bytes([byte]) for word in words for byte in word})
    ids = {symbol: i for i, symbol in enumerate(first)}
    merges = []
    for steps in (1, 3, 1000):
        cells = array("i")
        for number, word in enumerate(words):
            for byte in word:
                cells.extend((ids[bytes([byte])], 0, 0, number))
        ends = [*accumulate(map(len, first))]
        weights = memoryview(array("q", [1, 2, 3, 4]))
        pairs = core.Pairs(memoryview(cells), weights, b"".join(first), ends, 40, 0, b"", 1 << 60, False)
        while pairs.run(40, 1, steps):
            pass
        merges.append(pairs.found())
    assert merges[0] == merges[1] == merges[2]
    assert len(merges[0][0]) > 12


def test_bytes_are_laid_out_by_piece(core) -> None:
    table = array("i", range(1000, 1256))
    cells = core.laid_out(b"abc", array("q", [1, 1, 3]), table)
    places = [[*cells[i : i + 4]] for i in range(0, 12, 4)]
    assert [(symbol, piece) for symbol, _, _, piece in places] == [(1097, 0), (1098, 2), (1099, 2)]
