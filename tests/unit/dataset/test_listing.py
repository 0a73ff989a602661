"""The listing: round trip, every rule of a received body, and the arithmetic of the line against a slow model."""

from __future__ import annotations

import random
from hashlib import sha256
from typing import Any

import msgspec
import pytest

from labxchange.dataset.listing import (
    BLOCK_FILES,
    MAX_CHUNKS,
    MIN_CHUNK_BYTES,
    Chunk,
    Line,
    ListedFile,
    Listing,
    chunk_bytes_for,
    decode_files,
    encode_files,
    listed_file,
    make_listing,
)
from labxchange.encoding import JSON_MAX_INTEGER
from labxchange.errors import IntegrityError, LabxchangeError, PeerError, RefusedError
from labxchange.identity.keys import Identity
from labxchange.identity.statement import parse, sign

ISSUER = Identity(b"1" * 32)
GIB = 1 << 30


def listing_of(body: bytes, *, files: int, total: int) -> Listing:
    return Listing(
        issuer=ISSUER.public.hex(),
        issued=1,
        share="ab" * 16,
        version=1,
        files=files,
        bytes=total,
        body=sha256(body).hexdigest(),
    )


def received(items: list[Any]) -> list[ListedFile]:
    """Decode a body that holds ``items`` under a head that fits it."""
    body = msgspec.msgpack.encode(
        [msgspec.msgpack.encode(items[start : start + BLOCK_FILES]) for start in range(0, len(items), BLOCK_FILES)]
    )
    total = sum(item[1] for item in items if isinstance(item, list) and len(item) > 1 and isinstance(item[1], int))
    return decode_files(body, listing_of(body, files=len(items), total=max(0, min(total, JSON_MAX_INTEGER))))


def many(count: int) -> list[ListedFile]:
    return sorted(
        (listed_file(f"d{i % 7}/f{i}", i * 1000, 1_700_000_000_000 + i) for i in range(count)), key=lambda file: file.path
    )


@pytest.mark.parametrize("count", [0, 1, BLOCK_FILES - 1, BLOCK_FILES, BLOCK_FILES + 1, 3 * BLOCK_FILES])
def test_round_trip(count: int) -> None:
    files = many(count)
    listing, body = make_listing(files, issuer=ISSUER.public.hex(), issued=5, share="ab" * 16, version=2)
    assert decode_files(body, listing) == files
    assert parse(sign(listing, ISSUER).envelope, Listing).body == listing
    assert listing.bytes == sum(file.size for file in files)


def test_empty_folders_and_times_before_1970() -> None:
    files = [listed_file("a.txt", 0, -5), listed_file("empty/", 0, 5), listed_file("z", 1, 0)]
    listing, body = make_listing(files, issuer=ISSUER.public.hex(), issued=5, share="ab" * 16, version=2)
    assert decode_files(body, listing) == files
    assert [file.is_folder for file in files] == [False, True, False]


