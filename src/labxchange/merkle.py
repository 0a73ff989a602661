"""The Merkle tree of RFC 6962 (section 2.1): hashes, frontier, inclusion and consistency proofs.

Pure arithmetic on 32-byte hashes. Proofs are computed from complete subtrees fetched as ``node(level, index)`` (level 0 are
leaf hashes), so their cost grows with the logarithm of the tree; where those hashes are kept is left to the caller.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from hashlib import sha256

HASH_BYTES = 32
EMPTY_ROOT = sha256(b"").digest()

FetchNode = Callable[[int, int], bytes]


def leaf_hash(data: bytes) -> bytes:
    """SHA-256(0x00 || data)."""
    return sha256(b"\x00" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """SHA-256(0x01 || left || right)."""
    return sha256(b"\x01" + left + right).digest()


class Frontier:
    """The right edge of a growing tree: appends a leaf hash in amortised constant time and knows the root.

    ``append`` returns the complete subtrees that the new leaf finished, as (level, index, hash), lowest first; keeping
    them is what makes ``FetchNode`` possible.
    """

    def __init__(self, size: int = 0, edge: Sequence[bytes] = ()) -> None:
        if len(edge) != size.bit_count():
            raise ValueError("the edge does not fit the size")
        self.size = size
        self._edge = list(edge)

    @classmethod
    def load(cls, size: int, node: FetchNode) -> Frontier:
        """The frontier of the first ``size`` leaves."""
        return cls(size, [node(level, index) for level, index in _subtrees(0, size)])

    def append(self, leaf: bytes) -> list[tuple[int, int, bytes]]:
        finished = [(0, self.size, leaf)]
        level, index, value = 0, self.size, leaf
        while index & 1:
            value = node_hash(self._edge.pop(), value)
            level, index = level + 1, index >> 1
            finished.append((level, index, value))
        self._edge.append(value)
        self.size += 1
        return finished

    def root(self) -> bytes:
        return _fold(self._edge)


def root_of(leaves: Iterable[bytes]) -> bytes:
    """Root over leaf *hashes*."""
    frontier = Frontier()
    for leaf in leaves:
        frontier.append(leaf)
    return frontier.root()


def _fold(hashes: Sequence[bytes]) -> bytes:
    if not hashes:
        return EMPTY_ROOT
    value = hashes[-1]
    for left in reversed(hashes[:-1]):
        value = node_hash(left, value)
    return value


def _subtrees(begin: int, end: int) -> list[tuple[int, int]]:
    """The largest complete subtrees that cover leaves [begin, end), left to right; ``begin`` is a boundary of the tree."""
    out: list[tuple[int, int]] = []
    while begin < end:
        level = (end - begin).bit_length() - 1
        if begin:
            level = min(level, (begin & -begin).bit_length() - 1)
        out.append((level, begin >> level))
        begin += 1 << level
    return out


def _range_root(begin: int, end: int, node: FetchNode) -> bytes:
    return _fold([node(level, index) for level, index in _subtrees(begin, end)])


def _split(size: int) -> int:
    return 1 << (size - 1).bit_length() - 1


def inclusion_proof(index: int, size: int, node: FetchNode) -> list[bytes]:
    """Audit path of leaf ``index`` in the tree of the first ``size`` leaves (RFC 6962, 2.1.1)."""
    if not 0 <= index < size:
        raise ValueError("the leaf is not in the tree")
    path: list[bytes] = []
    begin, end = 0, size
    while end - begin > 1:
        middle = begin + _split(end - begin)
        if index < middle:
            path.append(_range_root(middle, end, node))
            end = middle
        else:
            path.append(_range_root(begin, middle, node))
            begin = middle
    return path[::-1]


def consistency_proof(old: int, new: int, node: FetchNode) -> list[bytes]:
    """Proof that the first ``old`` leaves are a prefix of the first ``new`` (RFC 6962, 2.1.2)."""
    if not 0 <= old <= new:
        raise ValueError("the old tree is larger than the new one")
    if old in (0, new):
        return []
    path: list[bytes] = []
    begin, end = 0, new
    while True:
        if end == old:
            if begin:
                path.append(_range_root(begin, end, node))
            return path[::-1]
        middle = begin + _split(end - begin)
        if old <= middle:
            path.append(_range_root(middle, end, node))
            end = middle
        else:
            path.append(_range_root(begin, middle, node))
            begin = middle


def verify_inclusion(leaf: bytes, *, index: int, size: int, proof: Sequence[bytes], root: bytes) -> bool:
    """True when ``proof`` leads from the leaf hash to ``root`` (RFC 9162, 2.1.3.2)."""
    if not 0 <= index < size or len(proof) > 64:
        return False
    first, last, value = index, size - 1, leaf
    for sibling in proof:
        if last == 0:
            return False
        if first & 1 or first == last:
            value = node_hash(sibling, value)
            while not first & 1 and first:
                first, last = first >> 1, last >> 1
        else:
            value = node_hash(value, sibling)
        first, last = first >> 1, last >> 1
    return last == 0 and value == root


def verify_consistency(*, old: int, new: int, old_root: bytes, new_root: bytes, proof: Sequence[bytes]) -> bool:
    """True when ``proof`` shows that the tree of ``new`` leaves extends the tree of ``old`` (RFC 9162, 2.1.4.2)."""
    if not 0 <= old <= new or len(proof) > 64:
        return False
    if old == 0:
        return not proof and old_root == EMPTY_ROOT
    if old == new:
        return not proof and old_root == new_root
    path = list(proof)
    if old & (old - 1) == 0:
        path.insert(0, old_root)
    if not path:
        return False
    first, last = old - 1, new - 1
    while first & 1:
        first, last = first >> 1, last >> 1
    old_value = new_value = path[0]
    for sibling in path[1:]:
        if last == 0:
            return False
        if first & 1 or first == last:
            old_value = node_hash(sibling, old_value)
            new_value = node_hash(sibling, new_value)
            while not first & 1 and first:
                first, last = first >> 1, last >> 1
        else:
            new_value = node_hash(new_value, sibling)
        first, last = first >> 1, last >> 1
    return last == 0 and old_value == old_root and new_value == new_root
