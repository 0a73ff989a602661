"""Receipts: what the recipient signs when a transfer ends, what the sender countersigns, and the portable file of both.

``delivered``: every byte that could be had is here. ``intact``: the files match the manifest; given only over a manifest. A
person's ``accepted`` or ``rejected`` is signed in ``decisions`` and countersigned here. The countersignature carries the proof
that the receipt stands in the sender's trail. Honest limit: a recipient can withhold the last receipt; accept and progress are
then the evidence.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec.structs import replace

from labxchange.audit.checkpoint import parse_note
from labxchange.audit.entry import Entry
from labxchange.audit.events import Event
from labxchange.dataset.check import Finding, FindingKind, NotRun, Report, Verdict
from labxchange.dataset.listing import Listing
from labxchange.dataset.manifest import Manifest
from labxchange.dataset.names import escape
from labxchange.encoding import b64encode
from labxchange.errors import InputError, PeerError
from labxchange.identity.statement import Signed, Statement
from labxchange.node.books import Books
from labxchange.node.catalog import Catalog, Loaded
from labxchange.node.clock import local_text
from labxchange.node.contacts import Contacts
from labxchange.node.core import Core
from labxchange.node.receipt_page import render
from labxchange.node.receipt_proof import check_ack
from labxchange.node.values import ReceiptInfo, ReceiptPage, ReceivedInfo
from labxchange.settings import SOFTWARE
from labxchange.sharing.exchange import DECISIONS_MAX, Accept, Counts, Path, Receipt, ReceiptAck, best, decides
from labxchange.sharing.grant import Grant
from labxchange.sharing.share import Offer, Share
from labxchange.store import people, statements, transfers
from labxchange.store import shares as rows
from labxchange.store.damage import damaged, reading
from labxchange.store.shares import ShareRow
from labxchange.store.transfers import TransferRow
from labxchange.transfer.intervals import Interval

_RECEIPTS_MAX = 32
"""Two for each attempt that ended; what an attempt left damaged can be fetched again."""
_CHECKS = (
    "listing: signature of the sender, names, sizes",
    "manifest: signature of the sender, root over all files",
    "chunks: BLAKE3-256 of each",
    "files: SHA-256 of record of each",
)


class Receipts:
    """Signs, countersigns, keeps and shows receipts."""

    def __init__(self, core: Core, contacts: Contacts, catalog: Catalog, books: Books) -> None:
        self._core = core
        self._contacts = contacts
        self._catalog = catalog
        self._books = books

    def scoped(self, entry: Entry, share: ShareRow) -> Entry:
        """The entry with the study, site and category of the share."""
        with self._core.database.begin() as tx:
            found = statements.find(tx, share.statement, Share)
        if found is None:
            return entry
        body = found.body
        return replace(entry, study=body.study, site=body.site, category=body.category)

    def entry(self, event: Event, row: TransferRow, **fields: object) -> Entry:
        """What this node does by itself with a transfer, under its study, site and category."""
        with self._core.database.begin() as tx:
            share = rows.share(tx, row.share, row.version, owner=row.owner(self._core.me))
        entry = Entry(
            event=event,
            object_type="transfer",
            object_id=row.transfer,
            dataset=row.share,
            who=self._core.who(actor="program"),
            counterparty=row.peer,
            counterparty_name=self._contacts.name(row.peer),
        )
        entry = replace(entry, **fields)
        return self.scoped(entry, share) if share else entry

    # --- recipient ----------------------------------------------------------------------------------------------------
    def sign(
        self,
        row: TransferRow,
        share: ShareRow,
        loaded: Loaded,
        findings: Sequence[Finding],
        *,
        path: Path,
        mended: int = 0,
        also: Sequence[Entry] = (),
        lasting: list[Interval] | None = None,
    ) -> None:
        """Report, sign both levels, record, and post them to the sender; ``lasting``: all that the journal holds from now on,
        with the entries ``also`` about it. ``mended`` files were announced otherwise than their manifest says."""
        report = _report(loaded, findings, reused_bytes=row.reused_bytes)
        now = self._core.clock.now()
        counts = Counts(
            matched=report.matched,
            differ=report.differ,
            missing=report.missing,
            unexpected=report.unexpected,
            error=report.error,
        )
        with self._core.database.begin() as tx:
            grant = rows.grant(tx, row.grant, owner=row.owner(self._core.me))
            accepts = statements.about(tx, row.transfer, Accept)
        assert grant is not None
        assert loaded.manifest is not None
        intact = report.verdict is not Verdict.NOT_INTACT
        signed = [
            self._core.sign(
                Receipt,
                level=level,
                verdict=verdict,
                transfer=row.transfer,
                offer=grant.offer,
                accept=accepts[-1].id,
                grant=grant.statement,
                listing=loaded.listing.id,
                manifest=loaded.manifest.id,
                root=loaded.manifest.body.root,
                counts=counts,
                bytes=report.bytes,
                reused=report.reused_bytes,
                started=row.started_ms,
                finished=now,
                started_local=local_text(row.started_ms),
                finished_local=local_text(now),
                path=path,
                software=SOFTWARE,
            )
            for level, verdict in (
                ("delivered", "complete" if intact else "incomplete"),
                ("intact", "match" if intact else "mismatch"),
            )
        ]
        verified = self.entry(
            Event.TRANSFER_VERIFIED,
            row,
            object_digest=loaded.manifest.body.root,
            result="ok" if intact else "error",
            result_code="" if intact else "not-intact",
            details={
                **{name: int(value) for name, value in msgspec.structs.asdict(counts).items()},
                "bytes": report.bytes,
                "reused": report.reused_bytes,
                "announced_otherwise": mended,
            },
        )
        entries = [
            self.entry(
                Event.FILE_QUARANTINED,
                row,
                object_type="file",
                object_id=escape(finding.path, limit=1000),
                result="error",
                result_code=str(finding.kind),
                new=f"offset {finding.offset}, expected {finding.expected}, got {finding.got}",
            )
            for finding in findings[:100]
            if finding.kind is not FindingKind.MISSING
        ]
        entries.append(verified)
        entries += [
            self.entry(Event.TRANSFER_RECEIPT, row, object_type="receipt", object_id=item.id, details={"level": item.body.level})
            for item in signed
        ]
        state = "verified" if intact else "failed"
        fresh = replace(
            row, state=state, reason="" if intact else "not-intact", finished_ms=now, report=msgspec.msgpack.encode(report)
        )
        with self._core.act(*entries, *also) as tx:
            if lasting is not None:
                transfers.replace_arrived(tx, row.transfer, lasting)
            for item in signed:
                statements.put(tx, item, about=row.transfer, now=now)
                statements.post(tx, row.peer, item.id)
            transfers.put_transfer(tx, fresh)

    def take_ack(self, signed: Signed[ReceiptAck]) -> bool:
        """The sender's countersignature: checked with its proof, then kept. True when both levels are settled.

        Raises:
            PeerError: ``receipt-unknown``, ``ack-wrong``.
        """
        with self._core.database.begin() as tx:
            receipt = statements.find(tx, signed.body.receipt, Receipt)
        if receipt is None:
            raise PeerError("receipt-unknown", "A countersignature names a receipt that does not exist.")
        with self._core.database.begin() as tx:
            row = transfers.transfer(tx, receipt.body.transfer)
            known = {ack.body.receipt for ack in statements.about(tx, receipt.body.transfer, ReceiptAck)}
            receipts = statements.about(tx, receipt.body.transfer, Receipt)
        if row is None or row.peer != signed.body.issuer or receipt.body.issuer != self._core.me:
            raise PeerError("receipt-unknown", "A countersignature came from somebody else than the sender.")
        if signed.body.receipt in known:
            return False
        contact = self._contacts.get(row.peer)
        assert contact is not None
        check_ack(signed, people.card_of(contact))
        done = {*known, signed.body.receipt}
        level = {"level": receipt.body.level}
        entries = [self.entry(Event.TRANSFER_RECEIPT, row, object_type="receipt-ack", object_id=signed.id, details=level)]
        attempt = {item.id for item in receipts if item.body.finished == receipt.body.finished and not item.body.decided}
        settled = attempt <= done
        completed = settled and row.state == "verified" and row.finished_ms == receipt.body.finished
        if completed:
            entries.append(self.entry(Event.TRANSFER_COMPLETED, row))
        with self._core.act(*entries) as tx:
            statements.put(tx, signed, about=row.transfer, now=self._core.clock.now())
            if completed:
                transfers.put_transfer(tx, replace(row, state="completed"))
        self._core.notices.publish("transfer", row.transfer)
        return settled

    # --- sender -------------------------------------------------------------------------------------------------------
    def countersign(self, signed: Signed[Receipt]) -> bytes:
        """Keep a recipient's receipt and answer with the proof that it stands in our trail; the same answer for a repeat, and for
        one that was kept before a crash came.

        Raises:
            PeerError: ``receipt-unknown``, ``receipt-wrong``.
        """
        body = signed.body
        trail, now = self._core.trail, self._core.clock.now()
        assert trail is not None
        with self._core.database.begin() as tx:
            row = transfers.transfer(tx, body.transfer)
            acks = statements.about(tx, body.transfer, ReceiptAck)
        if row is None or row.direction != "out" or row.peer != body.issuer:
            raise PeerError("receipt-unknown", "A receipt names a transfer that its issuer did not start.")
        for ack in acks:
            if ack.body.receipt == signed.id:
                return ack.envelope
        with self._core.database.begin() as tx:
            share = rows.share(tx, row.share, row.version, owner=row.owner(self._core.me))
            grant = rows.grant(tx, row.grant, owner=row.owner(self._core.me))
            accepted = statements.is_about(tx, body.accept, body.transfer, Accept)
            told = statements.about(tx, body.transfer, Receipt)
            kept = statements.is_about(tx, signed.id, body.transfer, Receipt)
        assert share is not None
        assert grant is not None
        seq = self._seq_of(signed.id) if kept else None
        if seq is not None:
            return self._acknowledge(signed, seq)
        if sum(item.body.decided == body.decided for item in told) >= (DECISIONS_MAX if body.decided else _RECEIPTS_MAX):
            raise PeerError("receipt-repeated", "There are more receipts for a transfer than it can have.")
        agrees = (body.listing, body.offer) == (share.listing, grant.offer) and accepted
        if body.decided:  # on a receipt that was held against everything here
            agrees = noted = decides(body, [item for item in told if item.id != signed.id])
        else:
            agrees = agrees and body.manifest == share.manifest and _consistent(body, self._catalog.load(share))
            noted = agrees and self._noted(body, row)
        if not agrees or not (noted or self._books.may_be_short(row)):
            raise PeerError("receipt-wrong", "A receipt contradicts the transfer that it names.")
        final = body.level == "intact" and row.state != "completed"
        intact = final and body.verdict == "match"
        details: dict[str, str | int] = {"level": body.level, "bytes": body.bytes, "reused": body.reused}
        entry = self.entry(Event.TRANSFER_RECEIPT, row, object_type="receipt", object_id=signed.id, details=details)
        entries = [entry if noted else replace(entry, result_code="notes-short")]
        if final:
            event = Event.TRANSFER_COMPLETED if intact else Event.TRANSFER_FAILED
            result = {"result": "ok"} if intact else {"result": "error", "result_code": "not-intact"}
            entries.append(self.entry(event, row, **result))
        state = ("completed" if intact else "failed") if final else row.state
        size = max(row.done_bytes, body.bytes)
        fresh = replace(
            row,
            state=state,
            slot="used",
            finished_ms=now,
            done_bytes=size,
            done_files=body.counts.matched,
            reused_bytes=body.reused,
            reason="",
        )
        seq = trail.size
        with self._core.act(*entries) as tx:
            statements.put(tx, signed, about=body.transfer, now=now)
            transfers.put_transfer(tx, row if row.state == "completed" or body.decided else fresh)
        return self._acknowledge(signed, seq)

    def _noted(self, body: Receipt, row: TransferRow) -> bool:
        """The notes of what was sent bear a receipt out: every chunk reached its issuer, and what is said to have travelled in
        this transfer was sent in it."""
        if body.verdict not in ("complete", "match"):
            return True
        return self._books.everything_reached(row) and body.bytes - body.reused <= self._books.sent(row)[1]

    def _seq_of(self, receipt: str) -> int | None:
        """Where a receipt stands in the trail; None when it does not, or cannot be opened any more."""
        trail = self._core.trail
        assert trail is not None
        with self._core.database.begin() as tx:
            for seq in trail.newest(tx, event=Event.TRANSFER_RECEIPT):
                if any(item.name == "object_id" and item.value == f'"{receipt}"'.encode() for item in trail.openings(tx, seq)):
                    return seq
        return None

    def _acknowledge(self, signed: Signed[Receipt], seq: int) -> bytes:
        """The countersignature of a receipt that is entry ``seq``."""
        body, trail, now = signed.body, self._core.trail, self._core.clock.now()
        assert trail is not None
        with self._core.database.begin() as tx:
            note = trail.newest_checkpoint(tx)
            with reading("A checkpoint of the audit trail"):
                size_now = parse_note(note).checkpoint.size
            opening = next(item for item in trail.openings(tx, seq) if item.name == "object_id")
            proof = trail.inclusion(tx, seq, size_now)
            leaf = trail.leaf(tx, seq)
        answer = self._core.sign(
            ReceiptAck,
            transfer=body.transfer,
            receipt=signed.id,
            checkpoint=note,
            index=seq,
            leaf=b64encode(leaf),
            salt=b64encode(opening.salt),
            value=opening.value.decode(),
            proof=[item.hex() for item in proof],
        )
        with self._core.database.begin() as tx:
            statements.put(tx, answer, about=body.transfer, now=now)
        self._core.notices.publish("transfer", body.transfer)
        return answer.envelope

    def report(self, transfer: str) -> ReceivedInfo:
        """The verification report of an incoming transfer.

        Raises:
            InputError: ``report-none``.
        """
        with self._core.database.begin() as tx:
            row = transfers.transfer(tx, transfer)
        if row is None or not row.report:
            raise InputError("report-none", "There is no verification report for this transfer yet.")
        with reading("A verification report"):
            report = msgspec.msgpack.decode(row.report, type=Report)
        return ReceivedInfo(transfer=transfer, destination=row.destination.decode(errors="replace"), report=report)

    # --- showing ------------------------------------------------------------------------------------------------------
    def show(self, transfer: str) -> ReceiptInfo:
        """The best receipt of a transfer and its portable file.

        Raises:
            InputError: ``transfer-unknown``, ``receipt-none``.
            IntegrityError: ``database-damaged``.
        """
        with self._core.database.begin() as tx:
            found = [row for row in transfers.all_transfers(tx) if len(transfer) >= 6 and row.transfer.startswith(transfer)]
            if len(found) != 1:
                raise InputError("transfer-unknown", "There is no such transfer.", hint="`labxchange transfer list` shows them.")
            row = found[0]
            receipts = statements.about(tx, row.transfer, Receipt)
            acks = {ack.body.receipt: ack.envelope for ack in statements.about(tx, row.transfer, ReceiptAck)}
            share = rows.share(tx, row.share, row.version, owner=row.owner(self._core.me))
        if not receipts:
            raise InputError(
                "receipt-none", "There is no receipt for this transfer yet.", hint="It comes when everything arrived."
            )
        holds = best(receipts) or receipts[-1]
        ack = acks.get(holds.id)
        sender, recipient = (row.peer, self._core.me) if row.direction == "in" else (self._core.me, row.peer)
        body = holds.body
        return ReceiptInfo(
            transfer=row.transfer,
            level=body.level,
            verdict=body.verdict,
            findings=body.findings,
            title=share.title if share else "",
            sender=self._contacts.name(sender),
            recipient=self._contacts.name(recipient),
            files=body.counts.matched,
            bytes=body.bytes,
            reused_bytes=body.reused,
            root=body.root,
            finished=body.finished,
            receipt=holds.id,
            acknowledged=ack is not None,
            path=f"{body.path.route}, {body.path.plane}, {body.path.cipher}",
            file=self._file(holds, ack, sender=sender, recipient=recipient, share=share),
        )

    def page(self, transfer: str) -> ReceiptPage:
        """The best receipt of a transfer as a page; raises as ``show``."""
        return ReceiptPage(transfer=transfer, page=render(json.loads(self.show(transfer).file)).decode())

    def _file(self, receipt: Signed[Receipt], ack: bytes | None, *, sender: str, recipient: str, share: ShareRow | None) -> str:
        """The portable file; each statement in it is verified again."""
        body = receipt.body
        kinds: list[tuple[str, type[Statement]]] = [(body.offer, Offer), (body.grant, Grant), (body.accept, Accept)]
        if share is not None:
            kinds = [(share.statement, Share), (share.listing, Listing), (share.manifest, Manifest), *kinds]
        with self._core.database.begin() as tx:
            found: list[Signed[Any] | None] = [statements.find(tx, item, kind) for item, kind in kinds]
            found += statements.about(tx, body.transfer, Receipt)
        named = {
            "labxchange receipt": 1,
            "cards": [json.loads(self._card(key)) for key in (sender, recipient)],
            "statements": [json.loads(item.envelope) for item in found if item is not None and item.id != receipt.id],
            "receipt": json.loads(receipt.envelope),
        }
        if ack is not None:
            named["receipt-ack"] = json.loads(ack)
        return json.dumps(named, indent=1, ensure_ascii=False)

    def _card(self, key: str) -> bytes:
        if key == self._core.me:
            return self._core.require_card().envelope
        row = self._contacts.get(key)
        if row is None:
            raise damaged("A contact")
        people.card_of(row)
        return row.card


def _consistent(body: Receipt, loaded: Loaded) -> bool:
    """A receipt agrees with itself, with the listing and the manifest."""
    if loaded.manifest is None or body.root != loaded.manifest.body.root:
        return False
    counts, good = body.counts, body.verdict in ("complete", "match")
    bad = counts.differ + counts.missing + counts.error
    if (body.level == "delivered") != (body.verdict in ("complete", "incomplete")) or good != (bad == 0):
        return False
    if body.findings or body.follows:
        return False
    if body.reused > body.bytes or counts.unexpected or counts.matched + bad != len(loaded.files):
        return False
    if not good:
        return body.bytes <= loaded.line.bytes
    left_out = any(isinstance(item, str) for item in loaded.digests)
    return body.bytes == loaded.line.bytes and not left_out


def _report(loaded: Loaded, findings: Sequence[Finding], *, reused_bytes: int) -> Report:
    """The verification report of a finished download."""
    bad = {finding.path for finding in findings}
    kinds = [finding.kind for finding in findings]
    good = [file for file in loaded.files if file.path not in bad]
    left_out = sum(isinstance(item, str) for item in loaded.digests)
    not_run = (NotRun("unexpected files", "the destination may hold other files; `labxchange dataset verify` names them"),)
    size = sum(file.size for file in good)
    return Report(
        verdict=Verdict.NOT_INTACT if findings else Verdict.INTACT,
        matched=len(good),
        differ=kinds.count(FindingKind.DIFFER),
        missing=kinds.count(FindingKind.MISSING),
        unexpected=0,
        error=kinds.count(FindingKind.ERROR),
        left_out=left_out,
        bytes=size,
        findings=tuple(findings)[:1000],
        truncated=len(findings) > 1000,
        checks_run=_CHECKS,
        checks_not_run=not_run,
        reused_bytes=min(reused_bytes, size),
    )
