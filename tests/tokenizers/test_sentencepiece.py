"""SentencePiece's model files: read, written, opened by the library, and refused when damaged."""

from __future__ import annotations

import math
import random
from array import array
from dataclasses import replace
from pathlib import Path

import pytest

from lineal.errors import ModelError, UsageError
from lineal.tokenizers.sentencepiece import (
    BYTE,
    CONTROL,
    NORMAL,
    UNKNOWN,
    UNUSED,
    USER_DEFINED,
    Piece,
    SentencePieceModel,
    build_model,
    model_bytes,
    parse_model,
    read_model,
    write_model,
)
from lineal.tokenizers.text.charsmap import SentencePieceNormaliser
from lineal.tokenizers.unigram import Unigram
from lineal.tokenizers.wire import BYTES, VARINT, write_fields

FILES = (
    "tok_llama2/tokenizer.model",
    "tok_sentencepiece/test_model.model",
    "tok_sentencepiece/test_ja_model.model",
)
SPECIAL = (Piece(b"<unk>", 0.0, UNKNOWN), Piece(b"<s>", 0.0, CONTROL), Piece(b"</s>", 0.0, CONTROL))
SOME = tuple(
    Piece(text.encode(), -1.5 - at / 8) for at, text in enumerate(["▁", "a", "b", "▁ab", "ba", "é", "ll"])
)


def processor(model: SentencePieceModel):
    library = pytest.importorskip("sentencepiece")
    found = library.SentencePieceProcessor()
    found.LoadFromSerializedProto(model_bytes(model))
    return found


def encoded(model: SentencePieceModel, text: str) -> list[int]:
    """Ids by the parts of a model."""
    ours = Unigram(
        [(piece.text, piece.score) for piece in model.pieces],
        unknown=model.unknown,
        byte_fallback=model.byte_ids,
        user_defined=model.ids(USER_DEFINED),
        silent=[at for at, piece in enumerate(model.pieces) if piece.kind not in (NORMAL, USER_DEFINED)],
    )
    data = model.text_normaliser.convert(text.encode())
    return ours.encode(data, array("i", (0, len(data))))


@pytest.mark.parametrize("name", FILES)
def test_a_file_is_read_as_the_library_reads_it_and_written_back_whole(data, tmp_path, name) -> None:
    library = pytest.importorskip("sentencepiece")
    theirs, ours = library.SentencePieceProcessor(model_file=str(data / name)), read_model(data / name)
    assert [piece.text.decode() for piece in ours.pieces] == [
        theirs.id_to_piece(at) for at in range(len(theirs))
    ]
    assert [piece.score for piece in ours.pieces] == [theirs.get_score(at) for at in range(len(theirs))]
    assert ours.ids(CONTROL) == tuple(at for at in range(len(theirs)) if theirs.is_control(at))
    assert ours.special() == {"unk": theirs.unk_id(), "bos": theirs.bos_id(), "eos": theirs.eos_id()}
    write_model(ours, tmp_path / "new" / "m.model")
    assert read_model(tmp_path / "new" / "m.model") == ours
    again = library.SentencePieceProcessor(model_file=str(tmp_path / "new" / "m.model"))
    assert again.encode("Hello  wörld ①") == theirs.encode("Hello  wörld ①")


def test_the_llama_file_is_written_byte_for_byte(data) -> None:
    raw = (data / FILES[0]).read_bytes()
    model = parse_model(raw)
    assert model_bytes(model) == raw
    assert (
        model.kind == "bpe" and model.byte_ids == tuple(range(3, 259)) and not model.text_normaliser.charsmap
    )


def test_unknown_fields_are_carried_through() -> None:
    strange = (77, BYTES, b"kept")
    model = build_model([*SPECIAL, *SOME], SentencePieceNormaliser(b""))
    model = replace(
        model,
        pieces=(*model.pieces, Piece(b"odd", -3.0, NORMAL, (strange, (201, VARINT, 5)))),
        trainer=(*model.trainer, strange),
        normaliser=(*model.normaliser, strange),
        rest=((9, BYTES, b"more"), (4, BYTES, b"")),
    )
    assert parse_model(model_bytes(model)) == model


