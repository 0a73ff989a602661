"""The manifest: round trip, root against another implementation, and every way to lie in a body."""

from __future__ import annotations

import random
from hashlib import sha256
from typing import Any

import msgspec
import pymerkle
import pytest

from labxchange.dataset.listing import ListedFile, listed_file
from labxchange.dataset.manifest import (
    CHANGED_WHILE_READ,
    EMPTY_DIGEST,
    FileDigests,
    Manifest,
    check_chunk_digests,
    chunks_digest,
    decode_digests,
    leaves,
    make_manifest,
    root,
)
from labxchange.errors import IntegrityError, LabxchangeError, PeerError
from labxchange.identity.keys import Identity
from labxchange.identity.statement import parse, sign

ISSUER = Identity(b"1" * 32)


def digest(text: str) -> bytes:
    return sha256(text.encode()).digest()


def example(count: int = 5) -> tuple[list[ListedFile], list[FileDigests]]:
    files = [listed_file(f"f{i:04d}", i * 100, 0) for i in range(count)]
    digests: list[FileDigests] = [(digest(f"a{i}"), digest(f"b{i}")) if i else (EMPTY_DIGEST, EMPTY_DIGEST) for i in range(count)]
    if count > 2:
        digests[2] = CHANGED_WHILE_READ
    return files, digests


def made(count: int = 5) -> tuple[list[ListedFile], list[FileDigests], Manifest, bytes]:
    files, digests = example(count)
    manifest, body = make_manifest(files, digests, issuer=ISSUER.public.hex(), issued=5, listing="cd" * 32)
    return files, digests, manifest, body


@pytest.mark.parametrize("count", [0, 1, 2, 3, 100, 4097])
def test_round_trip(count: int) -> None:
    files, digests, manifest, body = made(count)
    assert decode_digests(body, manifest, files) == digests
    assert parse(sign(manifest, ISSUER).envelope, Manifest).body == manifest
    assert manifest.files + manifest.left_out == count
    assert manifest.bytes == sum(file.size for file, item in zip(files, digests, strict=True) if not isinstance(item, str))


@pytest.mark.parametrize("count", [1, 2, 3, 7, 8, 9, 100])
def test_root_is_that_of_another_implementation(count: int) -> None:
    files, digests = example(count)
    tree = pymerkle.InmemoryTree(algorithm="sha256")
    for leaf in leaves(files, digests):
        tree.append_entry(leaf)
    assert root(files, digests) == tree.get_root()


def test_leaf_is_what_the_format_says() -> None:
    files, digests = example(3)
    decoded = [msgspec.msgpack.decode(leaf) for leaf in leaves(files, digests)]
    assert decoded[1] == ["f0001", 100, digest("a1"), digest("b1")]
    assert decoded[2] == ["f0002", CHANGED_WHILE_READ]


def lying(items: list[Any], **fields: Any) -> None:
    files, _, manifest, _ = made()
    body = msgspec.msgpack.encode(items)
    changed = msgspec.structs.replace(manifest, body=sha256(body).hexdigest(), **fields)
    with pytest.raises(LabxchangeError) as caught:
        decode_digests(body, changed, files)
    assert caught.value.code in ("malformed-manifest", "manifest-root")


def test_every_lie_in_a_body_is_refused() -> None:
    _, digests = example()
    pair = digests[1]
    lying([*digests[:4], (digest("x"), digest("y"))])
    lying(digests[:4])
    lying([*digests, pair])
    lying(digests[:4], files=3)
    lying([*digests[:4], (b"x", digest("y"))])
    lying([*digests[:4], (digest("x"),)])
    lying([*digests[:4], (digest("x"), digest("y"), digest("z"))])
    lying([*digests[:4], "No Such Form"])
    lying([*digests[:4], ""])
    lying([*digests[:4], "a" * 65])
    lying([*digests[:4], "removed"])
    lying([*digests[:4], "removed"], files=3, left_out=2)
    lying([pair, *digests[1:]])
    lying([*digests[:4], None])
    lying([*digests[:4], 7])
    lying([*digests[:4], {}])
    lying(digests, bytes=1)
    lying(digests, root="00" * 32)


def test_the_digests_of_other_files_do_not_pass() -> None:
    files, _, manifest, body = made()
    renamed = [*files[:4], listed_file("other", 400, 0)]
    with pytest.raises(IntegrityError) as caught:
        decode_digests(body, manifest, renamed)
    assert caught.value.code == "manifest-root"
    with pytest.raises(PeerError):
        decode_digests(body, manifest, files[:4])


def test_every_changed_bit_is_refused() -> None:
    files, _, manifest, body = made(3)
    for bit in range(len(body) * 8):
        changed = bytearray(body)
        changed[bit // 8] ^= 1 << bit % 8
        with pytest.raises(IntegrityError):
            decode_digests(bytes(changed), manifest, files)


def test_changed_bodies_under_their_own_digest_are_refused() -> None:
    rng = random.Random(10)
    files, digests, manifest, body = made()
    for _ in range(20_000):
        changed = bytearray(body)
        for _ in range(rng.randint(1, 3)):
            changed[rng.randrange(len(changed))] = rng.randrange(256)
        head = msgspec.structs.replace(manifest, body=sha256(changed).hexdigest())
        try:
            assert decode_digests(bytes(changed), head, files) == digests
        except LabxchangeError:
            continue


def test_chunk_digests_of_a_file() -> None:
    file = listed_file("f", 3 << 20, 0)
    chunks = b"".join(digest(str(i)) for i in range(3))
    check_chunk_digests(chunks, file=file, expected=chunks_digest(chunks))
    for wrong in (chunks[:-1], chunks[:64], chunks[32:] + chunks[:32], chunks + chunks[:32], b""):
        with pytest.raises(IntegrityError):
            check_chunk_digests(wrong, file=file, expected=chunks_digest(chunks))
        with pytest.raises(IntegrityError):
            check_chunk_digests(wrong, file=file, expected=chunks_digest(wrong[:-1] + b"x"))
    check_chunk_digests(b"", file=listed_file("f", 0, 0), expected=EMPTY_DIGEST)
