"""Origins of normalised characters: each class alone, and random chains, beside forms that are slower and obvious."""

from __future__ import annotations

import itertools
import sys
import unicodedata

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from lineal.errors import DataError
from lineal.tokenizers.parts import Normaliser
from lineal.tokenizers.text.marks import MARKS, NONSPACING, WHITE, is_control, is_ideograph
from lineal.tokenizers.text.normalise import (
    Bert,
    Chain,
    EachAlone,
    Lowercase,
    Metaspace,
    Prepend,
    Replace,
    SpaceInFront,
    Strip,
    StripAccents,
    Unicode,
    moves,
)

FORMS = [Unicode(form) for form in ("NFC", "NFD", "NFKC", "NFKD")]
# Made once: each has tables that grow with the characters it meets.
BERTS = {
    how: Bert(*how)
    for how in itertools.product((True, False), (True, False), (None, True, False), (True, False))
}
LETTERS = "aAáÁsSß  \tİΣς▁語豈ﬁ각ㄱ\u1112\u1161\u11ab\u0301\u0323\u0344\u302e\u0f71\u0f73\u09c7\u09be\u200b\0\ufffd\u2028\x85"
TEXT = st.one_of(st.text(LETTERS, max_size=24), st.text(max_size=12))
SHORT = st.text(LETTERS, max_size=2)

singles = st.one_of(
    st.sampled_from(FORMS),
    st.sampled_from([Lowercase(), StripAccents(), SpaceInFront()]),
    st.builds(Strip, st.booleans(), st.booleans()),
    st.builds(Replace, st.text(LETTERS, min_size=1, max_size=2), SHORT),
    st.builds(Prepend, st.text(LETTERS, min_size=1, max_size=2)),
    st.builds(Bert, st.booleans(), st.booleans(), st.sampled_from([None, True, False]), st.booleans()),
    st.builds(Metaspace, st.sampled_from("▁_ "), st.sampled_from(["always", "first", "never"])),
)
trees = st.one_of(singles, st.lists(st.one_of(singles, st.lists(singles, max_size=3)), max_size=4))


def built(tree: Normaliser | list) -> Normaliser:
    """The chain of a list, and of lists within it."""
    return tree if isinstance(tree, Normaliser) else Chain(tuple(map(built, tree)))


@given(trees, TEXT)
def test_origins_of_any_chain_are_in_order_and_within_the_text(tree: Normaliser | list, text: str):
    normaliser = built(tree)
    made, origins = normaliser.align(text)
    assert made == normaliser(text)
    assert len(origins) == len(made) + 1
    assert all(0 <= a <= b <= len(text) for a, b in itertools.pairwise([0, *origins]))


@given(st.lists(singles, max_size=4), TEXT)
def test_a_chain_is_its_parts_one_after_the_other(parts: list[Normaliser], text: str):
    expected, places = text, list(range(len(text) + 1))
    for part in parts:
        expected, step = part.align(expected)
        places = [places[at] for at in step]
    assert Chain(tuple(parts)).align(text) == (expected, places)
    for cut in range(len(parts) + 1):
        nested = Chain((Chain(tuple(parts[:cut])), Chain(tuple(parts[cut:]))))
        assert nested.align(text) == (expected, places)


@given(st.sampled_from([Lowercase(), StripAccents(), Replace("\0", "xy")]), TEXT, TEXT)
def test_what_looks_at_single_characters_takes_texts_apart(normaliser: Normaliser, first: str, second: str):
    left, right = normaliser.align(first), normaliser.align(second)
    made, origins = normaliser.align(first + second)
    assert made == left[0] + right[0]
    assert origins == [*left[1][:-1], *(len(first) + at for at in right[1])]


@given(TEXT)
def test_a_kept_character_began_where_it_stands(text: str):
    made, origins = Lowercase().align(text)
    assert all(character in text[at].lower() for character, at in zip(made, origins))
    made, origins = StripAccents().align(text)
    assert [text[at] for at in origins[:-1]] == list(made)
    assert not set(made) & MARKS
    made, origins = Strip().align(text)
    assert [text[at] for at in origins[:-1]] == list(made)
    made, origins = Metaspace(prepend="never").align(text)
    assert [text[at].replace(" ", "▁") for at in origins[:-1]] == list(made)


@given(st.sampled_from(FORMS), TEXT)
@example(FORMS[0], "\u09c7\u09be\u0301x\u1112\u1161\u11ab\u11abx")
@example(FORMS[1], "각\u0301x\u0301\u0323e\u0323\u0301")
def test_a_text_can_be_cut_where_a_character_began(form: Unicode, text: str):
    """Before the origin of a letter stands what made all before it, and from there on all that made it and the rest."""
    made, origins = form.align(text)
    for i in range(1, len(made)):
        if origins[i] > origins[i - 1] and not moves(made[i]):
            assert form(text[: origins[i]]) == made[:i]
            assert form(text[origins[i] :]) == made[i:]


@given(st.sampled_from(FORMS), TEXT)
def test_a_form_of_a_form_is_itself(form: Unicode, text: str):
    made = form(text)
    assert form(made) == made
    assert form.align(made) == (made, list(range(len(made) + 1)))
    assert made == unicodedata.normalize(form.form, text)  # type: ignore[arg-type]


@given(st.text("ab", min_size=1, max_size=3), st.text("abc", max_size=3), st.text("abc", max_size=20))
def test_replacing_by_hand(old: str, new: str, text: str):
    made, origins, at = "", [], 0
    while at < len(text):
        found = text.startswith(old, at)
        part = new if found else text[at]
        made, origins = made + part, origins + [at] * len(part)
        at += len(old) if found else 1
    assert Replace(old, new).align(text) == (made, [*origins, len(text)])


