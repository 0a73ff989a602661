"""Grants, their changes and their end.

A grant names persons (identity keys), covers one whole share version, and ends on a date. A change is a new statement with the
same ``grant`` and a higher ``revision``; a revocation ends it for good.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from labxchange.errors import InputError
from labxchange.identity.statement import Count, Digest, Key, ShortId, Statement, Text

MAX_RECIPIENTS = 100


class Grant(Statement, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who may do what with which share version, from when until when (UTC ms), how often per recipient."""

    kind = "grant"

    grant: ShortId
    revision: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)]
    share: ShortId
    version: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)]
    listing: Digest
    recipients: Annotated[list[Key], msgspec.Meta(min_length=1, max_length=MAX_RECIPIENTS)]
    rights: Annotated[list[Literal["list", "read"]], msgspec.Meta(min_length=1, max_length=2)]
    purpose: Text
    not_before: Count
    not_after: Count
    downloads: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)]

    def __post_init__(self) -> None:
        if self.not_after <= self.not_before:
            raise ValueError("a grant ends after it begins")
        if len(set(self.recipients)) != len(self.recipients):
            raise ValueError("a recipient is named twice")


def changed(old: Grant, *, issued: int, not_after: int) -> Grant:
    """The next revision of ``old`` with another end.

    Raises:
        InputError: ``grant-end-in-past``.
    """
    if not_after <= issued or not_after <= old.not_before:
        raise InputError("grant-end-in-past", "A grant cannot be changed to end in the past.", hint="To end it now, revoke it.")
    return msgspec.structs.replace(old, issued=issued, revision=old.revision + 1, not_after=not_after)


class Revocation(Statement, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The issuer ends a grant at once, and says why."""

    kind = "revocation"

    grant: ShortId
    reason: Text


class ExtensionRequest(Statement, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A recipient asks for a later end of a grant."""

    kind = "extension-request"

    grant: ShortId
    until: Count
    reason: Text
