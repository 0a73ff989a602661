"""The manifest of a share version: the digests of every listed file, signed when hashing ends.

Two digests a file: SHA-256 of its bytes (the digest of record, what ``sha256sum`` prints), and SHA-256 of its concatenated
chunk digests (BLAKE3-256 each), which pins the chunks. A file that was left out has a reason instead. ``root`` is the RFC 6962
root over one leaf for each listed file in listing order: msgpack [path, size, sha256, chunks_digest], or [path, reason]. The
detached body is a msgpack array of [sha256, chunks_digest] or reason, in listing order; an empty folder counts as a file of no
bytes.

Chunk digests travel apart: all of them in global chunk order, 32 bytes each, zeros for a file that was left out; a file's part
is right when its SHA-256 is the file's ``chunks_digest``. When hashing happens, and what is done with a file left out, is left
to the callers.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from hashlib import sha256
from typing import Final, TypeAlias

import msgspec

from labxchange.dataset.listing import ListedFile
from labxchange.encoding import pack
from labxchange.errors import IntegrityError, PeerError
from labxchange.identity.statement import Count, Digest, Statement
from labxchange.merkle import leaf_hash, root_of

DIGEST_BYTES: Final = 32
EMPTY_DIGEST: Final = sha256(b"").digest()

CHANGED_AFTER_LISTING: Final = "changed-after-listing"
CHANGED_WHILE_READ: Final = "changed-while-read"
SHRUNK: Final = "shrunk"
REMOVED: Final = "removed"
UNREADABLE: Final = "unreadable"
NOT_A_FILE: Final = "not-a-file"
REASONS: Final = frozenset({CHANGED_AFTER_LISTING, CHANGED_WHILE_READ, SHRUNK, REMOVED, UNREADABLE, NOT_A_FILE})
"""Why this software leaves a file out; another version may know more, so on receipt only the form is checked."""

FileDigests: TypeAlias = tuple[bytes, bytes] | str
"""(SHA-256 of the file, SHA-256 of its chunk digests), or the reason why the file was left out."""

_REASON: Final = re.compile(r"[a-z][a-z-]{0,63}")
_PAIR_BYTES: Final = 1 + 2 * (2 + DIGEST_BYTES)


class Manifest(Statement, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The signed head: of which listing, the root, how many files are in it and left out, their bytes, SHA-256 of the body."""

    kind = "manifest"

    listing: Digest
    root: Digest
    files: Count
    left_out: Count
    bytes: Count
    body: Digest


def leaves(files: Sequence[ListedFile], digests: Sequence[FileDigests]) -> Iterator[bytes]:
    """The leaf of each file, in listing order."""
    for file, item in zip(files, digests, strict=True):
        if isinstance(item, str):
            yield pack([file.path, item])
        else:
            yield pack([file.path, file.size, item[0], item[1]])


def root(files: Sequence[ListedFile], digests: Sequence[FileDigests]) -> bytes:
    """RFC 6962 root over all listed files."""
    return root_of(leaf_hash(leaf) for leaf in leaves(files, digests))


def chunks_digest(chunk_digests: bytes | memoryview) -> bytes:
    """SHA-256 of a file's concatenated chunk digests; of nothing for an empty file."""
    return sha256(chunk_digests).digest()


def check_chunk_digests(chunk_digests: bytes | memoryview, *, file: ListedFile, expected: bytes) -> None:
    """Accept the chunk digests of one file that another party sent, given the ``chunks_digest`` of a manifest.

    Raises:
        IntegrityError: ``chunk-digests``.
    """
    if len(chunk_digests) != DIGEST_BYTES * -(-file.size // file.chunk_bytes) or chunks_digest(chunk_digests) != expected:
        raise IntegrityError("chunk-digests", "The chunk digests of a file are not those of its manifest.")


def encode_digests(digests: Sequence[FileDigests]) -> bytes:
    """The detached body."""
    return pack(digests)


def make_manifest(
    files: Sequence[ListedFile], digests: Sequence[FileDigests], *, issuer: str, issued: int, listing: str
) -> tuple[Manifest, bytes]:
    """The statement to sign, over the listing with the statement id ``listing``, and its body."""
    body = encode_digests(digests)
    present = [file for file, item in zip(files, digests, strict=True) if not isinstance(item, str)]
    manifest = Manifest(
        issuer=issuer,
        issued=issued,
        listing=listing,
        root=root(files, digests).hex(),
        files=len(present),
        left_out=len(files) - len(present),
        bytes=sum(file.size for file in present),
        body=sha256(body).hexdigest(),
    )
    return manifest, body


def decode_digests(body: bytes, manifest: Manifest, files: Sequence[ListedFile]) -> list[FileDigests]:
    """The digests of a manifest that another party signed, for the files of its listing, all rules checked.

    The caller has checked that ``manifest.listing`` is the id of the listing that ``files`` came from.

    Raises:
        PeerError: ``malformed-manifest``.
        IntegrityError: ``manifest-digest``, ``manifest-root``.
    """
    if manifest.files + manifest.left_out != len(files):
        raise _malformed("it is about another number of files than its listing")
    if len(body) > 5 + len(files) * _PAIR_BYTES:
        raise _malformed("it is longer than its number of files allows")
    if sha256(body).hexdigest() != manifest.body:
        raise IntegrityError("manifest-digest", "The list of digests is not the one that was signed.")
    try:
        digests = msgspec.msgpack.decode(body, type=list[FileDigests])
    except (msgspec.DecodeError, msgspec.ValidationError, UnicodeDecodeError, RecursionError):
        raise _malformed("it does not parse") from None
    if len(digests) != len(files):
        raise _malformed("it has another number of files than its listing")
    left_out = total = 0
    for file, item in zip(files, digests, strict=True):
        if isinstance(item, str):
            left_out += 1
            if not _REASON.fullmatch(item):
                raise _malformed("a reason is not one word")
        elif len(item[0]) != DIGEST_BYTES or len(item[1]) != DIGEST_BYTES:
            raise _malformed("a digest has a wrong length")
        else:
            total += file.size
            if not file.size and (item[0] != EMPTY_DIGEST or item[1] != EMPTY_DIGEST):
                raise _malformed("an empty file has the digest of something")
    if left_out != manifest.left_out or total != manifest.bytes:
        raise _malformed("its counts are not the signed ones")
    if root(files, digests).hex() != manifest.root:
        raise IntegrityError("manifest-root", "The root of a manifest is not the one of its digests.")
    return digests


def _malformed(why: str) -> PeerError:
    return PeerError("malformed-manifest", f"A manifest breaks the rules: {why}.")
