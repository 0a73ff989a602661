"""The listing of a share version: which files, how large, and where each of their bytes lies in the one line of all bytes.

The statement ``listing`` is signed at once, before anything is hashed; its detached body holds the files. Body: a msgpack
array of bins, each bin a msgpack array of 4,096 files (the last bin has the rest), a file being [path, size, mtime_ms,
chunk_bytes]. The bins bound what is decoded at a time, so a body that breaks a rule is refused in little memory.

Rules of a listing, checked on receipt:
- digest, count and sum are the signed ones; sizes and the sum are at most 2^53-1;
- paths are in strict order of their UTF-8 bytes, each passes ``names.check_path``, no two collide;
- an empty folder is a path that ends in ``/`` with size 0; a folder that holds a listed file is not listed;
- ``chunk_bytes`` is exactly what ``chunk_bytes_for`` gives.

Whether the share may be had by anyone is left to ``sharing``; digests of files to ``manifest``.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from typing import Final, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from labxchange.dataset.names import check_collisions, check_paths, escape
from labxchange.encoding import JSON_MAX_INTEGER
from labxchange.errors import IntegrityError, PeerError
from labxchange.identity.statement import Count, Digest, ShortId, Statement

MIN_CHUNK_BYTES: Final = 1 << 20
MAX_CHUNKS: Final = 16_384
LISTING_MAX_FILES: Final = 2_000_000
LISTING_MAX_BYTES: Final = 512 << 20
BLOCK_FILES: Final = 4096
# A path of 4,096 bytes, three integers and their headers.
_FILE_MAX_BYTES: Final = 4096 + 3 + 3 * 9 + 1


class ListedFile(msgspec.Struct, array_like=True, frozen=True, gc=False, forbid_unknown_fields=True):
    """One file of a listing: its path, bytes, time of change (UTC milliseconds), bytes a chunk."""

    path: str
    size: int
    mtime_ms: int
    chunk_bytes: int

    @property
    def is_folder(self) -> bool:
        """True for an empty folder, which is listed with a trailing slash."""
        return self.path.endswith("/")


class Listing(Statement, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The signed head of a listing; ``body`` is the SHA-256 of the detached body."""

    kind = "listing"

    share: ShortId
    version: Count
    files: Count
    bytes: Count
    body: Digest


