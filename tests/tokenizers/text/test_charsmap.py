"""SentencePiece's normalisation, against SentencePiece's own and by its rules."""

from __future__ import annotations

import gzip
import pickle
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lineal.errors import DataError, ModelError
from lineal.tokenizers.sentencepiece import read_model
from lineal.tokenizers.text import charsmap
from lineal.tokenizers.text.charsmap import Charsmap, SentencePieceNormaliser, read_charsmap

MODELS = (
    "tok_sentencepiece/test_model.model",
    "tok_sentencepiece/test_ja_model.model",
    "tok_llama2/tokenizer.model",
)
PLAIN = SentencePieceNormaliser(b"")


def lines(data: Path) -> list[str]:
    """Some lines in each language."""
    found = []
    for path in sorted((data / "ntrex").iterdir()):
        text = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        found += text.decode().split("\n")[:60]
    return found


def library(path: Path):
    return pytest.importorskip("sentencepiece").SentencePieceProcessor(model_file=str(path))


@pytest.mark.parametrize("name", MODELS)
def test_real_text_is_normalised_as_the_library_does(data, name) -> None:
    theirs, ours = library(data / name), read_model(data / name).text_normaliser
    for line in lines(data):
        assert ours(line) == theirs.normalize(line)


odd = st.text(st.sampled_from(" \t\n▁aﬁ①㌔ｶﾞeé\u0301\u200b\u00a0\u3000ÅⅣ한가각…½ﷺ"), max_size=20)


@pytest.mark.parametrize("name", MODELS)
def test_any_text_is_normalised_as_the_library_does(data, name) -> None:
    theirs, ours = library(data / name), read_model(data / name).text_normaliser

    @given(text=odd | st.text(max_size=30))
    def check(text: str) -> None:
        assert ours(text) == theirs.normalize(text)

    check()


@pytest.mark.parametrize("name", MODELS[:2])
def test_the_plain_form_alone(data, name, monkeypatch) -> None:
    monkeypatch.setattr(charsmap, "compiled", lambda core: None)
    theirs, ours = library(data / name), read_model(data / name).text_normaliser
    for line in lines(data)[::15]:
        assert ours(line) == theirs.normalize(line)


def test_spaces() -> None:
    assert PLAIN("  a  b ") == "▁a▁b"
    assert PLAIN("") == "" and PLAIN("   ") == ""
    assert SentencePieceNormaliser(b"", remove_extra_whitespaces=False)(" a ") == "▁▁a▁"
    assert SentencePieceNormaliser(b"", add_dummy_prefix=False)("a b") == "a▁b"
    assert SentencePieceNormaliser(b"", escape_whitespaces=False)("a  b") == " a b"
    assert SentencePieceNormaliser(b"", treat_whitespace_as_suffix=True)("a b ") == "a▁b▁"
    assert SentencePieceNormaliser(b"", keep=("  ",))("a  b") == "▁a▁▁b"


@given(text=st.text(max_size=30))
def test_convert_is_a_call_on_bytes(text) -> None:
    assert PLAIN.convert(text.encode()).decode() == PLAIN(text)


@given(text=st.text(st.sampled_from(" ab▁é日😀"), max_size=12))
def test_each_character_knows_where_it_came_from(text) -> None:
    found, places = PLAIN.align(text)
    assert found == PLAIN(text) and len(places) == len(found) + 1
    assert places == sorted(places) and all(0 <= place <= len(text) for place in places)
    for character, place in list(zip(found, places))[1:]:
        assert text[place] == (" " if character == "▁" and text[place] != "▁" else character)


def test_the_alignment_is_the_library_s(data) -> None:
    path = data / MODELS[0]
    theirs, ours = library(path), read_model(path)
    for line in ["  Hello   ｗｏｒｌｄ ①. ", "é\u0301 x", *lines(data)[:20]]:
        found, places = ours.text_normaliser.align(line)
        at = 0
        mapped = theirs.encode(line, return_type="offset_mapping")
        for piece, (start, end) in zip(mapped["pieces"], mapped["offsets"]):
            assert start == places[at] and found[at : at + len(piece)] == piece
            at += len(piece)
            assert end == places[at]


def test_charsmap_leaves_spaces_alone(data) -> None:
    blob = read_model(data / MODELS[0]).text_normaliser.charsmap
    assert Charsmap(blob)("  ｗ  x ") == "  w  x "
    assert Charsmap(blob).align("ｗ") == ("w", [0, 1])


def test_it_travels_between_processes(data) -> None:
    ours = read_model(data / MODELS[0]).text_normaliser
    ours("fills what is worked out")
    again = pickle.loads(pickle.dumps(ours))
    assert again == ours and again("ａ b") == ours("ａ b")


def test_a_lone_surrogate_is_refused() -> None:
    with pytest.raises(DataError, match="U\\+D800"):
        PLAIN("a\ud800")


@pytest.mark.parametrize(
    "blob",
    [b"abc", b"\xff\xff\xff\xff" + bytes(8), b"\x04\0\0\0\0\0\0\0abc", b"\x03\0\0\0abc\0"],
    ids=["short", "long trie", "text without end", "odd size"],
)
def test_a_damaged_charsmap_is_refused(blob) -> None:
    with pytest.raises(ModelError, match="precompiled_charsmap"):
        SentencePieceNormaliser(blob)


def test_a_rule_without_its_text_is_refused(data, monkeypatch) -> None:
    blob = read_model(data / MODELS[0]).text_normaliser.charsmap
    size = 4 + int.from_bytes(blob[:4], "little")
    with pytest.raises(ModelError, match="beyond its texts"):
        read_charsmap(blob[:size] + b"a\0")
    monkeypatch.setattr(charsmap, "compiled", lambda core: None)
    with pytest.raises(ModelError, match="beyond its texts"):
        read_charsmap(blob[:size] + b"a\0")


@given(noise=st.binary(min_size=8, max_size=400))
def test_noise_in_place_of_a_trie_neither_crashes_nor_hangs(noise) -> None:
    body = noise[: len(noise) // 4 * 4]
    try:
        normaliser = SentencePieceNormaliser(len(body).to_bytes(4, "little") + body + b"x\0")
    except ModelError:
        return
    data = noise + b" abc"
    assert normaliser.convert(data) == b"".join(part for part, _ in normaliser.steps(data)[0])
