"""Statements that a contact delivers: each is verified, must be the contact's own, and goes to the part of the node it concerns.

A statement that cannot be taken is answered by a signed refusal and written down; the others of the same delivery still count.
"""

from __future__ import annotations

from collections.abc import Callable

from msgspec.structs import replace

from labxchange.audit.entry import Entry
from labxchange.audit.events import Event
from labxchange.dataset.listing import Listing
from labxchange.dataset.manifest import Manifest
from labxchange.errors import IntegrityError, LabxchangeError, PeerError
from labxchange.identity.card import Card
from labxchange.identity.statement import B, Signed, parse, peek_kind
from labxchange.node.books import Books
from labxchange.node.contacts import Contacts
from labxchange.node.core import Core
from labxchange.node.denials import Denials
from labxchange.node.inbox import Inbox
from labxchange.node.receipts import Receipts
from labxchange.node.receiving import Receiving
from labxchange.node.refusals import refusal_of
from labxchange.sharing.exchange import Cut, Progress, Receipt, ReceiptAck, Refusal
from labxchange.sharing.grant import ExtensionRequest, Grant, Revocation
from labxchange.sharing.share import Offer, Share
from labxchange.store import shares as rows
from labxchange.store import statements, transfers
from labxchange.store.damage import DAMAGED


