"""The tree of RFC 6962 against an implementation of somebody else, and every proof against every wrong claim about it."""

from __future__ import annotations

import random

import pytest
from pymerkle import InmemoryTree

from labxchange.merkle import (
    EMPTY_ROOT,
    FetchNode,
    Frontier,
    consistency_proof,
    inclusion_proof,
    leaf_hash,
    root_of,
    verify_consistency,
    verify_inclusion,
)

SIZE = 70


@pytest.fixture(scope="module")
def tree() -> tuple[list[bytes], list[bytes], FetchNode]:
    """Leaf hashes, the root of each size, and the complete subtrees."""
    frontier, nodes, roots, leaves = Frontier(), {}, [EMPTY_ROOT], []
    for number in range(SIZE):
        leaf = leaf_hash(b"%d" % number)
        leaves.append(leaf)
        for level, index, value in frontier.append(leaf):
            nodes[level, index] = value
        roots.append(frontier.root())
    return leaves, roots, lambda level, index: nodes[level, index]


def test_roots_are_those_of_another_implementation(tree: tuple[list[bytes], list[bytes], FetchNode]) -> None:
    leaves, roots, _ = tree
    other = InmemoryTree(algorithm="sha256")
    for size in range(1, SIZE + 1):
        other.append_entry(b"%d" % (size - 1))
        assert other.get_root() == roots[size] == root_of(leaves[:size])


def test_a_frontier_is_taken_up_from_stored_nodes(tree: tuple[list[bytes], list[bytes], FetchNode]) -> None:
    leaves, roots, node = tree
    for size in range(SIZE):
        frontier = Frontier.load(size, node)
        assert frontier.root() == roots[size]
        frontier.append(leaves[size])
        assert frontier.root() == roots[size + 1]


def test_every_leaf_is_proven_and_nothing_else_is(tree: tuple[list[bytes], list[bytes], FetchNode]) -> None:
    leaves, roots, node = tree
    for size in range(1, SIZE + 1):
        for index in range(size):
            proof = inclusion_proof(index, size, node)
            right = {"index": index, "size": size, "proof": proof, "root": roots[size]}
            assert verify_inclusion(leaves[index], **right)  # type: ignore[arg-type]
            assert not verify_inclusion(leaf_hash(b"x"), **right)  # type: ignore[arg-type]
            assert not verify_inclusion(
                leaves[index], **(right | {"index": (index + 1) % size} if size > 1 else right | {"index": 1})
            )  # type: ignore[arg-type]
            assert not verify_inclusion(leaves[index], **(right | {"proof": [*proof, bytes(32)]}))  # type: ignore[arg-type]
            assert not proof or not verify_inclusion(leaves[index], **(right | {"proof": proof[:-1]}))  # type: ignore[arg-type]
            assert not verify_inclusion(leaves[index], **(right | {"root": roots[size - 1]}))  # type: ignore[arg-type]


def test_growth_is_proven_and_nothing_else_is(tree: tuple[list[bytes], list[bytes], FetchNode]) -> None:
    _, roots, node = tree
    chance = random.Random(1)
    for new in range(1, SIZE + 1):
        for old in range(new + 1):
            proof = consistency_proof(old, new, node)
            right = {"old": old, "new": new, "old_root": roots[old], "new_root": roots[new], "proof": proof}
            assert verify_consistency(**right)  # type: ignore[arg-type]
            if 0 < old < new:
                wrong = list(proof)
                place = chance.randrange(len(wrong))
                wrong[place] = bytes(32)
                for change in (
                    {"proof": wrong},
                    {"proof": proof[:-1]},
                    {"proof": [*proof, bytes(32)]},
                    {"old_root": roots[old - 1]},
                    {"new_root": roots[new - 1]},
                    {"old": new + 1},
                ):
                    assert not verify_consistency(**(right | change))  # type: ignore[arg-type]


def test_outside_the_tree(tree: tuple[list[bytes], list[bytes], FetchNode]) -> None:
    node = tree[2]
    with pytest.raises(ValueError, match="not in the tree"):
        inclusion_proof(3, 3, node)
    with pytest.raises(ValueError, match="larger"):
        consistency_proof(4, 3, node)
    with pytest.raises(ValueError, match="does not fit"):
        Frontier(3, [bytes(32)])