@pytest.mark.parametrize(
    "normaliser",
    [
        SentencePieceNormaliser(b""),
        SentencePieceNormaliser(b"", add_dummy_prefix=False),
        SentencePieceNormaliser(b"", remove_extra_whitespaces=False),
        SentencePieceNormaliser(b"", treat_whitespace_as_suffix=True),
        SentencePieceNormaliser(b"", False, False, False, False),
    ],
)
@pytest.mark.parametrize("extra", ["plain", "bytes", "defined", "unused"])
def test_a_model_made_here_opens_in_the_library_and_gives_the_same(normaliser, extra) -> None:
    more = {
        "plain": [],
        "bytes": [Piece(b"<0x%02X>" % byte, 0.0, BYTE) for byte in range(256)],
        "defined": [
            Piece(b"<x>", 0.0, USER_DEFINED),
            Piece(b"ab a", 0.0, USER_DEFINED),
            Piece(b"b<", -9.0, USER_DEFINED),
        ],
        "unused": [Piece(b"aba", -0.1, UNUSED)],
    }[extra]
    model = build_model([*SPECIAL, *SOME, *more], normaliser)
    theirs, draw = processor(model), random.Random(1)
    for _ in range(300):
        text = "".join(
            draw.choices(["a", "b", " ", "▁", "é", "日", "<x>", "ll", "<s>", "<"], k=draw.randint(0, 25))
        )
        assert model.text_normaliser(text) == theirs.normalize(text)
        assert encoded(model, text) == theirs.encode(text)


def test_settings_are_read_with_their_defaults() -> None:
    model = build_model([*SPECIAL, *SOME], SentencePieceNormaliser(b""), pad_id=7, unk_surface="?")
    again = parse_model(model_bytes(model))
    assert again.setting("pad_id") == 7 and again.setting("bos_id") == 1 and again.words("unk_surface") == "?"
    assert (
        again.words("eos_piece") == "</s>" and again.setting("vocab_size") == 10 and again.kind == "unigram"
    )
    assert again.with_settings(pad_id=-1).setting("pad_id") == -1
    assert parse_model(model_bytes(again.with_settings(pad_id=-1))).setting("pad_id") == -1
    assert again.text_normaliser == SentencePieceNormaliser(b"")


@pytest.mark.parametrize("arguments", [{"kind": "neural"}, {"shrink": 1}])
def test_settings_that_are_not_known_are_refused(arguments) -> None:
    with pytest.raises(UsageError, match="no kind or setting"):
        build_model([*SPECIAL], SentencePieceNormaliser(b""), **arguments)


def one_wrong(**changes: object) -> bytes:
    pieces = [*SPECIAL, *SOME]
    pieces[4] = pieces[4]._replace(**changes)
    return model_bytes(SentencePieceModel(tuple(pieces)))


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (one_wrong(score=math.nan), r"m.model: pieces\[4\].score is nan"),
        (one_wrong(score=math.inf), r"pieces\[4\].score is inf"),
        (one_wrong(text=b""), r"pieces\[4\].piece is empty"),
        (one_wrong(text=b"a\0b"), "zero byte"),
        (one_wrong(text=b"x" * 9000), "too long"),
        (one_wrong(text=b"<s>"), "stands at 1 already"),
        (one_wrong(kind=9), r"pieces\[4\].type is 9"),
        (one_wrong(kind=BYTE), "byte_fallback is off"),
        (one_wrong(kind=UNKNOWN), "has 2 of type UNKNOWN"),
        (model_bytes(SentencePieceModel(SOME)), "has 0 of type UNKNOWN"),
        (model_bytes(SentencePieceModel((*SPECIAL, *SOME), ((35, VARINT, 1),))), "lacks <0x00>"),
        (b"", "has 0 of type UNKNOWN"),
        (b"\x0a\xff\xff\xff\xff\x07", "claims"),
        (write_fields([(1, BYTES, b"\x0a\x50a")]), r"pieces\[0\]: field 1 at byte 0 claims 80 bytes"),
        (write_fields([(2, BYTES, b"\xff")]), "trainer_spec: the number at byte 0 does not end"),
        (b'{"model": {"type": "BPE"}}', "damaged"),
    ],
)
def test_a_damaged_file_is_refused_with_its_field(tmp_path, raw, message) -> None:
    path = tmp_path / "m.model"
    path.write_bytes(raw)
    with pytest.raises(ModelError, match=message) as caught:
        read_model(path)
    assert str(caught.value).startswith(str(path)) and "\n" not in str(caught.value)


@pytest.mark.parametrize("name", FILES[1:])
def test_a_file_cut_or_scratched_anywhere_gives_one_kind_of_error(data, name) -> None:
    raw, draw = (data / name).read_bytes(), random.Random(name)
    for _ in range(60):
        at = draw.randrange(len(raw))
        scratched = raw[:at] + bytes((draw.randrange(256),)) + raw[at + 1 :]
        for damaged in (raw[:at], scratched):
            try:
                parse_model(damaged).text_normaliser("ａ b")
            except ModelError as error:
                assert "\n" not in str(error)


def test_a_file_that_is_not_there_or_cannot_be_written(tmp_path) -> None:
    with pytest.raises(ModelError, match="cannot be read"):
        read_model(tmp_path / "none.model")
    (tmp_path / "file").write_text("")
    with pytest.raises(ModelError, match="cannot be written"):
        write_model(build_model([*SPECIAL], SentencePieceNormaliser(b"")), tmp_path / "file" / "m.model")
    assert [path.name for path in Path(tmp_path).iterdir()] == ["file"]
