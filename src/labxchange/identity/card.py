"""The contact card: the keys, the name and the addresses that a person claims, signed by their identity key.

The name proves nothing: a contact is *unverified* until the six words were compared. The newest card of a key wins.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from labxchange.identity.statement import Key, Signed, Statement, parse

Name = Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
_HOST = r"(\[[0-9a-fA-F:.]{2,45}\]|[A-Za-z0-9.-]{1,253})"
_PORT = "([1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])"
Address = Annotated[str, msgspec.Meta(pattern=f"^{_HOST}:{_PORT}\\Z")]
"""``host:port`` of a UDP port (1 to 65535), IPv6 in brackets."""


class Card(Statement, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who a key says it is and where its node answers."""

    kind = "card"

    trail_key: Key
    cosign_key: Key
    name: Name
    organisation: Name
    role: Annotated[str, msgspec.Meta(max_length=200)]
    country: Annotated[str, msgspec.Meta(max_length=200)]
    addresses: Annotated[list[Address], msgspec.Meta(max_length=8)]


def parse_card(envelope: bytes) -> Signed[Card]:
    """Verify and parse a card; raises IntegrityError as ``statement.parse`` does."""
    return parse(envelope, Card)
