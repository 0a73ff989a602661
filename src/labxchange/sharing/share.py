"""A share: one immutable version of a dataset, and the offer of it to one person.

The bytes are named by the ``listing`` (``dataset.listing``); the offer adds the root of the ``manifest`` once hashing has ended.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from labxchange.identity.statement import Count, Digest, Key, MaybeDigest, ShortId, Statement, Text

Title = Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
Label = Annotated[str, msgspec.Meta(max_length=100)]
"""A study, site or category name; empty where it does not apply."""


COLUMNS_MAX = 10_000


class Withheld(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What of a table file was not shared, in the sender's words: columns by name, rows by number."""

    file: Text
    columns: Annotated[list[Annotated[str, msgspec.Meta(max_length=256)]], msgspec.Meta(max_length=COLUMNS_MAX)]
    rows: Count


class Share(Statement, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """What a dataset version is called and where it belongs, and what of its tables the sender left out.

    ``withheld`` is written only where it says something, so that other shares are read by software that does not know it.
    """

    kind = "share"

    share: ShortId
    version: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)]
    listing: Digest
    title: Title
    note: Text
    study: Label
    site: Label
    category: Label
    withheld: Annotated[tuple[Withheld, ...], msgspec.Meta(max_length=1000)] = ()


class Offer(Statement, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The sender tells one recipient that a share version waits for them under a grant."""

    kind = "offer"

    recipient: Key
    share: ShortId
    version: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)]
    listing: Digest
    grant: Digest
    root: MaybeDigest
