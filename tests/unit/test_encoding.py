"""Framing, strict JSON and bounded msgpack: each input is a value or our error, and equal values have equal bytes."""

from __future__ import annotations

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from labxchange.encoding import (
    JSON_MAX_INTEGER,
    b64decode,
    b64encode,
    dump_json,
    frame,
    parse_json,
    unframe,
    unpack,
)
from labxchange.errors import IntegrityError, PeerError

JSON = st.recursive(
    st.booleans() | st.integers(-JSON_MAX_INTEGER, JSON_MAX_INTEGER) | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(st.lists(st.binary(max_size=40), max_size=6))
def test_frames_are_unambiguous(parts: list[bytes]) -> None:
    data = frame(*parts)
    assert unframe(data, len(parts)) == parts
    with pytest.raises(PeerError):
        unframe(data + b"\x00", len(parts))
    if parts:
        with pytest.raises(PeerError):
            unframe(data[:-1], len(parts))


def test_frame_of_texts_and_numbers() -> None:
    assert frame("ab", 1, b"c") == b"\0\0\0\2ab\0\0\0\x08\0\0\0\0\0\0\0\1\0\0\0\1c"


def test_a_part_is_bounded() -> None:
    with pytest.raises(PeerError):
        unframe(b"\xff\xff\xff\xff" + bytes(10), 1)


@given(st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), JSON, max_size=4))
def test_what_we_write_is_what_we_read(value: dict[str, object]) -> None:
    try:
        assert parse_json(dump_json(value)) == value
    except IntegrityError as error:
        assert "deeper" in error.message


@pytest.mark.parametrize(
    "text",
    [
        '{"a":1,"a":2}',
        '{"a":1.0}',
        '{"a":1e3}',
        '{"a":null}',
        '{"a":NaN}',
        '{"a":Infinity}',
        f'{{"a":{JSON_MAX_INTEGER + 1}}}',
        f'{{"a":{-JSON_MAX_INTEGER - 1}}}',
        '{"a":' + "9" * 5000 + "}",
        "[]",
        '"a"',
        "",
        "{",
        '{"a":1}x',
        '{"a":"\\ud800"}',
        '{"\\ud800":1}',
        '{"a":' * 9 + "1" + "}" * 9,
        "[" * 60_000,
        '{"a":"' + "x" * 70_000 + '"}',
        "{'a':1}",
    ],
)
def test_loose_json_is_refused(text: str) -> None:
    with pytest.raises(IntegrityError) as refused:
        parse_json(text.encode("utf-8", "surrogatepass"))
    assert refused.value.code == "malformed-json"


@given(st.binary(max_size=200))
def test_any_bytes_parse_or_are_refused(data: bytes) -> None:
    try:
        value = parse_json(data)
    except IntegrityError as error:
        assert error.code == "malformed-json"
    else:
        assert value == json.loads(data)


@given(st.binary(max_size=60))
def test_base64_has_one_spelling(data: bytes) -> None:
    text = b64encode(data)
    assert b64decode(text) == data
    for wrong in (text + "\n", text + "=", " " + text, text.replace("=", "") if "=" in text else text + "A"):
        with pytest.raises(IntegrityError):
            b64decode(wrong)


def test_base64_with_stray_bits_is_refused() -> None:
    with pytest.raises(IntegrityError):
        b64decode("AB==")


@given(st.binary(max_size=100))
def test_any_message_decodes_or_is_refused(data: bytes) -> None:
    try:
        unpack(data, list[tuple[int, str]], max_bytes=1000)
    except PeerError as error:
        assert error.code == "malformed-message"


def test_a_message_is_bounded() -> None:
    with pytest.raises(PeerError):
        unpack(msgspec.msgpack.encode(list(range(1000))), list[int], max_bytes=100)
