"""The sending side of transfers: answers contacts' requests, judges each by ``sharing.policy``, cuts what may not go on.

Every refusal is a signed statement with a code and a sentence, and an entry. A download slot is taken in the transaction that
writes ``transfer.started``; a resume of the same transfer by the same key is free. What was asked for is written down before it
is sent, so a slot returns only on this node's own evidence that no whole file went out.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from hashlib import sha256

from msgspec.structs import replace

from labxchange.audit.entry import Entry
from labxchange.audit.events import Event
from labxchange.encoding import frame
from labxchange.errors import IntegrityError, LabxchangeError, NodeLocked, PeerError, RefusedError
from labxchange.identity.statement import Signed, parse
from labxchange.net.channel import Channel, Stream
from labxchange.node.active import Active
from labxchange.node.answering import Answering, not_hashed
from labxchange.node.books import Books
from labxchange.node.budget import Budget, cost
from labxchange.node.bulk import Bulk
from labxchange.node.catalog import Catalog, Loaded, whole_files
from labxchange.node.contacts import Contacts
from labxchange.node.core import Core
from labxchange.node.denials import Denials
from labxchange.node.hashing import Hashing, origin_of
from labxchange.node.judging import Judging
from labxchange.node.receipts import Receipts
from labxchange.node.refusals import refusal_of
from labxchange.node.witnessing import STOPPED, Witnessing
from labxchange.settings import ANSWER_S, LANE_FETCH_BYTES
from labxchange.sharing.exchange import Accept, Cut
from labxchange.sharing.policy import Deny
from labxchange.store import shares as rows
from labxchange.store import statements, tables, transfers
from labxchange.store.people import Contact
from labxchange.store.shares import GrantRow, ShareRow
from labxchange.store.transfers import TransferRow
from labxchange.transfer.intervals import count
from labxchange.transfer.send import Source, checked_intervals, send_chunks
from labxchange.wire.control import messages
from labxchange.wire.control.messages import (
    GONE_MAX,
    Accepting,
    Begin,
    Deliver,
    Fetch,
    Fetched,
    GetDigests,
    GetPage,
    Gone,
    Nonce,
    OpenLanes,
    Refused,
    Started,
    Taken,
    Waiting,
    Witness,
    decode,
    decode_request,
    encode,
)

log = logging.getLogger("labxchange")
_WATCH_S = 0.5
_AWAY_TURNS = 10
"""Transfers that nobody fetches from are judged each so many turns of the watch, and at once when a person acts."""
_IDLE_S = 60.0
_NAMED_MAX = 100
_BEGIN_COST = 4
_ACTIVE_MAX = 1000
_NOTED_MAX = 10_000


class _NotPermitted(RefusedError):
    """A rule of this node ends a transfer that runs; what the other side refuses is another matter."""


class Serving:
    """Answers requests.

    Args:
        take: reads one delivered statement; returns statements in reply.
        ready: told that a contact is there, and how many offers wait at theirs (0 when they said nothing of it).
    """

    def __init__(
        self,
        core: Core,
        contacts: Contacts,
        denials: Denials,
        catalog: Catalog,
        hashing: Hashing,
        books: Books,
        receipts: Receipts,
        witnessing: Witnessing,
        *,
        budget: Budget,
        bulk: Bulk,
        take: Callable[[str, bytes], list[bytes]],
        ready: Callable[[str, int], None],
    ) -> None:
        self._core = core
        self._budget = budget
        self._bulk = bulk
        self._contacts = contacts
        self._denials = denials
        self._catalog = catalog
        self._books = books
        self._receipts = receipts
        self._witnessing = witnessing
        self._take = take
        self._ready = ready
        self._active: dict[str, Active] = {}
        self._beginning: dict[tuple[Channel, str], asyncio.Future[None]] = {}
        self._judging = Judging(core, contacts, denials)
        self._answering = Answering(core, catalog, hashing, self._judging)
        self._waiting: dict[str, int] = {}

    def waiting_from(self, key: str) -> int:
        """How many offers a contact who has not verified us yet said to have for us."""
        return self._waiting.get(key, 0)

    def sent_bytes(self, transfer: str) -> int:
        active = self._active.get(transfer)
        return active.sent_bytes if active else 0

    # --- the door -----------------------------------------------------------------------------------------------------
    async def handle(self, channel: Channel, stream: Stream) -> None:
        """Answer one stream of a contact."""
        key = channel.peer_key.hex()
        request = decode_request(await stream.receive(ANSWER_S) or b"")
        try:
            row = self._welcome(key, request)
            await self._dispatch(request, channel, stream, row)
        except (RefusedError, IntegrityError, NodeLocked) as error:
            await self._refuse(stream, error, key, type(request).__name__)

    def _welcome(self, key: str, request: messages.Request) -> Contact:
        """Only verified contacts whose trail is in order get past ``Waiting``."""
        row = self._contacts.get(key)
        if row is None or row.state == "blocked":
            raise RefusedError("contact-blocked", "The connection is refused.")
        if isinstance(request, Waiting):
            return row
        if row.state != "verified":
            raise RefusedError(
                "contact-unverified",
                "The other side has not verified who you are yet.",
                hint="Read your six words to them over the telephone; they are in `labxchange key show`.",
            )
        if row.trail in STOPPED and not isinstance(request, Witness):
            raise RefusedError("trail-stopped", "Your audit trail contradicts what was seen of it; a person must decide first.")
        return row

    async def _dispatch(self, request: messages.Request, channel: Channel, stream: Stream, row: Contact) -> None:
        match request:
            case Waiting():
                self._budget.spend(row.key)  # it may set both nodes to work
                self._waiting[row.key] = request.offers
                await stream.send(encode(Taken()), end=True)
                self._ready(row.key, request.offers)
            case Deliver():
                self._budget.spend(row.key, sum(cost(envelope) for envelope in request.statements))
                self._waiting.pop(row.key, None)
                replies = [reply for envelope in request.statements for reply in self._take(row.key, envelope)]
                await stream.send(encode(Taken(statements=replies)), end=True)
            case Witness():
                self._budget.spend(row.key)
                await self._witnessing.answer(channel, stream, request)
            case GetPage():
                await self._answering.page(stream, row, request)
            case GetDigests():
                await self._answering.digests(stream, row, request)
            case Begin():
                self._budget.spend(row.key, _BEGIN_COST)
                await self._begin(channel, stream, row, request)
            case Fetch():
                await self._fetch(stream, row, request)
            case OpenLanes():
                await self._open_lanes(channel, stream, row, request)

    async def _refuse(self, stream: Stream, error: LabxchangeError, key: str, request: str) -> None:
        self._denials.note(error.code, key)
        if self._core.identity is None:
            stream.reset()
            return
        refusal = refusal_of(self._core, error, to=key, request=request)
        await stream.send(encode(Refused(statement=refusal.envelope)), end=True)

    # --- start --------------------------------------------------------------------------------------------------------
    async def _begin(self, channel: Channel, stream: Stream, row: Contact, request: Begin) -> None:
        """The recipient asks for lanes as soon as its accept is on its way; those wait for what comes of it."""
        begun = self._beginning[channel, request.transfer] = asyncio.get_running_loop().create_future()
        try:
            await self._agree(channel, stream, row, request)
        finally:
            self._beginning.pop((channel, request.transfer), None)
            begun.set_result(None)

    async def _agree(self, channel: Channel, stream: Stream, row: Contact, request: Begin) -> None:
        nonce = self._core.random_bytes(32)
        await stream.send(encode(Nonce(nonce=nonce)))
        accepting = decode(await stream.receive(ANSWER_S), Accepting)
        accept = parse(accepting.statement, Accept)
        body = accept.body
        proof = possession_proof(nonce, channel.th2)
        if body.issuer != row.key or body.transfer != request.transfer or body.proof != proof:
            raise PeerError("proof-wrong", "The other node did not prove that it may start this transfer.")
        self._witnessing.check_note(channel, body.checkpoint)
        with self._core.database.begin() as tx:
            offered = rows.grant_offered(tx, self._core.me, body.offer, row.key)
            known = transfers.transfer(tx, body.transfer)
        if known is not None and known.state == "completed":
            raise RefusedError("transfer-over", "This transfer is complete.", hint="Receive the share again to have it twice.")
        if offered is None:
            raise RefusedError("grant-unknown", "There is no such offer.", hint="Ask the sender to share it again.")
        share = self._judging.share(offered.share, offered.version)
        if share.listing != body.listing:
            raise RefusedError("share-failed", "The offer is about another listing.", hint="Ask the sender to share it again.")
        self._answering.known(share)
        grant = self._judging.allowed(row, "start", share.share, share.version, body.transfer)
        self._start(row, share, grant, accept)
        manifest = self._catalog.load(share).manifest
        await stream.send(encode(Started(manifest=manifest.envelope if manifest is not None else b"")), end=True)
        self._core.notices.publish("transfer", body.transfer)

    def _start(self, row: Contact, share: ShareRow, grant: GrantRow, accept: Signed[Accept]) -> None:
        """One transaction: the slot, the transfer, the entries."""
        transfer, now = accept.body.transfer, self._core.clock.now()
        with self._core.database.begin() as tx:
            known = transfers.transfer(tx, transfer)
        base = Entry(
            event=Event.TRANSFER_ACCEPTED,
            object_type="transfer",
            object_id=transfer,
            object_digest=accept.id,
            dataset=share.share,
            who=self._judging.peer_who(row),
            counterparty=row.key,
            counterparty_name=row.name,
        )
        base = self._receipts.scoped(base, share)
        reserved = replace(base, event=Event.DOWNLOAD_RESERVED, object_type="grant", object_id=grant.grant, object_digest="")
        if known is not None:
            entries = [replace(base, event=Event.TRANSFER_RESUMED)] + ([reserved] if known.slot == "returned" else [])
            slot = "reserved" if known.slot == "returned" else known.slot
            fresh = replace(known, state="running", reason="", slot=slot)
        else:
            entries = [base, reserved, replace(base, event=Event.TRANSFER_STARTED, object_digest=share.manifest or share.listing)]
            fresh = TransferRow(
                transfer=transfer,
                direction="out",
                peer=row.key,
                share=share.share,
                version=share.version,
                grant=grant.grant,
                state="running",
                slot="reserved",
                started_ms=now,
            )
        with self._core.act(*entries) as tx:
            statements.put(tx, accept, about=transfer, now=now)
            transfers.put_transfer(tx, fresh)
        active = self._active.get(transfer)
        if active is not None:  # what is being sent stays within reach of a cut
            active.row = fresh
            return
        self._activate(fresh, share)

    def _activate(self, row: TransferRow, share: ShareRow) -> Active:
        idle = [item for item in self._active.values() if item.row.peer == row.peer and not item.tasks]
        for oldest in idle[: -_ACTIVE_MAX + 1]:
            del self._active[oldest.row.transfer]
        origin = origin_of(share)
        used = asyncio.get_running_loop().time()
        active = self._active[row.transfer] = Active(row=row, loaded=self._catalog.load(share), origin=origin, used=used)
        return active

    def _running(self, key: str, transfer: str) -> Active | None:
        """The transfer that this contact fetches from; taken up again after it was idle."""
        active = self._active.get(transfer)
        if active is None:
            with self._core.database.begin() as tx:
                known = transfers.transfer(tx, transfer)
            if known is None or (known.direction, known.state, known.peer) != ("out", "running", key):
                return None
            active = self._activate(known, self._judging.share(known.share, known.version))
        return active if active.row.peer == key and not active.stopped else None

    # --- bytes --------------------------------------------------------------------------------------------------------
    async def _fetch(self, stream: Stream, row: Contact, request: Fetch) -> None:
        active = self._running(row.key, request.transfer)
        if active is None:
            raise RefusedError("transfer-unknown", "This transfer is not running.", hint="Resume it.")
        checked_intervals(request.chunks, active.loaded.line, limit=LANE_FETCH_BYTES)
        digests = self._digests(active, request)
        task = asyncio.current_task()
        assert task is not None
        active.tasks.add(task)
        source = Source(
            active.origin.sources,
            active.loaded.files,
            active.loaded.line,
            digests,
            gone=active.gone,
        )
        try:
            self._permit(row, active)
            self._note(active, request)
            if request.lane:
                await self._fetch_over_lane(stream, active, request)
                return
            active.pace = pace = self._bulk.pace(request.transfer)
            await send_chunks(
                stream,
                source,
                request.chunks,
                pace=pace,
                permitted=lambda: self._permit_quickly(active),
                sent=lambda size: self._count(active, size),
            )
        except _NotPermitted as error:
            cut = self._end(active, error.code)
            await stream.send(encode(Refused(statement=cut.envelope)), end=True)
        except RefusedError:  # the other side wants nothing more, on this stream or at all
            stream.reset()
        except asyncio.CancelledError:
            if active.cut is None and not active.stopped:
                raise
            stream.reset()
        finally:
            active.tasks.discard(task)
            active.used = asyncio.get_running_loop().time()
            source.close()
            if len(active.gone) > active.told:
                self._name_gone(active)

    async def _fetch_over_lane(self, stream: Stream, active: Active, request: Fetch) -> None:
        lanes = next((lanes for lanes in active.lanes if lanes.has(request.lane)), None)
        if lanes is None:
            raise RefusedError("lane-closed", "The lane is not open.")
        gone = await lanes.send(request.lane, request.chunks)
        self._permit_quickly(active)
        line = active.loaded.line
        self._count(active, sum(line.span(first, last) for first, last in request.chunks))
        for file, reason in gone:
            active.gone.setdefault(file, reason)
        await stream.send(encode(Fetched(gone=[Gone(file, reason) for file, reason in gone[:GONE_MAX]])), end=True)

    async def _open_lanes(self, channel: Channel, stream: Stream, row: Contact, request: OpenLanes) -> None:
        """Open as long as the recipient keeps the stream open and the transfer may go on."""
        begun = self._beginning.get((channel, request.transfer))
        if begun is not None:
            await asyncio.wait({begun}, timeout=ANSWER_S)
        active = self._running(row.key, request.transfer)
        if active is None and begun is not None:  # why is said there
            stream.reset()
            return
        if active is None:
            raise RefusedError("transfer-unknown", "This transfer is not running.", hint="Resume it.")
        task = asyncio.current_task()
        assert task is not None
        active.tasks.add(task)
        try:
            self._permit(row, active)
            await self._bulk.serve(
                channel, stream, request, loaded=active.loaded, sources=active.origin.sources, opened=active.lanes
            )
        except _NotPermitted as error:
            cut = self._end(active, error.code)
            await stream.send(encode(Refused(statement=cut.envelope)), end=True)
        except asyncio.CancelledError:
            if active.cut is None and not active.stopped:
                raise
            stream.reset()
        finally:
            active.tasks.discard(task)
            active.used = asyncio.get_running_loop().time()

    def _digests(self, active: Active, request: Fetch) -> memoryview:
        """By which what is read is checked. A recipient may know of more chunks than this node, which was restarted meanwhile."""
        share = self._judging.share(active.row.share, active.row.version)
        if active.loaded.manifest is None and share.manifest:
            active.loaded = self._catalog.load(share)
        known = self._answering.known(share)
        if not known.hold(request.chunks):
            raise not_hashed(share)
        return known.view

    def _note(self, active: Active, request: Fetch) -> None:
        """Write down what will be sent, in few rows however often it is asked for."""
        active.noted += len(request.chunks)
        with self._core.database.begin() as tx:
            transfers.add_arrived(tx, request.transfer, list(request.chunks))
            if active.noted > _NOTED_MAX:
                transfers.replace_arrived(tx, request.transfer, transfers.arrived_chunks(tx, request.transfer))
                active.noted = 0

    def _count(self, active: Active, size: int) -> None:
        active.sent_bytes += size

    def _permit(self, row: Contact, active: Active) -> None:
        answer, _ = self._judging.judge(row, "read", active.row.share, active.row.version, active.row.transfer)
        if isinstance(answer, Deny):
            raise _NotPermitted(answer.code, answer.sentence, hint=answer.hint)

    def _permit_quickly(self, active: Active) -> None:
        if active.cut is not None:
            raise _NotPermitted(active.cut.body.code, "The transfer was ended.")

    def _name_gone(self, active: Active) -> None:
        """Files that changed since they were listed: each named once in the trail, or counted where they are many."""
        fresh = list(active.gone.items())[active.told :]
        active.told = len(active.gone)
        base = replace(self._receipts.entry(Event.TRANSFER_SOURCE_CHANGED, active.row), result="error")
        entries = [
            replace(base, result_code=reason, new=active.loaded.files[file].path[:1000]) for file, reason in fresh[:_NAMED_MAX]
        ]
        if len(fresh) > _NAMED_MAX:
            entries.append(replace(base, result_code="and-more", details={"files": len(fresh) - _NAMED_MAX}))
        self._core.record(*entries)

    # --- ending -------------------------------------------------------------------------------------------------------
    async def watch(self) -> None:
        """Judge running transfers twice a second, so an end, a revocation or a block acts within a second; those that wait for
        their recipient now and then. What cannot be judged is not sent."""
        turn = 0
        while True:
            await asyncio.sleep(_WATCH_S)
            turn += 1
            for active in list(self._active.values()):
                try:
                    if active.cut is None and active.row.state == "running":
                        self._rejudge(active)
                    self._drop_idle(active)
                except Exception:
                    if not active.stopped or active.tasks:
                        log.exception("transfer %s cannot be judged, so nothing of it is sent", active.row.transfer)
                    self._stop(active)
            if turn % _AWAY_TURNS == 0 and self._core.identity is not None:
                try:
                    self._judge_away()
                except Exception:
                    log.exception("the transfers that wait cannot be judged")

    def _stop(self, active: Active) -> None:
        active.stopped = True
        for lanes in active.lanes:
            lanes.close()
        for task in list(active.tasks):
            task.cancel()

    def _drop_idle(self, active: Active) -> None:
        """Its lists take memory, and are there again as soon as something is fetched."""
        if not active.tasks and asyncio.get_running_loop().time() - active.used > _IDLE_S:
            self._active.pop(active.row.transfer, None)

    def _judge_away(self, *, grant: str = "", peer: str = "") -> None:
        """Judge the transfers, as they are kept, that nobody fetches from: all, or those of a grant or a contact."""
        table = tables.transfers.c
        where = [table.direction == "out", table.state.in_(("running", "waiting"))]
        where += [table.grant == grant] if grant else []
        where += [table.peer == peer] if peer else []
        with self._core.database.begin() as tx:
            found = [row for row in transfers.all_transfers(tx, *where) if row.transfer not in self._active]
        for row in found:
            code = self._judging.over(row)
            if code:
                self._cut(row, self._catalog.load(self._judging.share(row.share, row.version)), code)

    def judge_grant(self, grant: str) -> None:
        """A grant changed: judge its transfers now."""
        for active in list(self._active.values()):
            if active.row.grant == grant and active.cut is None:
                self._rejudge(active)
        self._judge_away(grant=grant)

    def judge_contact(self, key: str) -> None:
        """A contact was blocked: judge their transfers now."""
        for active in list(self._active.values()):
            if active.row.peer == key and active.cut is None:
                self._rejudge(active)
        self._judge_away(peer=key)

    def _rejudge(self, active: Active) -> None:
        row = self._contacts.get(active.row.peer)
        assert row is not None
        try:
            self._permit(row, active)
            active.stopped = False
        except _NotPermitted as error:
            self._stop(active)  # first: it holds also where nothing can be recorded
            self._end(active, error.code)

    def _end(self, active: Active, code: str) -> Signed[Cut]:
        """End a transfer that is fetched from."""
        for lanes in active.lanes:
            lanes.close()
        if active.cut is None:
            active.cut, active.row = self._cut(active.row, active.loaded, code)
            if self._active.get(active.row.transfer) is active:
                del self._active[active.row.transfer]
        return active.cut

    def _cut(self, row: TransferRow, loaded: Loaded, code: str) -> tuple[Signed[Cut], TransferRow]:
        """End a transfer by a rule: say exactly what was sent, give the slot back when no whole file was, tell the peer."""
        transfer = row.transfer
        with self._core.database.begin() as tx:
            sent = transfers.arrived_chunks(tx, transfer)
        files, size = whole_files(loaded, sent)
        cut = self._core.sign(
            Cut,
            transfer=transfer,
            code=code,
            side="sender",
            files=files,
            bytes=size,
            arrived=sent[:1000],
            more=count(sent[1000:]),
        )
        entry = replace(
            self._receipts.entry(Event.TRANSFER_CUT, row),
            object_digest=cut.id,
            result="denied",
            result_code=code,
            details={"files": files, "bytes": size},
        )
        returned = row.slot == "reserved" and self._books.nothing_whole_sent(row)
        entries = [entry]
        if returned:
            entries.append(
                replace(
                    entry,
                    event=Event.DOWNLOAD_RETURNED,
                    object_type="grant",
                    object_id=row.grant,
                    object_digest="",
                    result="ok",
                )
            )
        row = replace(row, state="cut", reason=code, slot="returned" if returned else row.slot)
        with self._core.act(*entries) as tx:
            statements.put(tx, cut, about=transfer, now=self._core.clock.now())
            statements.post(tx, row.peer, cut.id)
            transfers.put_transfer(tx, row)
        self._core.notices.publish("transfer", transfer)
        self._ready(row.peer, 0)
        return cut, row

    def peer_left(self, key: str) -> None:
        """The contact is gone: their transfers wait for them."""
        for transfer, active in list(self._active.items()):
            if active.row.peer == key:
                del self._active[transfer]
        with self._core.database.begin() as tx:
            running = [row for row in transfers.of_peer(tx, key) if row.direction == "out" and row.state == "running"]
        for row in running:
            self._set_waiting(row.transfer)

    def has_work(self, key: str) -> bool:
        """True while a transfer waits for this contact and its grant still runs."""
        now = self._core.clock.now()
        with self._core.database.begin() as tx:
            waiting = [row for row in transfers.of_peer(tx, key) if row.direction == "out" and row.state == "waiting"]
            granted = [rows.grant(tx, row.grant, owner=self._core.me) for row in waiting]
        return any(grant is not None and not grant.ended and grant.not_after > now for grant in granted)

    def forget_running(self) -> None:
        """At start: what ran when the node ended waits for its recipient."""
        with self._core.database.begin() as tx:
            running = [row for row in transfers.all_transfers(tx) if row.direction == "out" and row.state == "running"]
        for row in running:
            self._set_waiting(row.transfer)

    def _set_waiting(self, transfer: str) -> None:
        with self._core.database.begin() as tx:
            row = transfers.transfer(tx, transfer)
            if row is not None and row.state == "running":
                transfers.put_transfer(tx, replace(row, state="waiting"))
        self._core.notices.publish("transfer", transfer)

    def finished(self, transfer: str) -> None:
        """The receipt is there, or the recipient gave up: nothing more is sent."""
        active = self._active.pop(transfer, None)
        for task in list(active.tasks) if active else ():
            task.cancel()


def possession_proof(nonce: bytes, th2: bytes) -> str:
    """What the accept statement holds to prove possession of the key in this very session."""
    return sha256(frame("labxchange accept v1", nonce, th2)).hexdigest()