def test_chunk_size_doubles_until_the_file_has_few_chunks() -> None:
    for size in (0, 1, MIN_CHUNK_BYTES, 16 * GIB, 16 * GIB + 1, 32 * GIB, 32 * GIB + 1, 75 << 40, JSON_MAX_INTEGER):
        chunk = chunk_bytes_for(size)
        assert chunk >= MIN_CHUNK_BYTES
        assert chunk.bit_count() == 1
        assert -(-size // chunk) <= MAX_CHUNKS
        assert chunk == MIN_CHUNK_BYTES or -(-size // (chunk // 2)) > MAX_CHUNKS
    assert chunk_bytes_for(16 * GIB) == MIN_CHUNK_BYTES
    assert chunk_bytes_for(16 * GIB + 1) == 2 * MIN_CHUNK_BYTES


MIB = MIN_CHUNK_BYTES


@pytest.mark.parametrize(
    ("items", "code"),
    [
        ([["b", 1, 0, MIB], ["a", 1, 0, MIB]], "malformed-listing"),
        ([["a", 1, 0, MIB], ["a", 1, 0, MIB]], "malformed-listing"),
        ([["a", -1, 0, MIB]], "malformed-listing"),
        ([["a", 2**53, 0, chunk_bytes_for(2**53)]], "malformed-listing"),
        ([["a", 2**64 - 1, 0, MIB]], "malformed-listing"),
        ([["a", 1, 2**53, MIB]], "malformed-listing"),
        ([["a", 1, -(2**63), MIB]], "malformed-listing"),
        ([["a", 1, 0, 2 * MIB]], "malformed-listing"),
        ([["a", 1, 0, 0]], "malformed-listing"),
        ([["a", 16 * GIB + 1, 0, MIB]], "malformed-listing"),
        ([["a/", 1, 0, MIB]], "malformed-listing"),
        ([["a/", 0, 0, MIB], ["a/b", 0, 0, MIB]], "malformed-listing"),
        ([["a", 1, 0]], "malformed-listing"),
        ([["a", 1, 0, MIB, 0]], "malformed-listing"),
        ([["a", 1.0, 0, MIB]], "malformed-listing"),
        ([["a", True, 0, MIB]], "malformed-listing"),
        ([["a", "1", 0, MIB]], "malformed-listing"),
        ([[b"a", 1, 0, MIB]], "malformed-listing"),
        ([{"path": "a"}], "malformed-listing"),
        ([None], "malformed-listing"),
        ([["../a", 1, 0, MIB]], "hostile-name"),
        ([["/", 0, 0, MIB]], "hostile-name"),
        ([["a//", 0, 0, MIB]], "hostile-name"),
        ([["", 1, 0, MIB]], "hostile-name"),
        ([["A", 1, 0, MIB], ["a", 1, 0, MIB]], "name-collision"),
        ([["a", 1, 0, MIB], ["a/b", 1, 0, MIB]], "name-collision"),
        ([["a", 1, 0, MIB], ["a/", 0, 0, MIB]], "name-collision"),
        ([["A/b", 1, 0, MIB], ["a/c", 1, 0, MIB]], "name-collision"),
        ([[f"f{i:05d}", JSON_MAX_INTEGER, 0, chunk_bytes_for(JSON_MAX_INTEGER)] for i in range(3)], "malformed-listing"),
    ],
)
def test_a_body_that_breaks_a_rule_is_refused(items: list[Any], code: str) -> None:
    with pytest.raises(LabxchangeError) as caught:
        received(items)
    assert caught.value.code == code
    assert caught.value.message.isprintable()


def test_text_that_is_not_utf8_is_refused() -> None:
    body = msgspec.msgpack.encode([b"\x91\x94\xa2\xff\xfe\x01\x00\xce\x00\x10\x00\x00"])
    with pytest.raises(PeerError):
        decode_files(body, listing_of(body, files=1, total=1))


def test_head_and_body_must_fit() -> None:
    files = many(10)
    listing, body = make_listing(files, issuer=ISSUER.public.hex(), issued=5, share="ab" * 16, version=2)
    with pytest.raises(IntegrityError) as caught:
        decode_files(body[:-1] + b"\x01", listing)
    assert caught.value.code == "listing-digest"
    for wrong in (
        msgspec.structs.replace(listing, files=9),
        msgspec.structs.replace(listing, files=11),
        msgspec.structs.replace(listing, files=BLOCK_FILES * 2),
        msgspec.structs.replace(listing, bytes=listing.bytes + 1),
    ):
        with pytest.raises(PeerError):
            decode_files(body, wrong)
    with pytest.raises(PeerError) as too_large:
        decode_files(body, listing, max_files=9)
    assert too_large.value.code == "listing-too-large"
    with pytest.raises(PeerError):
        decode_files(body, listing, max_bytes=len(body) - 1)


def test_own_files_out_of_order_are_not_signed() -> None:
    with pytest.raises(PeerError):
        make_listing(many(10)[::-1], issuer=ISSUER.public.hex(), issued=5, share="ab" * 16, version=2)
    with pytest.raises(RefusedError):
        make_listing([listed_file("a:b", 0, 0)], issuer=ISSUER.public.hex(), issued=5, share="ab" * 16, version=2)


def test_every_changed_bit_of_a_body_is_refused() -> None:
    listing, body = make_listing(many(3), issuer=ISSUER.public.hex(), issued=5, share="ab" * 16, version=2)
    for bit in range(len(body) * 8):
        changed = bytearray(body)
        changed[bit // 8] ^= 1 << bit % 8
        with pytest.raises(IntegrityError):
            decode_files(bytes(changed), listing)


def test_changed_bodies_under_their_own_digest_parse_or_are_refused() -> None:
    rng = random.Random(9)
    _, body = make_listing(many(5), issuer=ISSUER.public.hex(), issued=5, share="ab" * 16, version=2)
    for _ in range(20_000):
        changed = bytearray(body)
        for _ in range(rng.randint(1, 4)):
            kind = rng.random()
            at = rng.randrange(len(changed))
            if kind < 0.6:
                changed[at] = rng.randrange(256)
            elif kind < 0.8:
                del changed[at : at + rng.randint(1, 4)]
            else:
                changed[at:at] = rng.randbytes(rng.randint(1, 4))
        try:
            files = decode_files(bytes(changed), listing_of(bytes(changed), files=5, total=10_000))
        except LabxchangeError:
            continue
        assert encode_files(files)
        assert sum(file.size for file in files) == 10_000


def slow_chunks(files: list[ListedFile]) -> list[Chunk]:
    out, offset = [], 0
    for index, file in enumerate(files):
        for number, begin in enumerate(range(0, file.size, file.chunk_bytes)):
            out.append(Chunk(index, number, offset + begin, begin, min(file.chunk_bytes, file.size - begin)))
        offset += file.size
    return out


@pytest.mark.parametrize("seed", range(20))
def test_the_line_is_what_a_slow_model_says(seed: int) -> None:
    rng = random.Random(seed)
    sizes = [rng.choice([0, 0, 1, MIB - 1, MIB, MIB + 1, 5 * MIB + 7, 17 * GIB + 3]) for _ in range(rng.randint(0, 12))]
    if sizes.count(17 * GIB + 3) > 1:
        sizes = [size % (17 * GIB) for size in sizes]
    files = [listed_file(f"f{i:03d}", size, 0) for i, size in enumerate(sizes)]
    line, chunks = Line(files), slow_chunks(files)
    assert line.bytes == sum(sizes)
    assert line.chunks == len(chunks)
    assert [line.chunk_at(i) for i in range(len(chunks))] == chunks
    for file in range(len(files)):
        assert [i for i, chunk in enumerate(chunks) if chunk.file == file] == list(line.chunks_of(file))
    for _ in range(200 if line.bytes else 0):
        offset = rng.choice([rng.randrange(line.bytes), rng.choice(chunks).offset])
        index = line.chunk_of(offset)
        assert chunks[index].offset <= offset < chunks[index].offset + chunks[index].length
        assert line.file_of(offset) == chunks[index].file
        length = rng.randint(0, min(line.bytes - offset, 3 * MIB))
        touched = (
            [i for i, c in enumerate(chunks) if c.offset < offset + length and offset < c.offset + c.length] if length else []
        )
        assert list(line.chunks_in(offset, length)) == touched
    for bad in (-1, line.bytes):
        with pytest.raises(IndexError):
            line.file_of(bad)
    for bad in (-1, line.chunks):
        with pytest.raises(IndexError):
            line.chunk_at(bad)
    with pytest.raises(IndexError):
        line.chunks_of(len(files))
