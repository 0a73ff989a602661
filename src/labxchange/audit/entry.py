"""What a caller wants to say in the trail, before it has a place in it.

An entry is checked where it is made: known event, bounded texts that are valid Unicode, a result word. Which of its fields
stand open in the leaf and which are only committed is ``leaf``'s rule; the place, time and salts come from the store.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from labxchange.audit.events import Event
from labxchange.audit.scope import KINDS, Scope
from labxchange.encoding import JSON_MAX_INTEGER, dump_json
from labxchange.errors import InputError

VALUE_MAX_BYTES = 16_384
ENTRY_MAX_BYTES = 65_536
OPEN_MAX_CHARACTERS = 200

Result = Literal["ok", "denied", "error"]

_OF_A_DATASET = frozenset({"dataset", "share", "listing", "manifest", "grant", "download", "transfer", "file"})


class Who(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who acted: the printed name, role and organisation, the identity key in hex, how they were authenticated.

    ``authenticated`` is "passphrase", "credential", "keyring", "peer handshake" or empty; ``actor`` "person" or "program".
    """

    person: str = ""
    role: str = ""
    organisation: str = ""
    key: str = ""
    authenticated: Literal["", "passphrase", "credential", "keyring", "peer handshake"] = ""
    actor: Literal["", "person", "program"] = ""


class Entry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One thing that happened. All but the event may be empty.

    ``dataset`` is not written: it says whose subject key seals the object's fields where the object is not the dataset itself
    (a grant, a transfer), so that redacting a dataset reaches them.

    Raises:
        InputError: ``entry-invalid``, ``entry-too-large``.
    """

    event: Event
    object_type: str = ""
    object_id: str = ""
    object_digest: str = ""
    dataset: str = ""
    who: Who = Who()
    study: str = ""
    site: str = ""
    category: str = ""
    old: str = ""
    new: str = ""
    reason_code: str = ""
    reason_text: str = ""
    purpose: str = ""
    agreement: str = ""
    counterparty: str = ""
    counterparty_name: str = ""
    country: str = ""
    result: Result = "ok"
    result_code: str = ""
    details: dict[str, str | int] = {}

    def __post_init__(self) -> None:
        for open_text in (self.object_type, self.result_code):
            if len(open_text) > OPEN_MAX_CHARACTERS or not open_text.isprintable():
                raise InputError("entry-invalid", "An object type or result code is too long or not printable.")
        if self.result not in ("ok", "denied", "error"):
            raise InputError("entry-invalid", "The result of an entry is ok, denied or error.")
        if any(isinstance(v, bool | float) or (isinstance(v, int) and abs(v) > JSON_MAX_INTEGER) for v in self.details.values()):
            raise InputError("entry-invalid", "A detail of an entry is neither text nor an integer below 2^53.")
        total = 0
        for _, _, value in self.committed():
            total += len(value)
            if len(value) > VALUE_MAX_BYTES or total > ENTRY_MAX_BYTES:
                raise InputError("entry-too-large", "An entry of the audit trail is too large to be written.")

    @property
    def scopes(self) -> tuple[Scope, ...]:
        """The study, site and category that are named, in that order."""
        named = ((kind, getattr(self, kind)) for kind in KINDS)
        return tuple(Scope(kind=kind, name=name) for kind, name in named if name)

    def committed(self, *, local: str = "") -> tuple[tuple[str, str, bytes], ...]:
        """The fields that a leaf only commits to, as (name, subject, JSON text in UTF-8); empty ones are left out."""
        about = self._object_subject()
        person = f"person:{self.who.key}" if self.who.key else about
        other = f"counterparty:{self.counterparty}" if self.counterparty else about
        named: tuple[tuple[str, str, str | dict[str, str | int]], ...] = (
            ("local", person, local),
            ("person", person, self.who.person),
            ("role", person, self.who.role),
            ("organisation", person, self.who.organisation),
            ("key", person, self.who.key),
            ("authenticated", person, self.who.authenticated),
            ("actor", person, self.who.actor),
            ("object_id", about, self.object_id),
            ("object_digest", about, self.object_digest),
            ("study", about, self.study),
            ("site", about, self.site),
            ("category", about, self.category),
            ("old", about, self.old),
            ("new", about, self.new),
            ("reason_code", about, self.reason_code),
            ("reason_text", about, self.reason_text),
            ("purpose", about, self.purpose),
            ("agreement", about, self.agreement),
            ("counterparty", other, self.counterparty),
            ("counterparty_name", other, self.counterparty_name),
            ("country", other, self.country),
            ("details", about, self.details),
        )
        try:
            return tuple((name, subject, dump_json(value)) for name, subject, value in named if value != "" and value != {})
        except UnicodeEncodeError:
            raise InputError("entry-invalid", "A text of an audit entry is not valid Unicode.") from None

    def _object_subject(self) -> str:
        """Whose subject key seals the object's own fields."""
        if self.dataset:
            return f"dataset:{self.dataset}"
        if self.object_type in ("contact", "invitation") and self.counterparty:
            return f"counterparty:{self.counterparty}"
        if self.object_type in ("identity", "key", "person") and self.who.key:
            return f"person:{self.who.key}"
        if self.object_type in _OF_A_DATASET and self.object_id:
            return f"dataset:{self.object_id}"
        if self.counterparty:
            return f"counterparty:{self.counterparty}"
        if self.who.key:
            return f"person:{self.who.key}"
        return "node"