class Taking:
    """Dispatches delivered statements by kind."""

    def __init__(
        self,
        core: Core,
        contacts: Contacts,
        denials: Denials,
        inbox: Inbox,
        receiving: Receiving,
        receipts: Receipts,
        books: Books,
        *,
        finished: Callable[[str], None],
        settled: Callable[[str], None],
    ) -> None:
        self._core = core
        self._contacts = contacts
        self._denials = denials
        self._inbox = inbox
        self._receiving = receiving
        self._receipts = receipts
        self._books = books
        self._finished = finished
        self._settled = settled
        self._takers: dict[str, Callable[[str, bytes], list[bytes]]] = {
            "card": self._card,
            "share": self._into(Share, inbox.take_share),
            "listing": self._into(Listing, inbox.take_listing),
            "manifest": self._into(Manifest, inbox.take_manifest),
            "offer": self._into(Offer, inbox.take_offer),
            "grant": self._grant,
            "revocation": self._revocation,
            "progress": self._progress,
            "cut": self._cut,
            "receipt": self._receipt,
            "receipt-ack": self._ack,
            "refusal": self._refusal,
            "extension-request": self._extension,
        }

    def take(self, key: str, envelope: bytes) -> list[bytes]:
        """Read one statement of contact ``key``; returns statements in reply."""
        kind = "statement"
        try:
            kind = peek_kind(envelope)
            taker = self._takers.get(kind)
            if taker is None:
                raise PeerError("unexpected-kind", "A statement of this kind is not delivered this way.")
            return taker(key, envelope)
        except (PeerError, IntegrityError) as error:
            if error.code == DAMAGED:  # here, and nothing that the contact did; it keeps the statement
                raise
            self._denials.note(error.code, key, event=Event.SECURITY_PROTOCOL_VIOLATION)
            return [] if kind == "refusal" else [self._refuse(key, kind, error)]

    def _refuse(self, key: str, kind: str, error: LabxchangeError) -> bytes:
        return refusal_of(self._core, error, to=key, request=kind).envelope

    def _own(self, key: str, envelope: bytes, kind: type[B]) -> Signed[B]:
        signed = parse(envelope, kind)
        if signed.body.issuer != key:
            raise PeerError("foreign-statement", "A contact delivered a statement of somebody else as its own.")
        return signed

    def _into(self, kind: type[B], take: Callable[[Signed[B]], object]) -> Callable[[str, bytes], list[bytes]]:
        """A taker that verifies, hands over, and answers nothing."""

        def taker(key: str, envelope: bytes) -> list[bytes]:
            take(self._own(key, envelope, kind))
            return []

        return taker

    def _card(self, key: str, envelope: bytes) -> list[bytes]:
        self._contacts.update_card(self._own(key, envelope, Card))
        return []

    def _grant(self, key: str, envelope: bytes) -> list[bytes]:
        signed = self._own(key, envelope, Grant)
        if self._inbox.take_grant(signed):
            self._receiving.grant_changed(signed.body.grant, owner=key)
        return []

    def _revocation(self, key: str, envelope: bytes) -> list[bytes]:
        grant = self._inbox.take_revocation(self._own(key, envelope, Revocation))
        self._receiving.grant_ended(grant, "grant-revoked", owner=key)
        return []

    def _known(self, statement: str) -> bool:
        """True for a statement that was taken before: saying it again has no effect."""
        with self._core.database.begin() as tx:
            return statements.get(tx, statement) is not None

    def _transfer(self, key: str, transfer: str, direction: str) -> transfers.TransferRow:
        with self._core.database.begin() as tx:
            row = transfers.transfer(tx, transfer)
        if row is None or row.peer != key or row.direction != direction:
            raise PeerError("transfer-unknown", "A statement names a transfer that is not its issuer's.")
        return row

    def _progress(self, key: str, envelope: bytes) -> list[bytes]:
        signed = self._own(key, envelope, Progress)
        row = self._transfer(key, signed.body.transfer, "out")
        if self._known(signed.id):
            return []
        details = {"bytes": signed.body.bytes, "reused": signed.body.reused}
        entry = self._entry(Event.TRANSFER_PROGRESS, row, signed.id, details=details)
        with self._core.act(entry) as tx:
            statements.put(tx, signed, about=row.transfer, now=self._core.clock.now())
            told = {"done_bytes": max(row.done_bytes, signed.body.bytes), "done_files": signed.body.files}
            transfers.put_transfer(tx, replace(row, **told, reused_bytes=signed.body.reused))
        self._core.notices.publish("transfer", row.transfer)
        return []

    def _cut(self, key: str, envelope: bytes) -> list[bytes]:
        """The other side's word on how a transfer ended: kept as evidence; a sender's cut ends ours too."""
        signed = self._own(key, envelope, Cut)
        direction = "in" if signed.body.side == "sender" else "out"
        row = self._transfer(key, signed.body.transfer, direction)
        if self._known(signed.id):
            return []
        details = {"files": signed.body.files, "bytes": signed.body.bytes}
        entry = self._entry(Event.TRANSFER_CUT, row, signed.id, details=details)
        entries = [replace(entry, result="denied", result_code=signed.body.code)]
        ends = direction == "out" and row.state in ("running", "waiting", "paused")
        cancelled = signed.body.code == "cancelled"
        returned = direction == "out" and cancelled and row.slot == "reserved" and self._books.nothing_whole_sent(row)
        if returned:
            entries.append(self._receipts.entry(Event.DOWNLOAD_RETURNED, row, object_type="grant", object_id=row.grant))
        with self._core.act(*entries) as tx:
            statements.put(tx, signed, about=row.transfer, now=self._core.clock.now())
            fresh = replace(row, slot="returned") if returned else row
            if ends:
                fresh = replace(fresh, state="cancelled" if cancelled else "cut", reason=signed.body.code)
            if direction == "out":
                transfers.put_transfer(tx, fresh)
        if direction == "in":
            with self._core.database.begin() as tx:
                grant = rows.grant(tx, row.grant, owner=key)
            if grant is not None and signed.body.code == "grant-expired" and grant.not_after <= signed.body.issued:
                self._receiving.grant_ended(row.grant, signed.body.code, owner=key)
            else:
                self._receiving.cut_told(row.transfer)
        else:
            self._finished(row.transfer)
        self._core.notices.publish("transfer", row.transfer)
        return []

    def _receipt(self, key: str, envelope: bytes) -> list[bytes]:
        signed = self._own(key, envelope, Receipt)
        again = self._known(signed.id)
        answer = self._receipts.countersign(signed)
        if signed.body.level == "intact" and not again:
            self._finished(signed.body.transfer)
        if signed.body.level != "delivered" and not again:
            self._settled(key)
        return [answer]

    def _ack(self, key: str, envelope: bytes) -> list[bytes]:
        if self._receipts.take_ack(self._own(key, envelope, ReceiptAck)):
            self._settled(key)
        return []

    def _refusal(self, key: str, envelope: bytes) -> list[bytes]:
        signed = self._own(key, envelope, Refusal)
        if self._known(signed.id):
            return []
        with self._core.act(
            Entry(
                event=Event.TRANSFER_REFUSED,
                object_type="statement",
                object_id=signed.id,
                who=self._core.who(actor="program"),
                counterparty=key,
                counterparty_name=self._contacts.name(key),
                result="denied",
                result_code=signed.body.code,
            )
        ) as tx:
            statements.put(tx, signed, about=key, now=self._core.clock.now())
        return []

    def _extension(self, key: str, envelope: bytes) -> list[bytes]:
        signed = self._own(key, envelope, ExtensionRequest)
        with self._core.database.begin() as tx:
            row = rows.grant(tx, signed.body.grant, owner=self._core.me)
            named = row is not None and key in rows.recipients(tx, row)
        if row is None or not named:
            raise PeerError("grant-unknown", "A request names a grant that is not its issuer's.")
        if self._known(signed.id):
            return []
        entry = Entry(
            event=Event.GRANT_CHANGED,
            object_type="grant",
            object_id=row.grant,
            object_digest=signed.id,
            dataset=row.share,
            who=self._core.who(actor="program"),
            counterparty=key,
            counterparty_name=self._contacts.name(key),
            old=f"not_after {row.not_after}",
            new=f"asked for {signed.body.until}",
            reason_text=signed.body.reason,
            result_code="requested",
        )
        with self._core.act(entry) as tx:
            statements.put(tx, signed, about=row.grant, now=self._core.clock.now())
            rows.put_grant(tx, replace(row, asked_until=signed.body.until), [])
        self._core.notices.publish("share", row.share)
        return []

    def _entry(self, event: Event, row: transfers.TransferRow, digest: str, *, details: dict[str, int]) -> Entry:
        return self._receipts.entry(event, row, object_digest=digest, details=dict(details))
