"""Canonical bytes: framing for hashes, strict JSON for signed text, length-limited msgpack for messages.

Rules: decoding returns a value or raises one of our errors, never anything else; nothing is decoded beyond its limit.
What the decoded values mean is left to the modules that define their types.
"""

from __future__ import annotations

import base64
import binascii
import json
from typing import Any, NoReturn, TypeVar

import msgspec

from labxchange.errors import IntegrityError, PeerError

JSON_MAX_BYTES = 65_536
JSON_MAX_DEPTH = 8
JSON_MAX_INTEGER = 2**53 - 1

T = TypeVar("T")


def frame(*parts: bytes | str | int) -> bytes:
    """``F(a, b, ...)`` of the specification: each part as its length (u32, big-endian) and its bytes.

    Text is UTF-8, integers are u64 big-endian.
    """
    out = bytearray()
    for part in parts:
        if isinstance(part, int):
            raw = part.to_bytes(8, "big")
        elif isinstance(part, str):
            raw = part.encode()
        else:
            raw = bytes(part)
        out += len(raw).to_bytes(4, "big") + raw
    return bytes(out)


def unframe(data: bytes, count: int, *, max_part: int = 1 << 20) -> list[bytes]:
    """Split ``frame`` output into exactly ``count`` parts; raises PeerError ``malformed-message``."""
    parts: list[bytes] = []
    position = 0
    for _ in range(count):
        if position + 4 > len(data):
            raise PeerError("malformed-message", "A framed message is cut short.")
        length = int.from_bytes(data[position : position + 4], "big")
        position += 4
        if length > max_part or position + length > len(data):
            raise PeerError("malformed-message", "A framed message has a part longer than allowed.")
        parts.append(bytes(data[position : position + length]))
        position += length
    if position != len(data):
        raise PeerError("malformed-message", "A framed message has bytes after its last part.")
    return parts


def b64encode(data: bytes) -> str:
    """Standard, padded base64."""
    return base64.b64encode(data).decode()


def b64decode(text: str) -> bytes:
    """Standard, padded, canonical base64; raises IntegrityError ``malformed-base64``."""
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise IntegrityError("malformed-base64", "A field is not standard base64.") from None
    if base64.b64encode(data).decode() != text:
        raise IntegrityError("malformed-base64", "A field is not canonical base64.")
    return data


def _malformed(why: str) -> NoReturn:
    raise IntegrityError("malformed-json", f"A signed text is not strict JSON: {why}.")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    out = dict(pairs)
    if len(out) != len(pairs):
        _malformed("a key appears twice")
    return out


def _integer(text: str) -> int:
    if len(text) > 17 or abs(int(text)) > JSON_MAX_INTEGER:
        _malformed("a number is larger than 2^53-1")
    return int(text)


def _check(value: Any, depth: int) -> None:
    if depth > JSON_MAX_DEPTH:
        _malformed(f"it is nested deeper than {JSON_MAX_DEPTH}")
    if value is None:
        _malformed("it holds a null")
    if isinstance(value, dict):
        for key, item in value.items():
            _check_text(key)
            _check(item, depth + 1)
    elif isinstance(value, list):
        for item in value:
            _check(item, depth + 1)
    elif isinstance(value, str):
        _check_text(value)


def _check_text(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        _malformed("it holds a lone surrogate")


def parse_json(data: bytes, *, max_bytes: int = JSON_MAX_BYTES) -> dict[str, Any]:
    """Strict JSON object: no duplicate key, float, null, integer over 2^53-1; bounded in bytes and depth.

    Raises:
        IntegrityError: ``malformed-json``.
    """
    if len(data) > max_bytes:
        _malformed(f"it is longer than {max_bytes} bytes")
    if data.count(b"[") + data.count(b"{") > max_bytes // 2:
        _malformed("it is nested too deeply")
    try:
        value = json.loads(
            data.decode(),
            object_pairs_hook=_object,
            parse_int=_integer,
            parse_float=lambda _: _malformed("it holds a fraction"),
            parse_constant=lambda _: _malformed("it holds a number that is not finite"),
        )
    except IntegrityError:
        raise
    except (ValueError, RecursionError):
        _malformed("it does not parse")
    if not isinstance(value, dict):
        _malformed("it is not an object")
    _check(value, 1)
    return value


def dump_json(value: Any) -> bytes:
    """The one way we write JSON that is signed or hashed: UTF-8, no spaces, keys in the order given."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()


def pack(value: Any) -> bytes:
    """msgpack."""
    return msgspec.msgpack.encode(value)


def unpack(data: bytes, kind: type[T], *, max_bytes: int) -> T:
    """Length-limited msgpack into ``kind``; raises PeerError ``malformed-message``."""
    if len(data) > max_bytes:
        raise PeerError("malformed-message", f"A message is longer than {max_bytes} bytes.")
    try:
        return msgspec.msgpack.decode(data, type=kind)
    except (msgspec.DecodeError, msgspec.ValidationError, UnicodeDecodeError, RecursionError, OverflowError, ValueError):
        raise PeerError("malformed-message", "A message from the other node is malformed.") from None
