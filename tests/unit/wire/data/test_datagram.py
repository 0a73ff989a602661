"""Sealing and opening: what was sealed comes back, what was touched does not, and the committed vectors are met.

The vectors are also read by a second reading of the specification that shares no code with the package.
"""

from __future__ import annotations

import hmac
import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305
from hypothesis import given, settings
from hypothesis import strategies as st

from labxchange.wire.data.datagram import (
    BATCH_DATAGRAMS,
    HEADER_BYTES,
    OVERHEAD_BYTES,
    SIZES,
    Cipher,
    Cuts,
    Kind,
    LaneKey,
    Opener,
    Sealer,
    batch_rows,
    headers_of,
    lane_of,
    lane_secret,
    number_of,
)
from tests.support.lanes import K_LANE, LANE, pieces
from tests.vectors.make_lanes import vectors

VECTORS = json.loads((Path(__file__).parents[3] / "vectors" / "lanes.json").read_text())
CIPHERS: tuple[Cipher, ...] = ("aes-256-gcm", "chacha20-poly1305")


def pair(cipher: Cipher = "aes-256-gcm", *, slot: int = 1) -> tuple[Sealer, Opener]:
    secret = lane_secret(K_LANE, LANE, "I")
    return Sealer(LaneKey(secret, LANE, cipher), slot=slot), Opener(LaneKey(secret, LANE, cipher))


def opened(opener: Opener, batch: bytes, size: int, skip: int = 0) -> dict[int, bytes]:
    """Row -> payload of the authentic datagrams from ``skip`` on, the same however the batch is cut, and one by one."""
    view = memoryview(batch)
    headers = headers_of(view, size)
    rows = np.arange(skip, len(headers))
    room, last = size - OVERHEAD_BYTES, len(headers) - 1
    rest = min(size, len(batch) - last * size) - OVERHEAD_BYTES
    ways = []
    for cuts in (None, Cuts(view)):
        good, out = opener.unseal(view, size=size, rows=rows, numbers=headers["number"][rows].astype(np.int64), cuts=cuts)
        ways.append({row: bytes(out[row * room : row * room + (rest if row == last else room)]) for row in good.tolist()})
    assert ways[0] == ways[1]
    alone = {}
    for row in rows.tolist():
        datagram = view[row * size : (row + 1) * size]
        payload = opener.unseal_one(datagram, number=number_of(datagram))
        if payload is not None:
            alone[row] = bytes(payload)
    assert alone == ways[0]
    return alone


@given(kind=st.sampled_from(Kind), number=st.integers(0, 2**32 - 1), payload=st.binary(max_size=SIZES[0] - OVERHEAD_BYTES))
def test_a_datagram_alone_is_sealed_as_in_a_batch(kind: Kind, number: int, payload: bytes) -> None:
    sealer, opener = pair(slot=7)
    size = len(payload) + OVERHEAD_BYTES
    alone = bytes(sealer.seal_one(memoryview(payload), kind=kind, number=number))
    assert alone == bytes(
        sealer.seal(memoryview(payload), kind=kind, number=number, offset=0, size=max(size, OVERHEAD_BYTES + 1))
    )
    assert opened(opener, alone, size) == {0: payload}


