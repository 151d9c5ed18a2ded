"""A trie in flat arrays finds what a dictionary finds, compiled and as Python."""

from __future__ import annotations

import importlib.util
import random
from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st

import lineal.tokenizers.core
from lineal.native import compiled
from lineal.tokenizers.double_array import TRIE, build_trie

FOLDER = lineal.tokenizers.core.__path__[0]


def as_python(name: str) -> ModuleType:
    """A core's source, run by the interpreter."""
    pytest.importorskip("cython")
    spec = importlib.util.spec_from_file_location(f"{name}_as_python", f"{FOLDER}/{name}.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module", params=["compiled", "python"])
def core(request) -> ModuleType:
    found = compiled(TRIE) if request.param == "compiled" else as_python("double_array")
    if found is None:
        pytest.skip("nothing was compiled at install")
    return found


def prefixes(nodes, text: bytes) -> list[tuple[int, int]]:
    """Length and value of each key that a text begins with."""
    node, found = 0, []
    for length, byte in enumerate(text, 1):
        to = nodes[4 * node] + byte
        if nodes[4 * to + 1] != node:
            break
        node = to
        if nodes[4 * node + 2] >= 0:
            found.append((length, nodes[4 * node + 2]))
    return found


@given(
    keys=st.dictionaries(st.binary(min_size=1, max_size=6), st.integers(0, 1 << 30), max_size=40),
    texts=st.lists(st.binary(max_size=8), max_size=8),
)
def test_it_finds_what_a_dictionary_finds(core, keys, texts) -> None:
    nodes = build_trie(list(keys.items()), core)
    for text in [*texts, *keys, *(key + b"\0" for key in keys)]:
        expected = [(n, keys[text[:n]]) for n in range(1, len(text) + 1) if text[:n] in keys]
        assert prefixes(nodes, text) == expected


@pytest.mark.parametrize("letters", [b"ab", b"abcdefgh", bytes(range(256))])
def test_many_keys(core, letters) -> None:
    draw = random.Random(5)
    keys = list({bytes(draw.choices(letters, k=draw.randint(1, 7))) for _ in range(400)})
    nodes = build_trie([(key, at) for at, key in enumerate(keys)], core)
    for at, key in enumerate(keys):
        assert prefixes(nodes, key)[-1] == (len(key), at)


def test_one_long_key_and_none(core) -> None:
    assert prefixes(build_trie([(b"x" * 5000, 7)], core), b"x" * 5001) == [(5000, 7)]
    assert prefixes(build_trie([], core), b"anything") == []


def test_both_forms_build_the_same() -> None:
    found = compiled(TRIE)
    if found is None:
        pytest.skip("nothing was compiled at install")
    keys = [
        (text.encode(), at) for at, text in enumerate(["a", "ab", "b", "ba", "▁the", "▁then", "日本", "日"])
    ]
    assert build_trie(keys, found) == build_trie(keys, as_python("double_array"))
