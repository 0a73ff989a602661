"""Scopes: how an excerpt shows that it left nothing out of one study, site or category, and tells nothing about the others.

Each scope has a key, derived from the trail's scope key, and a tag, derived from that key. An entry carries the tags of its
scopes and a counter in each, starting at 1 without gaps. Whoever is given a scope's key and name computes the tag and sees that
the counters run to the head; without them a tag is a random number. Keeping the counters is left to the store.
"""

from __future__ import annotations

import hmac
from hashlib import sha256

import msgspec

from labxchange.encoding import frame

KINDS = ("study", "site", "category")
TAG_BYTES = 16


class Scope(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One study, site or category by its name."""

    kind: str
    name: str


class ScopeCount(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An entry's place in a scope: the tag in hex, and the counter, from 1."""

    tag: str
    counter: int


def scope_key(trail_scope_key: bytes, scope: Scope) -> bytes:
    """HMAC-SHA-256(trail scope key, F(kind, name)): the 32 bytes that an excerpt discloses."""
    return hmac.digest(trail_scope_key, frame(scope.kind, scope.name), "sha256")


def scope_tag(key: bytes, scope: Scope) -> str:
    """First 16 bytes of SHA-256(F("labxchange scope v1", scope key, kind, name)), in hex."""
    return sha256(frame("labxchange scope v1", key, scope.kind, scope.name)).digest()[:TAG_BYTES].hex()


def tag_of(trail_scope_key: bytes, scope: Scope) -> str:
    """The tag of ``scope`` in one's own trail."""
    return scope_tag(scope_key(trail_scope_key, scope), scope)