@pytest.mark.parametrize("cipher", CIPHERS)
@given(data=st.data(), number=st.integers(0, 0xFFFFFFFF - BATCH_DATAGRAMS), offset=st.integers(0, 2**53))
@settings(max_examples=40, deadline=None)
def test_what_was_sealed_comes_back(cipher: Cipher, data: st.DataObject, number: int, offset: int) -> None:
    sealer, opener = pair(cipher)
    for _ in range(2):  # the buffers of the first batch are used again
        size = data.draw(st.sampled_from([*SIZES, OVERHEAD_BYTES + 1, 100]))
        room = size - OVERHEAD_BYTES
        most = min(BATCH_DATAGRAMS, 65_000 // size) * room
        length = data.draw(st.sampled_from([0, 1, room - 1, room, room + 1, most]) | st.integers(0, most))
        payload = random.Random(length).randbytes(min(length, most))
        batch = bytes(sealer.seal(memoryview(payload), kind=Kind.DATA, number=number, offset=offset, size=size))
        headers = headers_of(memoryview(batch), size)
        count = max(1, -(-len(payload) // room))
        assert headers["number"].tolist() == list(range(number, number + count))
        assert headers["offset"].tolist() == [offset + row * room for row in range(count)]
        assert set(headers["kind"].tolist()) == {Kind.DATA}
        assert set(headers["slot"].tolist()) == {1}
        assert lane_of(memoryview(batch)) == LANE
        assert len(batch) == len(payload) + count * OVERHEAD_BYTES
        found = opened(opener, batch, size)
        assert b"".join(found[row] for row in range(count)) == payload


@pytest.mark.parametrize("size", SIZES)
def test_memory_that_comes_again_is_sealed_as_it_is_then(size: int) -> None:
    """Blocks of a source, of which the cuts are kept."""
    sealer, opener = pair()
    chance, room, most = random.Random(size), size - OVERHEAD_BYTES, batch_rows(size)
    blocks = [memoryview(bytearray((most + 1) * room)) for _ in range(6)]
    number = 0
    for count, begin in [(most, 0), (most - 1, 0), (3 * most // 4, 0), (most, 0), (most, 7), (most // 4, 0), (most - 2, 7)]:
        for block in blocks:
            block[:] = chance.randbytes(len(block))
            for short in (0, 5):
                payload = block[begin : begin + count * room - short]
                batch = bytes(sealer.seal(payload, kind=Kind.DATA, number=number, offset=begin, size=size))
                found = opened(opener, batch, size)
                assert b"".join(found[row] for row in range(count)) == payload
                number += count


@pytest.mark.parametrize("cipher", CIPHERS)
def test_every_bit_that_is_flipped_is_found(cipher: Cipher) -> None:
    sealer, opener = pair(cipher)
    payload = random.Random(5).randbytes(150)
    size = 120
    batch = bytes(sealer.seal(memoryview(payload), kind=Kind.DATA, number=77, offset=4096, size=size))
    count = -(-len(batch) // size)
    assert len(opened(opener, batch, size)) == count
    for bit in range(8 * len(batch)):
        touched = bytearray(batch)
        touched[bit >> 3] ^= 1 << (bit & 7)
        hit = (bit >> 3) // size
        assert set(opened(opener, bytes(touched), size)) == set(range(count)) - {hit}, f"bit {bit}"


def test_a_datagram_that_is_longer_or_shorter_is_found() -> None:
    sealer, opener = pair()
    one = bytes(sealer.seal(memoryview(b"x" * 64), kind=Kind.DATA, number=1, offset=0, size=100))
    for wrong in (one + b"\0", one + bytes(16), *(one[:end] for end in range(OVERHEAD_BYTES, len(one)))):
        assert opened(opener, wrong, len(wrong)) == {}
    for stump in (one[:35], one[:20], one[:1], b""):
        assert len(headers_of(memoryview(stump), max(len(stump), 1))) == 0
        assert lane_of(memoryview(stump)) == b""


def test_the_other_direction_lane_session_and_cipher_have_other_keys() -> None:
    sealer, _ = pair()
    one = bytes(sealer.seal(memoryview(b"x" * 64), kind=Kind.DATA, number=1, offset=0, size=100))
    others = [
        LaneKey(lane_secret(K_LANE, LANE, "R"), LANE, "aes-256-gcm"),
        LaneKey(lane_secret(K_LANE, b"lane-2", "I"), LANE, "aes-256-gcm"),
        LaneKey(lane_secret(bytes(48), LANE, "I"), LANE, "aes-256-gcm"),
        LaneKey(lane_secret(K_LANE, LANE, "I"), LANE, "chacha20-poly1305"),
    ]
    assert all(opened(Opener(key), one, len(one)) == {} for key in others)
    assert opened(Opener(LaneKey(lane_secret(K_LANE, LANE, "I"), LANE, "aes-256-gcm")), one, len(one)) == {0: b"x" * 64}


def test_a_key_does_not_print_itself() -> None:
    secret = lane_secret(K_LANE, LANE, "I")
    assert secret[:32].hex() not in repr(LaneKey(secret, LANE, "aes-256-gcm"))
    assert "secret" not in repr(LaneKey(secret, LANE, "aes-256-gcm"))


@given(batch=st.binary(max_size=3_000), size=st.integers(1, 10_000))
@settings(max_examples=200, deadline=None)
def test_any_bytes_have_headers_or_none(batch: bytes, size: int) -> None:
    headers = headers_of(memoryview(batch), size)
    whole = [piece for piece in pieces(batch, size) if len(piece) >= OVERHEAD_BYTES and size >= OVERHEAD_BYTES]
    assert [header.tobytes() for header in headers] == [piece[:HEADER_BYTES] for piece in whole]
    if len(headers) and size <= SIZES[-1]:
        assert opened(pair()[1], batch, size, max(0, len(headers) - BATCH_DATAGRAMS)) == {}


# --- vectors ----------------------------------------------------------------------------------------------------------
def test_the_code_makes_the_vectors() -> None:
    assert vectors() == VECTORS


def _f(*parts: str | bytes) -> bytes:
    raws = [part.encode() if isinstance(part, str) else part for part in parts]
    return b"".join(len(raw).to_bytes(4, "big") + raw for raw in raws)


@pytest.mark.parametrize("of", VECTORS["sealed"], ids=lambda item: f"{item['writer']}-{item['cipher']}")
def test_the_specification_read_anew_opens_the_vectors(of: dict[str, Any]) -> None:
    k_lane, lane = bytes.fromhex(VECTORS["k_lane"]), bytes.fromhex(VECTORS["lane"])
    info = _f("labxchange lane v1", of["writer"], lane)
    secret = hmac.digest(k_lane, info + b"\x01", "sha384")[:44]
    assert secret.hex() == VECTORS["secrets"][of["writer"]]
    key, iv = secret[:32], secret[32:]
    aead = AESGCM(key) if of["cipher"] == "aes-256-gcm" else ChaCha20Poly1305(key)
    kinds = ["data", "status", "challenge", "response", "probe"]
    for batch in of["batches"]:
        plain = b""
        for place, text in enumerate(batch["datagrams"]):
            datagram = bytes.fromhex(text)
            head, number = datagram[:20], batch["number"] + place
            assert head[0] == (3 if of["writer"] == "I" else 0)
            assert kinds[head[1]] == batch["kind"]
            assert head[2:8] == lane
            assert int.from_bytes(head[8:12], "big") == number
            assert int.from_bytes(head[12:20], "big") == batch["offset"] + place * (batch["size"] - 36)
            nonce = (int.from_bytes(iv, "big") ^ number).to_bytes(12, "big")
            plain += aead.decrypt(nonce, datagram[20:], head)
        assert plain.hex() == batch["payload"]
