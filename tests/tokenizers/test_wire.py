"""Fields on the wire: what is written is read again, and damage is named."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lineal.errors import ModelError
from lineal.tokenizers.wire import BYTES, EIGHT, FOUR, VARINT, read_fields, real, signed, varint, write_fields

numbers = st.integers(1, (1 << 29) - 1)
fields = st.one_of(
    st.tuples(numbers, st.just(VARINT), st.integers(0, (1 << 64) - 1)),
    st.tuples(numbers, st.just(BYTES), st.binary(max_size=300)),
    st.tuples(numbers, st.just(FOUR), st.binary(min_size=4, max_size=4)),
    st.tuples(numbers, st.just(EIGHT), st.binary(min_size=8, max_size=8)),
)


@given(message=st.lists(fields, max_size=8))
def test_what_is_written_is_read_again(message) -> None:
    assert list(read_fields(write_fields(message), "test")) == message


def test_examples_of_the_format_s_own_description() -> None:
    """Protocol Buffers' guide: field 1 = 150 is 08 96 01; field 2 = "testing" is 12 07 and the letters."""
    assert write_fields([(1, VARINT, 150)]) == bytes.fromhex("089601")
    assert write_fields([(2, BYTES, b"testing")]) == bytes.fromhex("120774657374696e67")
    assert varint(-2) == bytes.fromhex("feffffffffffffffff01")
    assert signed(next(read_fields(write_fields([(1, VARINT, -2)]), "x"))[2]) == -2  # type: ignore[arg-type]
    assert real(1.5) == struct.pack("<f", 1.5)


@given(message=st.lists(fields, min_size=1, max_size=4), data=st.data())
def test_a_cut_message_is_refused_or_lacks_its_last_fields(message, data) -> None:
    whole = write_fields(message)
    cut = whole[: data.draw(st.integers(0, len(whole) - 1))]
    try:
        found = list(read_fields(cut, "the file"))
    except ModelError as error:
        assert str(error).startswith("the file: ") and "\n" not in str(error)
    else:
        assert found == message[: len(found)] and len(found) < len(message)


@given(noise=st.binary(max_size=60))
def test_noise_gives_fields_or_one_kind_of_error(noise) -> None:
    try:
        for _, _, value in read_fields(noise, "noise"):
            assert isinstance(value, int) or len(value) <= len(noise)
    except ModelError:
        pass


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (bytes.fromhex("0affffffff7f"), "claims 34359738367 bytes, 0 are left"),
        (bytes.fromhex("0bff"), "unknown type 3"),
        (b"\xff" * 11, "does not end"),
        (b"\x00\x01", "numbered 0"),
    ],
)
def test_damage_is_named(data, message) -> None:
    with pytest.raises(ModelError, match=message):
        list(read_fields(data, "m.model: pieces[3]"))
