"""The receiving side of transfers: accept an offer, fetch with whoever is connected, wait when the sender is away, sign receipts.

Life of an incoming transfer: accepted -> running <-> waiting (sender away, tried again) or paused -> verified -> completed (the
sender countersigned), or cut (a rule of the sender ended it; it goes on when the grant allows again), failed, cancelled. It is
kept over restarts and crashes; what the journal holds never comes again. Only a signed statement of the sender, or the end of
the grant, ends a transfer; trouble with the connection, and whatever else goes wrong here, waits and is tried again. Reports and
receipts are made in ``receipts``, attempts in ``attempt``.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import msgspec
from msgspec.structs import replace

from labxchange.audit.entry import Entry
from labxchange.audit.events import Event
from labxchange.dataset.names import escape
from labxchange.errors import InputError, IntegrityError, LabxchangeError, PeerError, RefusedError, UnavailableError
from labxchange.files.disk_errors import mapped
from labxchange.files.quarantine import Quarantine
from labxchange.net.channel import Channel
from labxchange.node.asking import Asking
from labxchange.node.attempt import Attempts, path_of
from labxchange.node.bulk import Bulk
from labxchange.node.catalog import Catalog
from labxchange.node.contacts import Contacts
from labxchange.node.core import Core
from labxchange.node.inbox import Inbox
from labxchange.node.receipts import Receipts
from labxchange.node.refusals import Stated
from labxchange.settings import RETRY_FIRST_S, RETRY_LAST_S
from labxchange.sharing.exchange import Accept, Cut
from labxchange.store import shares as rows
from labxchange.store import statements, transfers
from labxchange.store.shares import ShareRow
from labxchange.store.transfers import Limits, State, TransferRow
from labxchange.transfer.intervals import count
from labxchange.transfer.receive import Download

log = logging.getLogger("labxchange")
LIVE = ("waiting", "running")
_FINAL_CODES = frozenset(
    {
        "hostile-name",
        "name-collision",
        "share-retracted",
        "not-a-recipient",
        "grant-unknown",
        "downloads-exhausted",
        "right-missing",
    }
)

_CANCELLABLE = ("waiting", "running", "paused", "cut", "failed")
_WAIT_CODES = frozenset(
    {
        *("contact-unverified", "clock-in-doubt", "grant-not-yet-valid", "trail-stopped", "manifest-not-ready"),
        *("transfer-unknown", "too-much-at-once", "too-many-connections", "node-stopping", "stream-stopped"),
    }
)
"""Refusals that pass by themselves: the transfer waits."""


class _Running(msgspec.Struct, kw_only=True):
    """A transfer that has a task; ``samples`` of (loop time, verified bytes) give the rate; ``ended`` is the code with which the
    sender's statement ended it, ``again`` that the sender is to be asked anew, ``halting`` that a person stops it. A task
    that has not ``begun`` looks at these first, and is not cancelled: it would end before its first line."""

    task: asyncio.Task[None]
    begun: bool = False
    download: Download | None = None
    samples: list[tuple[float, int]] = []
    ended: str = ""
    again: bool = False
    halting: bool = False


class Receiving:
    """Incoming transfers of this node.

    Args:
        connect: gives a channel to a contact, or raises.
        wake: called when something was posted for a contact.
    """

    def __init__(
        self,
        core: Core,
        contacts: Contacts,
        catalog: Catalog,
        inbox: Inbox,
        receipts: Receipts,
        bulk: Bulk,
        *,
        connect: Callable[[str], Awaitable[Channel]],
        wake: Callable[[str], None],
    ) -> None:
        self._core = core
        self._contacts = contacts
        self._catalog = catalog
        self._inbox = inbox
        self._receipts = receipts
        self._bulk = bulk
        self._attempts = Attempts(core, catalog, Asking(core, catalog, inbox), receipts, bulk, self)
        self._connect = connect
        self.wake = wake
        self._running: dict[str, _Running] = {}
        self._nudges: dict[str, asyncio.Event] = {}
        self._locks: dict[str, asyncio.Lock] = {}

    # --- verbs --------------------------------------------------------------------------------------------------------
    def receive(self, text: str, *, limits: Limits, sender: str = "", destination: str = "") -> TransferRow:
        """Start, or go on with, receiving an offer; ``limits`` are for one that begins.

        Raises:
            InputError: of ``Inbox.find``; ``contact-unverified``, ``already-received``, ``destination-unusable``.
        """
        self._core.require()
        grant = self._inbox.find(text, sender=sender)
        contact = self._contacts.get(grant.owner)
        if contact is None or contact.state != "verified":
            raise InputError(
                "contact-unverified",
                "You have not verified who the sender is.",
                hint="Ask for their six words over the telephone, then `labxchange contact verify`.",
            )
        with self._core.database.begin() as tx:
            known = [row for row in transfers.incoming_of(tx, grant.grant, owner=grant.owner) if row.state != "cancelled"]
            share = rows.share(tx, grant.share, grant.version, owner=grant.owner)
        assert share is not None
        if known and known[-1].state in ("verified", "completed"):
            raise InputError(
                "already-received",
                f"You have this share already, in {escape(_path_text(known[-1].destination))}.",
                hint=f"Its receipt: `labxchange receipt show {known[-1].transfer[:12]}`.",
            )
        folder = self._folder(destination, share)
        if known and (known[-1].state != "failed" or not destination or folder == path_of(known[-1])):
            return self.resume(known[-1].transfer)
        row = TransferRow(
            transfer=self._core.random_bytes(16).hex(),
            direction="in",
            peer=grant.owner,
            share=grant.share,
            version=grant.version,
            grant=grant.grant,
            state="waiting",
            destination=str(folder).encode(errors="surrogateescape"),
            started_ms=self._core.clock.now(),
        )
        limits = replace(limits, transfer=row.transfer)
        chosen = str(limits) if limits != Limits(transfer=row.transfer) else ""
        with self._core.act(self.entry(Event.TRANSFER_ACCEPTED, row, who=self._core.who(), new=chosen)) as tx:
            transfers.put_transfer(tx, row)
            if chosen:
                transfers.put_limits(tx, limits)
        self._spawn(row)
        return row

    def _folder(self, destination: str, share: ShareRow) -> Path:
        if destination:
            folder = Path(destination).expanduser()
            if not folder.is_absolute() or (folder.exists() and not folder.is_dir()):
                raise InputError(
                    "destination-unusable", "The destination is not a folder.", hint="Name a folder, new or existing."
                )
            return folder
        name = (
            "".join(letter if letter.isalnum() or letter in "-_. " else "-" for letter in share.title[:50]).strip(". ") or "share"
        )
        return self._core.home.inbox / f"{name}-v{share.version}-{share.share[:6]}"

    def resume(self, transfer: str) -> TransferRow:
        """Go on with a paused, waiting, cut or failed transfer.

        Raises:
            InputError: ``transfer-unknown``, ``transfer-over``.
        """
        row = self.row(transfer)
        running = self._running.get(row.transfer)
        if row.state in ("verified", "completed", "cancelled"):
            raise InputError("transfer-over", f"This transfer is {row.state}.")
        if running is not None and running.halting and not running.task.done():
            raise InputError("transfer-stopping", "This transfer is just being stopped.", hint="Try again in a moment.")
        if row.state not in LIVE:
            row = self.move(row, "waiting", Event.TRANSFER_RESUMED, who=self._core.who())
        self.nudge(row.peer)
        self._spawn(row)
        return row

    async def pause(self, transfer: str) -> TransferRow:
        """Stop fetching; nothing verified is lost."""
        transfer = self.row(transfer).transfer
        async with self._lock(transfer):
            row = self._stoppable(transfer, LIVE)
            await self._halt(transfer)
            row = self._stoppable(transfer, LIVE)
            return self.move(row, "paused", Event.TRANSFER_PAUSED, who=self._core.who())

    async def cancel(self, transfer: str) -> TransferRow:
        """Give a transfer up: what was not released is removed, and the sender is told what had arrived."""
        self._core.require()
        transfer = self.row(transfer).transfer
        async with self._lock(transfer):
            self._stoppable(transfer, _CANCELLABLE)
            await self._halt(transfer)
            row = self._stoppable(transfer, _CANCELLABLE)
            who = self._core.who()
            deleted = self.entry(Event.FILE_DELETED, row, who=who, object_type="file", reason_code="cancelled")
            row = self._cut(row, "cancelled", state="cancelled", event=Event.TRANSFER_FAILED, also=[deleted], who=who)
            with contextlib.suppress(LabxchangeError):
                quarantine = Quarantine(path_of(row), row.transfer)
                await asyncio.to_thread(quarantine.discard)
        return row

    def _lock(self, transfer: str) -> asyncio.Lock:
        """Only one person at a time stops a transfer."""
        return self._locks.setdefault(transfer, asyncio.Lock())

    def _stoppable(self, transfer: str, states: Sequence[str]) -> TransferRow:
        """The row, when it is in one of these states; asked again after each wait."""
        row = self.row(transfer)
        if row.state not in states:
            code = "transfer-over" if row.state not in _CANCELLABLE else "transfer-not-running"
            raise InputError(code, f"This transfer is {row.state}.")
        return row

    def row(self, transfer: str) -> TransferRow:
        with self._core.database.begin() as tx:
            found = [row for row in transfers.all_transfers(tx) if len(transfer) >= 6 and row.transfer.startswith(transfer)]
        if len(found) != 1:
            raise InputError(
                "transfer-unknown", f"There is no transfer {escape(transfer)!r}.", hint="`labxchange transfer list`."
            )
        if found[0].direction != "in":
            raise InputError(
                "transfer-foreign", "Only the recipient can pause, resume or cancel.", hint="To end it: `share revoke`."
            )
        return found[0]

    # --- state --------------------------------------------------------------------------------------------------------
    def entry(self, event: Event, row: TransferRow, **fields: object) -> Entry:
        with self._core.database.begin() as tx:
            share = rows.share(tx, row.share, row.version, owner=row.peer)
        base = Entry(
            event=event,
            object_type="transfer",
            object_id=row.transfer,
            dataset=row.share,
            who=self._core.who(actor="program"),
            counterparty=row.peer,
            counterparty_name=self._contacts.name(row.peer),
        )
        if share is not None:
            base = self._receipts.scoped(base, share)
        return replace(base, **fields)

    def move(self, row: TransferRow, state: str, event: Event, *, code: str = "", **fields: object) -> TransferRow:
        """One transition: entry and row together."""
        fresh = replace(row, state=state, reason=code)
        if code:
            fields |= {"result": "error", "result_code": code}
        with self._core.act(self.entry(event, row, **fields)) as tx:
            transfers.put_transfer(tx, fresh)
        self._core.notices.publish("transfer", row.transfer)
        return fresh

    def has_work(self, key: str) -> bool:
        with self._core.database.begin() as tx:
            return any(row.direction == "in" and row.state in LIVE for row in transfers.of_peer(tx, key))

    def resume_all(self) -> None:
        """At start: every transfer that was under way."""
        with self._core.database.begin() as tx:
            live = [row for row in transfers.incoming(tx) if row.state in LIVE]
            for row in live:
                transfers.put_transfer(tx, replace(row, state="waiting"))  # nothing runs yet, whatever ran before
        for row in live:
            self._spawn(row)

    def nudge(self, key: str) -> None:
        """The contact may be there again: try now."""
        self._nudges.setdefault(key, asyncio.Event()).set()

    def grant_changed(self, grant: str, *, owner: str) -> None:
        """A grant was extended: go on with what it had ended."""
        with self._core.database.begin() as tx:
            cut = [row for row in transfers.incoming_of(tx, grant, owner=owner) if row.state == "cut"]
        for row in cut:
            with contextlib.suppress(InputError):  # a person is giving it up
                self.resume(row.transfer)

    def grant_ended(self, grant: str, code: str, *, owner: str) -> None:
        """The sender ended a grant: what runs under it stops, and says exactly what had arrived."""
        with self._core.database.begin() as tx:
            live = [row for row in transfers.incoming_of(tx, grant, owner=owner) if row.state in LIVE]
        for row in live:
            running = self._running.get(row.transfer)
            if running is None or running.task.done():
                self._end(row.transfer, Stated(code, "The sender ended the grant."))
            elif not running.ended:
                running.ended = code
                if running.begun:
                    running.task.cancel()

    def cut_told(self, transfer: str) -> None:
        """The sender's cut came: ask whether it still holds. It may have waited for delivery while the transfer was resumed."""
        row = self.row(transfer)
        running = self._running.get(transfer)
        if row.state not in LIVE:
            return
        if running is not None and not running.task.done() and running.download is not None:
            running.again = True
            running.task.cancel()
        else:
            self.nudge(row.peer)
            self._spawn(row)

    def live(self, transfer: str) -> tuple[Download | None, list[tuple[float, int]]]:
        """The running download and its rate samples, for display."""
        running = self._running.get(transfer)
        return (running.download, running.samples) if running else (None, [])

    # --- the task of one transfer -------------------------------------------------------------------------------------
    def _spawn(self, row: TransferRow) -> None:
        running = self._running.get(row.transfer)
        if running is None or running.task.done():
            task = asyncio.ensure_future(self._follow(row.transfer))
            begun = self._running[row.transfer] = _Running(task=task)
            task.add_done_callback(lambda _: self._forget(row.transfer, begun))

    def _forget(self, transfer: str, running: _Running) -> None:
        """Its task has ended: the lists of files and digests that it held are not kept with it."""
        if self._running.get(transfer) is running:
            del self._running[transfer]

    async def _halt(self, transfer: str) -> None:
        """Stop the task; it stands as halting until it has ended, so none is started beside it."""
        running = self._running.get(transfer)
        if running is not None:
            running.halting = True
            running.task.cancel()
            await asyncio.gather(running.task, return_exceptions=True)
            self._forget(transfer, running)

    async def _follow(self, transfer: str) -> None:
        """Until the transfer is over, also when the sender's statement ends it in the middle, and whatever else goes wrong: an
        error that nobody foresaw is logged and shown, and all is tried again later."""
        pause = 0.0
        self._running[transfer].begun = True
        while True:
            try:
                await asyncio.sleep(pause)
                await self._persist(transfer)
                return
            except asyncio.CancelledError:
                running, task = self._running.get(transfer), asyncio.current_task()
                if running is None or task is None or running.halting or not (running.ended or running.again):
                    raise
                task.uncancel()
                running.again, running.download, pause = False, None, 0.0
            except Exception as error:
                log.exception("transfer %s met trouble and is tried again", transfer)
                pause = min(max(2 * pause, RETRY_FIRST_S), RETRY_LAST_S)
                code = error.code if isinstance(error, LabxchangeError) else "unexpected-error"
                with contextlib.suppress(Exception):  # it can be the database itself that fails
                    self._wait(transfer, UnavailableError(code, "Something went wrong here; it is tried again."))

    async def _persist(self, transfer: str) -> None:
        """Connect, fetch, and when the sender is away wait and try again."""
        delay = RETRY_FIRST_S
        while True:
            row = self.row(transfer)
            if row.state not in LIVE:
                return
            running = self._running.get(transfer)
            if running is not None and running.ended:
                self._end(transfer, Stated(running.ended, "The sender ended the grant."))
                return
            if self._grant_over(row):
                self._cut(row, "grant-expired")
                return
            nudge = self._nudges.setdefault(row.peer, asyncio.Event())
            nudge.clear()
            before = row.done_bytes
            try:
                await self._attempts.make(row, await self._connect(row.peer))
                return
            except (Stated, IntegrityError, InputError) as error:
                if self._end(transfer, error):
                    return
            except (UnavailableError, PeerError, RefusedError, OSError) as error:
                trouble = mapped(error, _path_text(row.destination)) if isinstance(error, OSError) else error
                if isinstance(trouble, UnavailableError) and trouble.code in ("disk-full", "disk-error", "flush-failed"):
                    self.move(self.row(transfer), "paused", Event.TRANSFER_PAUSED, code=trouble.code)
                    return
                self._wait(transfer, trouble)
            if self.row(transfer).done_bytes > before:
                delay = RETRY_FIRST_S
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(nudge.wait(), delay)
            delay = min(2 * delay, RETRY_LAST_S)

    def _grant_over(self, row: TransferRow) -> bool:
        """True after the grant's end; nobody has to be asked then. An extension begins it anew."""
        with self._core.database.begin() as tx:
            grant = rows.grant(tx, row.grant, owner=row.peer)
        return grant is not None and grant.not_after <= self._core.clock.now() and not self._core.clock.in_doubt

    def _wait(self, transfer: str, error: LabxchangeError) -> None:
        row = self.row(transfer)
        if row.state == "running":
            self.move(row, "waiting", Event.TRANSFER_WAITING, code=error.code)
        elif row.state in LIVE and row.reason != error.code:
            with self._core.database.begin() as tx:
                transfers.put_transfer(tx, replace(row, reason=error.code))
            self._core.notices.publish("transfer", transfer)

    def _end(self, transfer: str, error: LabxchangeError) -> bool:
        """The sender refused, or what came cannot be used; True when the transfer does not try again by itself."""
        row = self.row(transfer)
        if isinstance(error, Stated) and error.code in _WAIT_CODES:
            self._wait(transfer, error)
            return False
        if isinstance(error, Stated) and error.code not in _FINAL_CODES:
            self._cut(row, error.code)
        else:
            self.move(row, "failed", Event.TRANSFER_FAILED, code=error.code)
        self.wake(row.peer)
        return True

    def _cut(
        self,
        row: TransferRow,
        code: str,
        *,
        state: State = "cut",
        event: Event = Event.TRANSFER_CUT,
        also: Sequence[Entry] = (),
        **fields: object,
    ) -> TransferRow:
        """End a transfer and say exactly what had arrived: entry, signed cut, its delivery and the row in one transaction."""
        with self._core.database.begin() as tx:
            arrived = transfers.arrived_chunks(tx, row.transfer)
            begun = statements.any_about(tx, row.transfer, Accept)
        cut = self._core.sign(
            Cut,
            transfer=row.transfer,
            code=code,
            side="recipient",
            files=row.done_files,
            bytes=row.done_bytes,
            arrived=arrived[:1000],
            more=count(arrived[1000:]),
        )
        fresh = replace(row, state=state, reason=code)
        entry = self.entry(event, row, object_digest=cut.id, result="error", result_code=code, **fields)
        with self._core.act(entry, *also) as tx:
            statements.put(tx, cut, about=row.transfer, now=self._core.clock.now())
            if begun:  # a sender who was never asked knows of no transfer
                statements.post(tx, row.peer, cut.id)
            transfers.put_transfer(tx, fresh)
        self._core.notices.publish("transfer", row.transfer)
        self.wake(row.peer)
        return fresh

    def downloading(self, transfer: str, download: Download) -> None:
        """What runs of a transfer, for display."""
        running = self._running.get(transfer)
        if running is not None:
            running.download = download
            running.samples.clear()
        self.sample(transfer)

    def sample(self, transfer: str) -> None:
        """Note how far it is."""
        running = self._running.get(transfer)
        if running is not None and running.download is not None:
            now = asyncio.get_running_loop().time()
            running.samples.append((now, running.download.done_bytes))
            while len(running.samples) > 2 and now - running.samples[0][0] > 5.0:
                running.samples.pop(0)
            self._core.notices.publish("transfer", transfer)

    async def close(self) -> None:
        """Stop; what is under way goes on at the next start."""
        for transfer in list(self._running):
            await self._halt(transfer)


def _path_text(destination: bytes) -> str:
    return destination.decode(errors="surrogateescape")
