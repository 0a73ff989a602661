"""The node: one async API over everything, for the faces; each verb checks, acts through the trail, and returns frozen values.

It joins the parts (keys, contacts, peers, shares, grants, inbox, serving, receiving, receipts, witnessing) and owns their life:
open the store, judge the clock, unlock, listen, take up what was under way, and stop cleanly. The same node runs over real
sockets and over the simulated network: network, clock and random bytes are arguments.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
from collections.abc import AsyncIterator, Callable

from labxchange.audit.entry import Entry
from labxchange.audit.events import Event
from labxchange.errors import InputError, IntegrityError, LabxchangeError, PeerError, RefusedError, UnavailableError
from labxchange.identity.sealing import Argon
from labxchange.net.channel import Channel
from labxchange.net.network import Network
from labxchange.node import values
from labxchange.node.acquaintance import contact_info, invitation_infos
from labxchange.node.addresses import check_address, local_addresses, with_port
from labxchange.node.books import Books
from labxchange.node.budget import Budget
from labxchange.node.bulk import Bulk
from labxchange.node.catalog import Catalog
from labxchange.node.clock import Clock, elapsed_ms, utc_text, wall_ms
from labxchange.node.contacts import Contacts
from labxchange.node.controls import Controls, chosen
from labxchange.node.core import Core
from labxchange.node.decisions import Decisions
from labxchange.node.denials import Denials
from labxchange.node.doctor import examine
from labxchange.node.grants import Grants, Terms
from labxchange.node.hashing import Hashing
from labxchange.node.home import Home
from labxchange.node.inbox import Inbox
from labxchange.node.keys import Keys, Profile
from labxchange.node.peers import Peers
from labxchange.node.receipts import Receipts
from labxchange.node.received import received_file
from labxchange.node.receiving import Receiving
from labxchange.node.rechecking import verify_received
from labxchange.node.serving import Serving
from labxchange.node.shares import Shares
from labxchange.node.showing import transfer_info
from labxchange.node.taking import Taking
from labxchange.node.trails import Trails
from labxchange.node.verbs import Verbs
from labxchange.node.witnessing import STOPPED, Witnessing
from labxchange.settings import CLOCK_PERSIST_S, DEFAULT_PORT, SOFTWARE
from labxchange.sharing.share import Withheld
from labxchange.store import settings, shares, transfers
from labxchange.store.damage import DAMAGED
from labxchange.store.database import Database
from labxchange.store.people import Contact
from labxchange.store.transfers import TransferRow

log = logging.getLogger("labxchange")

_CLEAN = "stopped-cleanly"
_FLOOD = 100
"""Datagrams of strangers dropped within one tick that count as a flood."""


class Node(Verbs):
    """A running node. ``open`` it, use its verbs, ``close`` it.

    Args:
        network: where UDP ports are opened.
        host: numeric address to listen on; empty: all.
        lane_workers: processes that move bulk data; 0: all of it goes over QUIC.
        argon: cost of the passphrase slot; lower only in tests.
    """

    def __init__(
        self,
        home: Home,
        network: Network,
        *,
        host: str = "",
        lane_workers: int = 0,
        wall: Callable[[], int] = wall_ms,
        elapsed: Callable[[], int] = elapsed_ms,
        random_bytes: Callable[[int], bytes] = secrets.token_bytes,
        argon: Argon | None = None,
    ) -> None:
        home.create()
        database = Database(home.database, now_text=utc_text(wall()))
        with database.begin() as tx:
            largest = settings.number(tx, "largest-time")
        clock = Clock(largest_seen=largest, wall=wall, elapsed=elapsed)
        self.core = Core(home=home, database=database, clock=clock, random_bytes=random_bytes)
        self._host = host
        self._port = 0
        self._started = 0
        self._trouble = ""
        self._online = False
        self._dropped = 0
        self._tasks: list[asyncio.Task[None]] = []
        core = self.core
        self.keys = Keys(core, argon=argon)
        self.denials = Denials(core)
        self.contacts = Contacts(core, self.denials)
        self.catalog = Catalog(core)
        self.hashing = Hashing(core, self.catalog)
        self.books = Books(core, self.catalog, self.hashing)
        self.receipts = Receipts(core, self.contacts, self.catalog, self.books)
        self.decisions = Decisions(core, self.receipts, wake=self._wake)
        self.inbox = Inbox(core, self.contacts)
        self.budget = Budget(core)
        self.witnessing = Witnessing(core, self.contacts, self.budget, seen=self._seen)
        self.grants = Grants(core, self.contacts, wake=self._wake, judge=self._judge_grant)
        self.bulk = Bulk(core, lane_workers, entry=self.receipts.entry)
        self.controls = Controls(core, self.bulk, self.receipts)
        self._lane_workers = lane_workers
        self.shares = Shares(core, self.contacts, self.grants, self.hashing, wake=self._wake)
        self.receiving = Receiving(
            core, self.contacts, self.catalog, self.inbox, self.receipts, self.bulk, connect=self._connect, wake=self._wake
        )
        self.taking = Taking(
            core,
            self.contacts,
            self.denials,
            self.inbox,
            self.receiving,
            self.receipts,
            self.books,
            finished=self._finished,
            settled=self._settled,
        )
        self.serving = Serving(
            core,
            self.contacts,
            self.denials,
            self.catalog,
            self.hashing,
            self.books,
            self.receipts,
            self.witnessing,
            budget=self.budget,
            bulk=self.bulk,
            take=self.taking.take,
            ready=self._peer_ready,
        )
        self.peers = Peers(
            core,
            self.contacts,
            self.denials,
            network,
            handler=self.serving.handle,
            take=self.taking.take,
            greet=self._greet,
            has_work=lambda key: self.receiving.has_work(key) or self.serving.has_work(key),
            left=self.serving.peer_left,
        )
        self.trails = Trails(core)

    # --- wiring -------------------------------------------------------------------------------------------------------
    def _wake(self, key: str) -> None:
        self.peers.wake(key)

    def _judge_grant(self, grant: str) -> None:
        self.serving.judge_grant(grant)

    def _finished(self, transfer: str) -> None:
        self.serving.finished(transfer)

    def _settled(self, key: str) -> None:
        """Receipts were exchanged: have the entries about them cosigned while the contact is there."""
        channel = self.peers.connected(key)
        if channel is not None:
            self.peers.spawn(self._witness(channel))

    def _seen(self, channel: Channel) -> None:
        """A contact that shows its trail has verified us; of two, the one that was first to verify the other was refused."""
        self.peers.spawn(self._witness(channel, again=True))

    async def _witness(self, channel: Channel, *, again: bool = False) -> None:
        with contextlib.suppress(LabxchangeError):
            try:
                await self._show_trail(channel, again=again)
            except (UnavailableError, RefusedError):  # also when it was about to close: the contact started again
                other = self.peers.connected(channel.peer_key.hex())
                if other is not None and other is not channel:
                    await self._show_trail(other)

    async def _show_trail(self, channel: Channel, *, again: bool = False) -> None:
        """Have our trail cosigned; that a contact does not is written down."""
        try:
            await self.witnessing.show(channel, again=again)
        except (RefusedError, PeerError, IntegrityError) as error:
            refused = isinstance(error, RefusedError) or error.code == DAMAGED
            event = Event.ACCESS_DENIED if refused else Event.SECURITY_PROTOCOL_VIOLATION
            self.denials.note(error.code, channel.peer_key.hex(), event=event)
            raise

    async def _connect(self, key: str) -> Channel:
        row = self.contacts.get(key)
        if row is not None and row.trail in STOPPED:
            raise UnavailableError(
                "trail-stopped",
                f"The audit trail of {row.name} contradicts what was seen of it; nothing is exchanged until you decide.",
                hint="`labxchange contact list` shows it; `labxchange contact accept-trail` goes on.",
            )
        return await self.peers.channel(key)

    async def _greet(self, channel: Channel) -> None:
        key = channel.peer_key.hex()
        self.receiving.nudge(key)
        await self._show_trail(channel)

    def _peer_ready(self, key: str, offers: int) -> None:
        """The contact says that it is there, or that something waits."""
        if offers:
            self.core.notices.publish("inbox", key)
        self.receiving.nudge(key)
        row = self.contacts.get(key)
        if row is not None and row.state == "verified":
            # To others we have nothing to say but that something waits: two such nodes would tell each other without end.
            self.peers.wake(key)

    # --- life ---------------------------------------------------------------------------------------------------------
    async def open(self, *, unlock: bool = True) -> None:
        """Take up the identity and, where the node can unlock itself, everything else.

        Raises:
            IntegrityError: ``key-file-damaged``.
        """
        core = self.core
        self._started = core.clock.now()
        if self.keys.load() is not None:
            self._note_start()
            if unlock and core.home.unlock.exists():
                try:
                    await self.unlock()
                except LabxchangeError as error:
                    self._trouble = f"The node could not unlock itself: {error.message}"
        works = (self._tick(), self.serving.watch(), self.controls.watch())
        self._tasks = [asyncio.ensure_future(work) for work in works]

    def _note_start(self) -> None:
        """The first entries of a run; after a restore they wait for the entry that begins the new epoch."""
        with self.core.database.begin() as tx:
            before, restored = settings.get(tx, _CLEAN), settings.get(tx, "restored")
        if restored is not None:
            return
        entries = [Entry(event=Event.SYSTEM_STARTED, object_type="node")]
        if before == b"0":
            entries.append(Entry(event=Event.SYSTEM_RECOVERED, object_type="node"))
        with self.core.act(*entries) as tx:
            settings.put(tx, _CLEAN, b"0")

    async def _tick(self) -> None:
        """Every few seconds: clock, denials, grants that end, a port that was not free. An error ends one turn, not the work."""
        while True:
            try:
                await self._take_turn()
            except LabxchangeError as error:
                log.warning("%s (%s)", error.message, error.code)
            except Exception:
                log.exception("the node's regular work failed")
            await asyncio.sleep(CLOCK_PERSIST_S / 12)

    async def _take_turn(self) -> None:
        self._check_clock()
        if self.core.identity is not None:
            self.grants.expire()
            self._note_network()
            if self._online and not self._port:
                await self._listen()
        self.denials.flush()
        with self.core.database.begin() as tx:
            settings.put(tx, "largest-time", str(self.core.clock.largest).encode())

    def _note_network(self) -> None:
        """Peers and lanes that moved, forged datagrams and floods of strangers, in a few entries."""
        entries = [
            Entry(
                event=Event.TRANSFER_PATH_CHANGED,
                object_type="connection",
                who=self.core.who(actor="program"),
                counterparty=key,
                counterparty_name=self.contacts.name(key),
                old=old,
                new=new,
            )
            for key, old, new in self.peers.moved()
        ]
        entries += self.bulk.moves()
        for key, count in self.bulk.forgeries().items():
            self.denials.note("lane-forgery", key, event=Event.SECURITY_FORGERY, count=count)
        dropped, self._dropped = self.peers.endpoint.gate.dropped - self._dropped, self.peers.endpoint.gate.dropped
        if dropped >= _FLOOD:
            entries.append(
                Entry(event=Event.SECURITY_FLOOD, object_type="connection", result="denied", details={"dropped": dropped})
            )
        if entries:
            self.core.record(*entries)

    def _check_clock(self) -> None:
        clock = self.core.clock
        clock.now()
        if self.core.identity is None:
            return
        jumps, clock.jumps = clock.jumps, []
        for before, after, adopted in jumps:
            self.core.record(
                Entry(
                    event=Event.CLOCK_JUMPED,
                    object_type="clock",
                    old=utc_text(before),
                    new=utc_text(after),
                    who=self.core.who(actor="program"),
                    result="ok" if adopted else "denied",
                    result_code="" if adopted else "clock-in-doubt",
                )
            )

    async def _go_online(self) -> None:
        """Unlocked: listen, and take up what was under way. Without a port the node still dials, and tries again."""
        self._note_version()
        await self._listen()
        self._online = True
        self.serving.forget_running()
        await self.hashing.resume()
        self.receiving.resume_all()
        self.peers.wake_all()

    async def _listen(self) -> None:
        """Open the port and sign its addresses into the card."""
        with self.core.database.begin() as tx:
            port, given = settings.number(tx, "port"), settings.text(tx, "addresses").split()
        try:
            self._port = await self._open_port(port)
        except UnavailableError as error:
            self._trouble = f"{error.message} Others cannot reach this node; it tries again by itself."
            return
        self._trouble = ""
        self.bulk.listening(self.peers.endpoint, self._port)
        with self.core.database.begin() as tx:
            settings.put(tx, "port", str(self._port).encode())
            settings.put(tx, _CLEAN, b"0")  # also in the run that made the identity
        self.keys.readdress([with_port(host, self._port) for host in given or local_addresses(self._host)][:8])

    async def _open_port(self, port: int) -> int:
        """The port that was set or kept; the default one at first, or any free one."""
        try:
            return await self.peers.endpoint.listen(self._host, port or DEFAULT_PORT, workers=self._lane_workers)
        except UnavailableError:
            if port:
                raise
            return await self.peers.endpoint.listen(self._host, 0, workers=self._lane_workers)

    def _note_version(self) -> None:
        """Write down that the software is not the one that ran before."""
        with self.core.database.begin() as tx:
            before = settings.text(tx, "software")
        if before == SOFTWARE:
            return
        upgraded = Entry(
            event=Event.VERSION_UPGRADED, object_type="node", who=self.core.who(actor="program"), old=before, new=SOFTWARE
        )
        with self.core.act(*([upgraded] if before else [])) as tx:
            settings.put(tx, "software", SOFTWARE.encode())

    async def close(self) -> None:
        """Stop cleanly: transfers pause, the trail says so, everything is on the disk."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.receiving.close()
        self.bulk.close()
        await self.peers.close()  # first: whoever waits for the hashing to end hears that the node stops
        await self.hashing.close()
        try:
            self.denials.flush()
            if self.core.trail is not None:
                with self.core.act(Entry(event=Event.SYSTEM_STOPPED, object_type="node")) as tx:
                    settings.put(tx, _CLEAN, b"1")
        finally:  # also of a trail that cannot be written
            self.keys.lock()
            self.core.database.close()

    # --- keys ---------------------------------------------------------------------------------------------------------
    async def key_create(
        self,
        *,
        name: str,
        organisation: str,
        role: str = "",
        country: str = "",
        passphrase: str = "",
        credential_file: str = "",
        keyring: bool = False,
    ) -> values.Me:
        profile = Profile(name=name, organisation=organisation, role=role, country=country)
        await self.keys.create(profile, passphrase=passphrase, credential_file=credential_file, keyring=keyring)
        await self._go_online()
        return self.keys.show()

    async def key_show(self) -> values.Me:
        return self.keys.show()

    async def key_backup(self, *, path: str, backup_passphrase: str, passphrase: str = "") -> values.Me:
        await self.keys.backup(path, backup_passphrase=backup_passphrase, passphrase=passphrase)
        return self.keys.show()

    async def key_restore(
        self, *, path: str, backup_passphrase: str, passphrase: str = "", credential_file: str = "", keyring: bool = False
    ) -> values.Me:
        await self.keys.restore(
            path, backup_passphrase=backup_passphrase, passphrase=passphrase, credential_file=credential_file, keyring=keyring
        )
        await self._go_online()
        return self.keys.show()

    async def unlock(self, *, passphrase: str = "", credential_file: str = "") -> values.Me:
        if await self.keys.unlock(passphrase=passphrase, credential_file=credential_file):
            self._trouble = ""
            await self._go_online()
        return self.keys.show()

    # --- contacts -----------------------------------------------------------------------------------------------------
    def _contact(self, text: str) -> values.ContactInfo:
        return self._shown(self.contacts.find(text))

    def _shown(self, row: Contact) -> values.ContactInfo:
        connected = self.peers.connected(row.key) is not None
        return contact_info(self.core, row, connected=connected, offers=self.serving.waiting_from(row.key))

    async def contact_invite(self, *, made_for: str = "") -> values.InvitationMade:
        invitation = self.contacts.invite(made_for=made_for)
        advice = (
            ""
            if self.peers.answered
            else (
                "This node's port has not been seen to answer from outside. If the other person cannot reach you, "
                "let them invite you instead: one reachable side is enough."
            )
        )
        return values.InvitationMade(text=invitation.text(), id=invitation.id.hex(), expires=invitation.expires, advice=advice)

    async def contact_accept(self, *, text: str) -> values.ContactInfo:
        invitation = self.contacts.read(text)
        channel = await self.peers.meet(invitation)
        try:
            self.contacts.add(channel.card, verified=False)
        except BaseException:
            channel.close("contact-refused")
            raise
        self.peers.adopt(channel)
        return self._contact(channel.peer_key.hex())

    async def contact_list(self) -> list[values.ContactInfo]:
        return [self._shown(row) for row in self.contacts.all()]

    async def contact_show(self, *, contact: str) -> values.ContactInfo:
        return self._contact(self.contacts.find(contact).key)

    async def contact_invitations(self) -> list[values.InvitationInfo]:
        return invitation_infos(self.core, self.contacts)

    async def contact_verify(self, *, contact: str, words: list[str]) -> values.ContactInfo:
        row = self.contacts.verify(contact, words)
        self.peers.spawn(self.peers.nudge(row.key))
        self.peers.wake(row.key)
        return self._contact(row.key)

    async def contact_block(self, *, contact: str, reason: str = "") -> values.ContactInfo:
        row = self.contacts.block(contact, reason=reason)
        self.serving.judge_contact(row.key)
        self.peers.drop(row.key, "contact-blocked")
        return self._contact(row.key)

    async def contact_unblock(self, *, contact: str, reason: str = "") -> values.ContactInfo:
        row = self.contacts.unblock(contact, reason=reason)
        self.peers.wake(row.key)
        return self._contact(row.key)

    async def contact_accept_trail(self, *, contact: str, reason: str) -> values.ContactInfo:
        row = self.contacts.accept_trail(contact, reason=reason)
        self.peers.spawn(self.peers.nudge(row.key))
        self.peers.wake(row.key)
        return self._contact(row.key)

    # --- shares -------------------------------------------------------------------------------------------------------
    async def share_create(
        self,
        *,
        paths: list[str],
        to: list[str],
        share: str = "",
        title: str = "",
        note: str = "",
        purpose: str = "",
        study: str = "",
        site: str = "",
        category: str = "",
        not_before: int = 0,
        not_after: int = 0,
        downloads: int = 3,
        withheld: list[values.WithheldInfo] | None = None,
    ) -> values.ShareInfo:
        terms = Terms(
            title=title,
            note=note,
            purpose=purpose,
            study=study,
            site=site,
            category=category,
            not_before=not_before,
            not_after=not_after,
            downloads=downloads,
            withheld=tuple(Withheld(file=item.file, columns=list(item.columns), rows=item.rows) for item in withheld or ()),
        )
        return await self.shares.create(paths, to, terms, share=share)

    async def share_list(self) -> list[values.ShareInfo]:
        self.core.require()
        return self.shares.all()

    async def share_status(self, *, share: str) -> values.ShareInfo:
        self.core.require()
        return self.shares.info(self.shares.find(share))

    async def share_hashed(self, *, share: str) -> values.ShareInfo:
        """Wait until the manifest is signed."""
        row = self.shares.find(share)
        await self.hashing.hashed(row.share, row.version)
        return self.shares.info(row)

    async def share_revoke(self, *, share: str, contact: str = "", reason: str = "") -> values.ShareInfo:
        row, version = self.shares.find_version(share)
        self.grants.revoke(row.share, version, contact=contact, reason=reason)
        return self.shares.info(row)

    async def share_extend(self, *, share: str, until: int, contact: str = "", reason: str = "") -> values.ShareInfo:
        row, version = self.shares.find_version(share)
        self.grants.extend(row.share, version, contact=contact, until=until, reason=reason)
        return self.shares.info(row)

    async def request_extension(self, *, share: str, until: int, sender: str = "", reason: str = "") -> values.InboxItem:
        grant = self.inbox.ask_extension(share, sender=sender, until=until, reason=reason)
        self.peers.wake(grant.owner)
        return self.inbox.item(grant)

    # --- inbox and transfers ------------------------------------------------------------------------------------------
    async def inbox_list(self) -> list[values.InboxItem]:
        self.core.require()
        return self.inbox.all()

    async def receive(
        self,
        *,
        share: str,
        sender: str = "",
        destination: str = "",
        rate: int = 0,
        priority: str = "normal",
        lanes: int = 0,
    ) -> values.TransferInfo:
        limits = chosen("", rate=rate, priority=priority, lanes=lanes)
        row = self.receiving.receive(share, sender=sender, destination=destination, limits=limits)
        # One that goes on keeps what was chosen before, but for what is said now.
        await self.controls.change(
            row, rate=rate or None, priority=priority if priority != "normal" else None, lanes=lanes or None
        )
        return self._transfer(row)

    async def transfer_list(self) -> list[values.TransferInfo]:
        self.core.require()
        with self.core.database.begin() as tx:
            found = transfers.all_transfers(tx)
        return [self._transfer(row) for row in found]

    async def transfer_show(self, *, transfer: str) -> values.TransferInfo:
        self.core.require()  # a locked node moves nothing, whatever it last wrote down
        with self.core.database.begin():  # one for all that is read: screens ask several times a second
            return self._transfer(self._find(transfer))

    def _find(self, transfer: str) -> TransferRow:
        with self.core.database.begin() as tx:
            if (row := transfers.transfer(tx, transfer)) is not None:
                return row
            found = [row for row in transfers.all_transfers(tx) if len(transfer) >= 6 and row.transfer.startswith(transfer)]
        if len(found) != 1:
            raise InputError("transfer-unknown", "There is no such transfer.", hint="`labxchange transfer list` shows them.")
        return found[0]

    async def transfer_limit(
        self, *, transfer: str, rate: int | None = None, priority: str | None = None, lanes: int | None = None, reason: str = ""
    ) -> values.TransferInfo:
        self.core.require()
        row = self._find(transfer)
        await self.controls.change(row, rate=rate, priority=priority, lanes=lanes, reason=reason)
        return self._transfer(row)

    async def transfer_pause(self, *, transfer: str) -> values.TransferInfo:
        return self._transfer(await self.receiving.pause(transfer))

    async def transfer_resume(self, *, transfer: str) -> values.TransferInfo:
        return self._transfer(self.receiving.resume((await self.transfer_show(transfer=transfer)).transfer))

    async def transfer_cancel(self, *, transfer: str) -> values.TransferInfo:
        return self._transfer(await self.receiving.cancel((await self.transfer_show(transfer=transfer)).transfer))

    async def transfer_report(self, *, transfer: str) -> values.ReceivedInfo:
        shown = await self.transfer_show(transfer=transfer)
        return self.receipts.report(shown.transfer)

    def _transfer(self, row: TransferRow) -> values.TransferInfo:
        return transfer_info(self, row)

    async def received_file(self, *, transfer: str, file: str) -> values.FileInfo:
        self.core.require()
        shown = await self.transfer_show(transfer=transfer)
        return received_file(self.core, self.catalog, transfer=shown.transfer, file=file)

    async def transfer_accept(self, *, transfer: str, findings: str = "") -> values.ReceiptInfo:
        return self.decisions.decide(self._find(transfer), "accepted", findings)

    async def transfer_reject(self, *, transfer: str, findings: str) -> values.ReceiptInfo:
        return self.decisions.decide(self._find(transfer), "rejected", findings)

    async def dataset_verify(self, *, transfer: str, folder: str = "") -> values.ReceivedInfo:
        shown = await self.transfer_show(transfer=transfer)
        return await verify_received(self.core, self.catalog, self.receiving.entry, transfer=shown.transfer, folder=folder)

    async def receipt_show(self, *, transfer: str) -> values.ReceiptInfo:
        self.core.require()
        return self.receipts.show((await self.transfer_show(transfer=transfer)).transfer)

    async def receipt_page(self, *, transfer: str) -> values.ReceiptPage:
        self.core.require()
        return self.receipts.page(self._find(transfer).transfer)

    # --- trail --------------------------------------------------------------------------------------------------------
    async def audit_list(
        self, *, event: str = "", about: str = "", since: int = 0, until: int = 0, limit: int = 100
    ) -> list[values.EntryInfo]:
        return await self.trails.entries(event=event, about=about, since=since, until=until, limit=limit)

    async def audit_export(
        self, *, path: str, form: str = "bundle", study: str = "", site: str = "", category: str = ""
    ) -> values.Exported:
        return await self.trails.export(path, form=form, study=study, site=site, category=category)

    async def clock_reset(self, *, reason: str, passphrase: str = "") -> values.NodeStatus:
        """A person says that the machine's clock is right; needs a fresh unlock."""
        await self.keys.reauthenticate(passphrase)
        before, after = self.core.clock.largest, self.core.clock.proposed()
        self.core.record(
            Entry(
                event=Event.CLOCK_RESET,
                object_type="clock",
                old=utc_text(before),
                new=utc_text(after),
                reason_text=reason,
                who=self.core.who(),
            )
        )
        self.core.clock.reset()
        return await self.status()

    # --- the node itself ----------------------------------------------------------------------------------------------
    async def status(self) -> values.NodeStatus:
        known = self.core.trail is not None
        with self.core.database.begin() as tx:
            live = sum(row.state in ("running", "waiting") for row in transfers.all_transfers(tx))
            own = len(shares.owned_shares(tx, self.core.me)) if known else 0
        people = self.contacts.all()
        alerts = [f"{row.name}: {row.alert}" for row in people if row.alert]
        alerts += [f"{row.name}: their trail was {row.trail}." for row in people if row.trail]
        if self._trouble:
            alerts.append(self._trouble)
        if self.core.clock.in_doubt:
            alerts.append("The clock jumped forward and is not believed: grants wait. See `labxchange clock reset`.")
        return values.NodeStatus(
            home=str(self.core.home.root),
            pid=os.getpid(),
            software=SOFTWARE,
            started=self._started,
            identity=known,
            locked=known and self.core.identity is None,
            listening=f"UDP port {self._port}" if self._port else "",
            connections=self.peers.count(),
            contacts=len(people),
            shares=own,
            transfers_live=live,
            trail_size=self.core.trail.size if self.core.trail else 0,
            clock_in_doubt=self.core.clock.in_doubt,
            alerts=tuple(alerts),
        )

    async def node_backup(self, *, path: str) -> values.NodeStatus:
        await self.trails.backup(path)
        return await self.status()

    async def node_configure(self, *, port: int = 0, addresses: list[str] | None = None) -> values.NodeStatus:
        """Set the UDP port and the addresses that others are told; takes effect at the next start."""
        if not 0 <= port <= 65535:
            raise InputError("port-malformed", "A port is a number from 1 to 65535.")
        changes = [("port", str(port))] if port else []
        if addresses is not None:
            for address in addresses:
                check_address(address)
            changes.append(("addresses", " ".join(addresses)))
        for name, value in changes:
            with self.core.database.begin() as tx:
                old = settings.text(tx, name)
            entry = Entry(event=Event.CONFIG_CHANGED, object_type=name, old=old, new=value, who=self.core.who())
            with self.core.act(entry) as tx:
                settings.put(tx, name, value.encode())
        return await self.status()

    async def doctor(self, *, contact: str = "") -> list[values.Diagnosis]:
        return await examine(self, contact=contact)

    @property
    def port(self) -> int:
        return self._port

    @property
    def host(self) -> str:
        """The numeric address it listens on; empty: all."""
        return self._host

    def notices(self) -> AsyncIterator[values.Notice]:
        """What changes, as it changes."""
        return self.core.notices.listen()
