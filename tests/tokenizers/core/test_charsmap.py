"""Normalising in one run: the plain form, the compiled core, and the core as Python, all the same."""

from __future__ import annotations

import importlib.util
from array import array
from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st

import lineal.tokenizers.core
from lineal.native import compiled
from lineal.tokenizers.double_array import TRIE
from lineal.tokenizers.text.charsmap import CORE, SentencePieceNormaliser

FOLDER = lineal.tokenizers.core.__path__[0]
RULES = {
    "é": "e", "ａ": "a", "\t": " ", "\r\n": " ", "ﷺ": "twelve letters and two", "\u200b": "", "ab\u0301": "ḃ", "x": "xx",
    "\u3000": " ", "…": "...", "¨": " \u0308", "b ": "c  ",
}  # fmt: skip


def as_python(name: str) -> ModuleType:
    """A core's source, run by the interpreter."""
    pytest.importorskip("cython")
    spec = importlib.util.spec_from_file_location(f"{name}_as_python", f"{FOLDER}/{name}.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def charsmap(rules: dict[str, str]) -> bytes:
    """A charsmap of these rules: a double array as Darts-clone reads it, built the slow and obvious way."""
    texts, values = b"", {}
    for old, new in rules.items():
        values[old.encode()] = len(texts)
        texts += new.encode() + b"\0"
    units, used = {0: 0}, {0}

    def place(node: int, prefix: bytes) -> None:
        kids = sorted(
            {key[len(prefix)] for key in values if key.startswith(prefix) and len(key) > len(prefix)}
        )
        ends = prefix in values
        offset = 1
        while any((node ^ offset ^ label) in used for label in [*kids, *([0] if ends else [])]):
            offset += 1
        units[node] |= offset << 10 | (256 if ends else 0)
        for label in kids:
            units[node ^ offset ^ label] = label
            used.add(node ^ offset ^ label)
        if ends:
            units[node ^ offset] = values[prefix] | 1 << 31
            used.add(node ^ offset)
        for label in kids:
            place(node ^ offset ^ label, prefix + bytes((label,)))

    place(0, b"")
    flat = array("I", [units.get(at, 0xFF) for at in range(max(units) + 256)])
    return (4 * len(flat)).to_bytes(4, "little") + flat.tobytes() + texts


BLOB = charsmap(RULES)


@pytest.fixture(scope="module", params=["compiled", "python"])
def cores(request) -> tuple[ModuleType, ModuleType]:
    if request.param == "compiled":
        found = compiled(CORE), compiled(TRIE)
    else:
        found = as_python("charsmap"), as_python("double_array")
    if found[0] is None or found[1] is None:
        pytest.skip("nothing was compiled at install")
    return found[0], found[1]


texts = st.text(st.sampled_from("  \t\r\nabxé…ａ▁ﷺ¨\u200b\u0301\u3000語<s>😀"), max_size=30) | st.text(
    max_size=20
)


@given(text=texts, switches=st.tuples(*[st.booleans()] * 4), blob=st.sampled_from([b"", BLOB]))
@pytest.mark.parametrize("keep", [(), ("<s>", "ab", "  a")])
def test_each_form_writes_the_same(cores, text, switches, blob, keep) -> None:
    normaliser = SentencePieceNormaliser(blob, *switches, keep=keep)
    core, trie = cores
    data = text.encode()
    written = b"".join(part for part, _ in normaliser.steps(data)[0])
    assert core.Rewriter(*normaliser.flat(trie)).convert(data) == written


def test_more_room_is_made_where_rules_write_a_lot(cores) -> None:
    core, trie = cores
    normaliser = SentencePieceNormaliser(BLOB)
    data = ("ﷺ" * 500).encode()
    found = core.Rewriter(*normaliser.flat(trie)).convert(data)
    assert found == b"".join(part for part, _ in normaliser.steps(data)[0])
    assert found.count(b"twelve") == 500


def test_cut_characters_are_passed_on(cores) -> None:
    core, trie = cores
    normaliser = SentencePieceNormaliser(BLOB)
    for data in (b"\xe8\xaa", b"a\xff", b"\xf0\x9f", b"\x80\x80"):
        expected = b"".join(part for part, _ in normaliser.steps(data)[0])
        assert core.Rewriter(*normaliser.flat(trie)).convert(data) == expected


def test_texts_that_are_not_there_are_noticed(cores) -> None:
    core, _ = cores
    units = SentencePieceNormaliser(BLOB).rules.units
    size = len(SentencePieceNormaliser(BLOB).rules.texts)
    assert core.beyond(units, size) == -1
    assert core.beyond(units, 10) >= 0