def chunk_bytes_for(size: int) -> int:
    """1 MiB, doubled until a file of ``size`` bytes has at most 16,384 chunks."""
    if size <= MIN_CHUNK_BYTES * MAX_CHUNKS:
        return MIN_CHUNK_BYTES
    return max(MIN_CHUNK_BYTES, 1 << (-(-size // MAX_CHUNKS) - 1).bit_length())


def listed_file(path: str, size: int, mtime_ms: int) -> ListedFile:
    """A file with the chunk size that its size demands."""
    return ListedFile(path, size, mtime_ms, chunk_bytes_for(size))


def encode_files(files: Sequence[ListedFile]) -> bytes:
    """The detached body; ``files`` are in order already."""
    encode = msgspec.msgpack.encode
    return encode([encode(files[start : start + BLOCK_FILES]) for start in range(0, len(files), BLOCK_FILES)])


def make_listing(files: Sequence[ListedFile], *, issuer: str, issued: int, share: str, version: int) -> tuple[Listing, bytes]:
    """The statement to sign and its body.

    Raises:
        RefusedError: ``hostile-name``, ``name-collision``.
        PeerError: ``malformed-listing``, ``listing-too-large``: the files break a rule that every receiver checks.
    """
    last, total = "", 0
    for start in range(0, len(files), BLOCK_FILES):
        last, total = _check_block(files[start : start + BLOCK_FILES], last, total)
    check_collisions([file.path for file in files])
    body = encode_files(files)
    listing = Listing(
        issuer=issuer,
        issued=issued,
        share=share,
        version=version,
        files=len(files),
        bytes=total,
        body=sha256(body).hexdigest(),
    )
    _check_total(total, listing)
    _check_head(listing, body, max_files=LISTING_MAX_FILES, max_bytes=LISTING_MAX_BYTES)
    return listing, body


def decode_files(
    body: bytes, listing: Listing, *, max_files: int = LISTING_MAX_FILES, max_bytes: int = LISTING_MAX_BYTES
) -> list[ListedFile]:
    """The files of a listing that another party signed, all rules checked.

    A first pass judges block by block and keeps nothing; only a body that passed it is decoded as a whole.

    Raises:
        PeerError: ``listing-too-large``, ``malformed-listing``.
        IntegrityError: ``listing-digest``: the body is not the signed one.
        RefusedError: ``hostile-name``, ``name-collision``.
    """
    _check_head(listing, body, max_files=max_files, max_bytes=max_bytes)
    if sha256(body).hexdigest() != listing.body:
        raise IntegrityError("listing-digest", "The list of files is not the one that was signed.")
    blocks = _blocks(body, listing.files)
    last, total = "", 0
    for block in blocks:
        last, total = _check_block(_decode_block(block), last, total)
    _check_total(total, listing)
    files: list[ListedFile] = []
    for block in blocks:
        files += _decode_block(block)
    check_collisions([file.path for file in files])
    return files


def _check_head(listing: Listing, body: bytes, *, max_files: int, max_bytes: int) -> None:
    if listing.files > max_files:
        raise PeerError("listing-too-large", f"A listing has {listing.files:,} files; this node takes at most {max_files:,}.")
    if len(body) > max_bytes:
        raise PeerError("listing-too-large", f"A listing is longer than {max_bytes:,} bytes.")


def _blocks(body: bytes, count: int) -> list[memoryview]:
    """The bins of a body without copying; their number and size must fit ``count`` files before anything is decoded."""
    expected = -(-count // BLOCK_FILES)
    if len(body) > 5 + expected * (5 + 5 + BLOCK_FILES * _FILE_MAX_BYTES):
        raise _malformed("it is longer than its number of files allows")
    if _array_length(body) != expected:
        raise _malformed("its number of blocks is wrong")
    try:
        blocks = msgspec.msgpack.decode(body, type=list[memoryview])
    except (msgspec.DecodeError, msgspec.ValidationError, RecursionError):
        raise _malformed("it does not parse") from None
    for index, block in enumerate(blocks):
        if _array_length(block) != min(BLOCK_FILES, count - index * BLOCK_FILES):
            raise _malformed("a block has a wrong number of files")
    return blocks


def _array_length(data: bytes | memoryview) -> int:
    """The number of items that a msgpack array says it has; -1 when the data is no array."""
    head = bytes(data[:5])
    if head and head[0] & 0xF0 == 0x90:
        return head[0] & 0x0F
    if head[:1] == b"\xdc" and len(head) >= 3:
        return int.from_bytes(head[1:3], "big")
    if head[:1] == b"\xdd" and len(head) == 5:
        return int.from_bytes(head[1:5], "big")
    return -1


_decoder = msgspec.msgpack.Decoder(list[ListedFile])


def _decode_block(block: memoryview) -> list[ListedFile]:
    try:
        return _decoder.decode(block)
    except (msgspec.DecodeError, msgspec.ValidationError, UnicodeDecodeError, OverflowError, RecursionError):
        raise _malformed("a file in it does not parse") from None


def _check_total(total: int, listing: Listing) -> None:
    if total != listing.bytes or total > JSON_MAX_INTEGER:
        raise _malformed("its sizes do not add up to the signed sum")


def _check_block(files: Sequence[ListedFile], last: str, total: int) -> tuple[str, int]:
    """Judge a run of files that follows path ``last``; returns the last path and the running sum."""
    small = MIN_CHUNK_BYTES * MAX_CHUNKS
    check_paths(file.path for file in files)
    for file in files:
        path, size = file.path, file.size
        # Code points of valid text sort as their UTF-8 bytes do. A folder listed as empty sorts right before what it holds.
        if path <= last:
            raise _malformed(f"“{escape(path, limit=200)}” is out of order or twice there")
        if last.endswith("/") and path.startswith(last):
            raise _malformed(f"“{escape(last, limit=200)}” is listed as empty and holds a file")
        if not 0 <= size <= JSON_MAX_INTEGER or not -JSON_MAX_INTEGER <= file.mtime_ms <= JSON_MAX_INTEGER:
            raise _malformed(f"a number of “{escape(path, limit=200)}” is out of range")
        if file.chunk_bytes != (MIN_CHUNK_BYTES if size <= small else chunk_bytes_for(size)):
            raise _malformed(f"the chunk size of “{escape(path, limit=200)}” is wrong")
        if size and path.endswith("/"):
            raise _malformed(f"the folder “{escape(path, limit=200)}” has a size")
        last = path
        total += size
    return last, total


def _malformed(why: str) -> PeerError:
    return PeerError("malformed-listing", f"A list of files breaks the rules: {why}.")


class Chunk(NamedTuple):
    """One chunk: the file's index, the chunk's index in it, where it begins in the line and in the file, its bytes."""

    file: int
    index_in_file: int
    offset: int
    file_offset: int
    length: int


class Line:
    """The line of all listed bytes: every file's bytes one after the other, in listing order, cut into chunks file by file.

    Attributes:
        bytes: length of the line.
        chunks: number of chunks; a chunk's *global index* counts through all files. An empty file has none.
        offset: (files + 1,) int64, where each file begins in the line; the last is ``bytes``.
        first_chunk: (files + 1,) int64, each file's first global chunk index; the last is ``chunks``.
        size, chunk_bytes: (files,) int64.
    """

    def __init__(self, files: Sequence[ListedFile]) -> None:
        count = len(files)
        self._lay(
            np.fromiter((file.size for file in files), np.int64, count),
            np.fromiter((file.chunk_bytes for file in files), np.int64, count),
        )

    @classmethod
    def of_sizes(cls, sizes: NDArray[np.int64]) -> Line:
        """The same line, of the files' sizes alone."""
        line = cls.__new__(cls)
        chunk_bytes = np.full(len(sizes), MIN_CHUNK_BYTES, np.int64)
        for file in np.flatnonzero(sizes > MIN_CHUNK_BYTES * MAX_CHUNKS).tolist():
            chunk_bytes[file] = chunk_bytes_for(int(sizes[file]))
        line._lay(sizes, chunk_bytes)
        return line

    def _lay(self, size: NDArray[np.int64], chunk_bytes: NDArray[np.int64]) -> None:
        count = len(size)
        self.size = size
        self.chunk_bytes = chunk_bytes
        self.offset: NDArray[np.int64] = np.zeros(count + 1, np.int64)
        self.first_chunk: NDArray[np.int64] = np.zeros(count + 1, np.int64)
        np.cumsum(self.size, out=self.offset[1:])
        np.cumsum(-(-self.size // self.chunk_bytes), out=self.first_chunk[1:])
        self.files = count
        self.bytes = int(self.offset[-1])
        self.chunks = int(self.first_chunk[-1])

    def file_of(self, line_offset: int) -> int:
        """Index of the file that holds the byte at ``line_offset``; raises IndexError outside the line."""
        if not 0 <= line_offset < self.bytes:
            raise IndexError("the offset is outside the line")
        return int(self.offset.searchsorted(line_offset, "right")) - 1

    def chunk_of(self, line_offset: int) -> int:
        """Global index of the chunk that holds the byte at ``line_offset``; raises IndexError outside the line."""
        file = self.file_of(line_offset)
        return int(self.first_chunk[file]) + (line_offset - int(self.offset[file])) // int(self.chunk_bytes[file])

    def chunk_at(self, index: int) -> Chunk:
        """The chunk with this global index; raises IndexError."""
        if not 0 <= index < self.chunks:
            raise IndexError("there is no such chunk")
        file = int(self.first_chunk.searchsorted(index, "right")) - 1
        in_file = index - int(self.first_chunk[file])
        chunk_bytes = int(self.chunk_bytes[file])
        begin = in_file * chunk_bytes
        return Chunk(file, in_file, int(self.offset[file]) + begin, begin, min(chunk_bytes, int(self.size[file]) - begin))

    def places(self, chunks: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The file and the length of each of these chunks, all of which there are."""
        files = self.first_chunk.searchsorted(chunks, "right") - 1
        begins = (chunks - self.first_chunk[files]) * self.chunk_bytes[files]
        return files, np.minimum(self.chunk_bytes[files], self.size[files] - begins)

    def span(self, first: int, last: int) -> int:
        """Bytes of the chunks from ``first`` to ``last``."""
        end = self.chunk_at(last)
        return end.offset + end.length - self.chunk_at(first).offset

    def chunks_of(self, file: int) -> range:
        """Global indices of a file's chunks; empty for an empty file."""
        if not 0 <= file < self.files:
            raise IndexError("there is no such file")
        return range(int(self.first_chunk[file]), int(self.first_chunk[file + 1]))

    def chunks_in(self, line_offset: int, length: int) -> range:
        """Global indices of the chunks that the bytes [line_offset, line_offset + length) touch."""
        if length == 0:
            return range(0)
        return range(self.chunk_of(line_offset), self.chunk_of(line_offset + length - 1) + 1)