@given(st.text(LETTERS + "\x1c\u1680\u200a", max_size=20), st.booleans(), st.booleans())
def test_stripping_by_hand(text: str, left: bool, right: bool):
    start, end = 0, len(text)
    while left and start < end and text[start] in WHITE:
        start += 1
    while right and start < end and text[end - 1] in WHITE:
        end -= 1
    made, origins = Strip(left, right).align(text)
    assert (made, origins) == (text[start:end], list(range(start, end + 1))) or not made


@given(TEXT, st.booleans(), st.booleans(), st.sampled_from([None, True, False]), st.booleans())
def test_berts_steps_are_dropped_one_by_one(
    text: str, clean: bool, chinese: bool, accents: bool | None, lower: bool
):
    made = BERTS[clean, chinese, accents, lower](text)
    if clean:
        assert not any(is_control(character) for character in made)
        assert not set(made) & set(WHITE) - {" "}
    if chinese:
        for i, character in enumerate(made):
            assert not is_ideograph(character) or made[i - 1] == made[i + 1] == " " or accents or lower
    if lower if accents is None else accents:
        assert not set(unicodedata.normalize("NFD", made)) & NONSPACING - {"\u0307"}
    if lower:
        assert made == "".join(character.lower() for character in made)


@given(TEXT)
def test_berts_origins_are_those_of_its_steps(text: str):
    """A character that stays alone has the origin of the one that it was made of."""
    bert = BERTS[True, True, None, True]
    made, origins = bert.align(text)
    for at, character in enumerate(text):
        alone = bert(character)
        if len(alone) == 1 and alone != " " and not any(map(moves, text[at : at + 2])):
            assert any(origins[i] == at and made[i] == alone for i in range(len(made)))


@given(st.sampled_from([Prepend("<>"), SpaceInFront(), Metaspace(), Metaspace("_", "first")]), TEXT)
def test_what_is_put_in_front_takes_no_room(normaliser: Normaliser, text: str):
    made, origins = normaliser.align(text)
    more = len(made) - len(text)
    assert origins == [0] * more + list(range(len(text) + 1))
    assert made[more:].replace("▁", " ").replace("_", " ") == text.replace("▁", " ").replace("_", " ")


def peer(normaliser: Normaliser):
    """The same in the `tokenizers` library, or None."""
    library = pytest.importorskip("tokenizers").normalizers
    match normaliser:
        case Unicode(form):
            return getattr(library, form)()
        case Lowercase() | StripAccents():
            return getattr(library, type(normaliser).__name__)()
        case Strip(left, right):
            return library.Strip(left, right)
        case Replace(old, new):
            return library.Replace(old, new)
        case Prepend(text):
            return library.Prepend(text)
        case Bert(clean, chinese, accents, lower):
            return library.BertNormalizer(clean, chinese, accents, lower)
        case Chain(parts):
            inner = [peer(part) for part in parts]
            return None if None in inner else library.Sequence(inner)
    return None


@given(trees, st.text(LETTERS, max_size=24))
def test_any_chain_is_like_the_librarys(tree: Normaliser | list, text: str):
    normaliser = built(tree)
    other = peer(normaliser)
    assume(other is not None)
    assert normaliser(text) == other.normalize_str(text)


@pytest.mark.parametrize(
    "normaliser",
    [
        Unicode("NFD"),
        Unicode("NFKD"),
        Lowercase(),
        StripAccents(),
        Replace("a", ""),
        Replace("s", "xy"),
        Strip(),
        Bert(),
        Chain((Unicode("NFD"), StripAccents(), Lowercase())),
    ],
    ids=str,
)
def test_origins_are_the_librarys(normaliser: Normaliser):
    """Its offsets of single characters, for text whose marks need not change places."""
    library = pytest.importorskip("tokenizers")
    other = library.Tokenizer(library.models.WordLevel({"?": 0}, unk_token="?"))
    other.normalizer = peer(normaliser)
    other.pre_tokenizer = library.pre_tokenizers.Split(library.Regex(r"[\s\S]"), "isolated")

    @given(st.text("aAáÁsSﬁ각x \u0301", max_size=20))
    @example(" Ása ﬁ각 ")
    def check(text: str) -> None:
        made, origins = normaliser.align(text)
        found = other.encode(text)
        assert len(found.ids) == len(made)
        assert [start for start, _ in found.offsets] == origins[:-1]

    check()


@pytest.mark.parametrize("text", ["", "a", "\ud800", "é\udfff語"])
def test_half_a_surrogate_pair_goes_through_or_is_refused(text: str):
    for normaliser in (*FORMS, Lowercase(), StripAccents(), Strip(), Metaspace(), Replace("é", "\0")):
        made, origins = normaliser.align(text)
        assert made == normaliser(text) and len(origins) == len(made) + 1
        assert [c for c in made if "\ud800" <= c <= "\udfff"] == [
            c for c in text if "\ud800" <= c <= "\udfff"
        ]
    for way in (Bert(), Bert(strip_accents=False, lowercase=False), Chain((Lowercase(), Bert()))):
        if text.isascii():
            assert way.align(text) == (text, list(range(len(text) + 1)))
            continue
        for called in (way, way.align):
            with pytest.raises(DataError, match=r"U\+D"):
                called(text)


def test_tables_grow_only_by_the_characters_that_were_seen():
    normaliser = Lowercase()
    assert isinstance(normaliser, EachAlone)
    normaliser.align("AAAbbb")
    assert len(normaliser._table) == 2


def test_a_great_text_is_normalised_without_recursion():
    text = "Á語 " * 10_000
    for normaliser in (*FORMS, Bert(), Chain((Unicode("NFD"),) * 20)):
        assert len(normaliser(text)) >= 30_000
    assert sys.getrecursionlimit() < 30_000
