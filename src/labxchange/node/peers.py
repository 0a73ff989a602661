"""Connections to contacts: dial, keep, deliver what waits, try again later.

Who dials is independent of who sends: ``channel`` gives the connection that is there, whoever made it, or makes one. For each
contact that is not blocked a keeper runs: it connects, hands over the outbox, and backs off while the peer is away, further
while nothing waits. So one reachable side is enough, whoever has something to say. What is said on a channel is left to
``serving`` (answers) and ``witnessing`` (trails).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Coroutine
from ipaddress import ip_address
from weakref import WeakSet

from msgspec.structs import replace

from labxchange.audit.events import Event
from labxchange.errors import InputError, LabxchangeError, PeerError, RefusedError, UnavailableError
from labxchange.identity.card import Card
from labxchange.identity.invitation import Invitation
from labxchange.identity.keys import Identity
from labxchange.identity.statement import Signed
from labxchange.net.channel import Channel, Stream
from labxchange.net.endpoint import Endpoint
from labxchange.net.network import Network, UdpAddress
from labxchange.node.contacts import Contacts
from labxchange.node.core import Core
from labxchange.node.denials import Denials
from labxchange.node.refusals import refused
from labxchange.settings import ANSWER_S, CHANNELS_MAX, DIAL_TIMEOUT_S, RETRY_FIRST_S, RETRY_IDLE_S, RETRY_LAST_S
from labxchange.store import people, statements
from labxchange.wire.control import messages
from labxchange.wire.control.messages import Deliver, Refused, Taken, Waiting

KINDS = dict.fromkeys(
    [
        *("card", "listing", "manifest", "share", "grant", "revocation", "offer", "accept", "progress", "cut"),
        *("receipt", "receipt-ack", "refusal", "extension-request"),
    ],
    1,
)
"""The highest version of each statement kind that this software knows."""

Handler = Callable[[Channel, Stream], Awaitable[None]]
Take = Callable[[str, bytes], list[bytes]]


class Peers:
    """All connections of this node.

    Args:
        handler: answers a stream that the peer opened.
        take: reads one delivered statement of a peer; returns statements in reply.
        greet: called on each new channel to a verified contact (trails are witnessed there).
        has_work: True while something is to be received from the contact.
        left: told when the last channel to a contact has ended.
    """

    def __init__(
        self,
        core: Core,
        contacts: Contacts,
        denials: Denials,
        network: Network,
        *,
        handler: Handler,
        take: Take,
        greet: Callable[[Channel], Awaitable[None]],
        has_work: Callable[[str], bool],
        left: Callable[[str], None],
    ) -> None:
        self._core = core
        self._contacts = contacts
        self._denials = denials
        self._handler = handler
        self._take = take
        self._greet = greet
        self._has_work = has_work
        self._left = left
        self._channels: dict[str, list[Channel]] = {}
        self._addresses: dict[Channel, UdpAddress] = {}
        self._keepers: dict[str, asyncio.Task[None]] = {}
        self._wakes: dict[str, asyncio.Event] = {}
        self._dialling: dict[str, asyncio.Lock] = {}
        self._flushed: WeakSet[Channel] = WeakSet()
        self._tasks: set[asyncio.Task[None]] = set()
        self._flushing: dict[str, asyncio.Lock] = {}
        self.endpoint = Endpoint(network=network, authority=self)
        self.closing = False
        self.answered = False
        """True once another machine has reached this node's port."""

    # --- what the endpoint asks (its authority) -----------------------------------------------------------------------
    @property
    def identity(self) -> Identity:
        return self._core.require()

    def card(self) -> bytes:
        return self._core.require_card().envelope

    def kinds(self) -> dict[str, int]:
        return KINDS

    async def admit(self, peer_key: bytes, card: Signed[Card], *, invitation_id: bytes, proof: bytes, th1: bytes) -> None:
        """A caller proved its key: may it connect? Raises RefusedError."""
        self._contacts.admit(card, invitation_id=invitation_id, proof=proof, th1=th1)

    def on_stranger(self, address: UdpAddress, reason: str) -> None:
        """Somebody without a proven identity was turned away."""
        self._denials.note(reason, address[0], stranger=True)

    def on_channel(self, channel: Channel) -> None:
        """Somebody connected."""
        host = channel.remote_address[0]
        if not ip_address(host.partition("%")[0]).is_loopback:
            self.answered = True
        self.adopt(channel)

    def adopt(self, channel: Channel) -> None:
        """A connection to a contact is ready, whoever dialled."""
        key = channel.peer_key.hex()
        if self.closing:
            channel.close("node-stopping")
            return
        channels = self._channels.setdefault(key, [])
        if not channel.dialled:
            for older in channels:
                older.doubt()  # a node dials only when it has no channel: it was restarted, or its machine moved
        channels.append(channel)
        for oldest in channels[:-CHANNELS_MAX]:
            oldest.close("too-many-connections")
        self._addresses[channel] = channel.remote_address
        self.spawn(self._live(channel, key))  # first: whatever fails below, the channel leaves the list when it ends
        self._contacts.update_card(channel.card)
        channel.serve(lambda stream: self._answer(channel, stream))
        self._core.notices.publish("contact", key)

    async def _answer(self, channel: Channel, stream: Stream) -> None:
        key = channel.peer_key.hex()
        try:
            await self._handler(channel, stream)
        except PeerError as error:
            self._denials.note(error.code, key, event=Event.SECURITY_PROTOCOL_VIOLATION)
            raise  # the channel closes with the code
        except (UnavailableError, RefusedError):
            stream.reset()

    async def _live(self, channel: Channel, key: str) -> None:
        """The life of a channel: greet, deliver, wait for its end."""
        try:
            await self._meet(channel, key)
            await channel.closed()
        finally:
            self._channels[key].remove(channel)
            self._addresses.pop(channel, None)
            if not self._channels[key] and not self.closing:
                self._left(key)
            self._core.notices.publish("contact", key)
            self.wake(key)

    async def _meet(self, channel: Channel, key: str) -> None:
        # Where the channel ended or the peer does not want to yet, the keeper tries again.
        with contextlib.suppress(LabxchangeError):
            await self._greet(channel)
        with contextlib.suppress(LabxchangeError):
            await self.flush(key, channel)

    def spawn(self, work: Coroutine[None, None, None]) -> None:
        """Run ``work`` beside; its end is the node's at the latest."""
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # --- connections --------------------------------------------------------------------------------------------------
    def connected(self, key: str) -> Channel | None:
        """The channel for new work: of several, the newest; when both dialled at once, the one of the smaller key.

        A node dials only when it has no channel: what is clearly older is dead, and that is not known here yet.
        """
        channels = [channel for channel in self._channels.get(key, []) if channel.is_open]
        if not channels:
            return None
        mine, newest = self._core.me < key, max(channel.started_at for channel in channels)
        fresh = [channel for channel in channels if channel.started_at > newest - DIAL_TIMEOUT_S]
        return next((channel for channel in reversed(fresh) if channel.dialled == mine), fresh[-1])

    def count(self) -> int:
        return sum(self.connected(key) is not None for key in self._channels)

    async def channel(self, key: str) -> Channel:
        """A channel to a contact: the one that is there, or a new one.

        Raises:
            UnavailableError: ``peer-unreachable``, ``peer-silent``.
            RefusedError: the peer does not want to.
        """
        async with self._dialling.setdefault(key, asyncio.Lock()):
            found = self.connected(key)
            if found is not None:
                return found
            row = self._contacts.get(key)
            if row is None or row.state == "blocked":
                raise RefusedError("contact-blocked", "This contact is blocked here.", hint="`labxchange contact unblock`.")
            addresses = list(dict.fromkeys([row.seen_address, *people.card_of(row).addresses]))
            return await self._dial([address for address in addresses if address], bytes.fromhex(key))

    async def meet(self, invitation: Invitation) -> Channel:
        """Dial an inviter for the first time."""
        found = self.connected(invitation.inviter.hex())
        if found is not None:
            return found
        return await self._dial(list(invitation.addresses), invitation.inviter, invitation)

    async def _dial(self, addresses: list[str], key: bytes, invitation: Invitation | None = None) -> Channel:
        failure: LabxchangeError = UnavailableError(
            "peer-unreachable", "No address of this contact is known.", hint="Ask them for a new invitation."
        )
        for address in addresses:
            try:
                channel = await self.endpoint.dial(address, key, invitation=invitation, timeout_s=DIAL_TIMEOUT_S)
            except (UnavailableError, PeerError) as error:  # PeerError: somebody else answers at an old address
                failure = error
                continue
            except InputError as error:  # no address at all, as it turned out
                failure = UnavailableError("peer-unreachable", error.message, hint=error.hint)
                continue
            self._remember(key.hex(), address)
            if invitation is None:
                self.adopt(channel)
            return channel
        raise failure

    def _remember(self, key: str, address: str) -> None:
        row = self._contacts.get(key)
        if row is not None and row.seen_address != address:
            with self._core.database.begin() as tx:
                people.put_contact(tx, replace(row, seen_address=address))

    def moved(self) -> list[tuple[str, str, str]]:
        """Peers whose datagrams come from another address now: (key, old, new), each told once."""
        out = []
        for channel, old in list(self._addresses.items()):
            new = channel.remote_address
            if new != old:
                self._addresses[channel] = new
                out.append((channel.peer_key.hex(), f"{old[0]} port {old[1]}", f"{new[0]} port {new[1]}"))
        return out

    def drop(self, key: str, code: str) -> None:
        """Close every channel to a contact at once."""
        for channel in list(self._channels.get(key, [])):
            channel.close(code)

    # --- delivering ---------------------------------------------------------------------------------------------------
    def wake(self, key: str) -> None:
        """Something waits for this contact, or may be had from them: try now."""
        if self.closing or self._core.identity is None:
            return
        self._wakes.setdefault(key, asyncio.Event()).set()
        keeper = self._keepers.get(key)
        if keeper is None or keeper.done():
            self._keepers[key] = asyncio.ensure_future(self._keep(key))

    def wake_all(self) -> None:
        """At start: everybody."""
        for row in self._contacts.all():
            self.wake(row.key)

    def _wanted(self, key: str) -> bool:
        """Whoever is not blocked: they may have something for us and no way to call a node behind a firewall, or that moved."""
        row = self._contacts.get(key)
        return row is not None and row.state != "blocked"

    def _waits(self, key: str) -> bool:
        """True while something waits for this contact, or is to be had from them."""
        with self._core.database.begin() as tx:
            return bool(statements.count_posted(tx, key)) or self._has_work(key)

    async def _keep(self, key: str) -> None:
        wake, delay = self._wakes[key], RETRY_FIRST_S
        while not self.closing and self._core.identity is not None and self._wanted(key):
            wake.clear()
            try:
                was = self.connected(key)
                channel = await self.channel(key)
                if channel is was:
                    await self.flush(key, channel)
                await _first(wake.wait(), channel.closed())  # a new channel is flushed when it is greeted
                if channel in self._flushed:
                    delay = RETRY_FIRST_S
                if self.connected(key) is None:
                    # Who hangs up at once is not called in a circle; less often each time, while nothing could be handed over.
                    await asyncio.sleep(min(delay, RETRY_LAST_S))
                    delay = min(delay * 2, RETRY_LAST_S)
                continue
            except LabxchangeError:
                pass
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(wake.wait(), delay)
            delay = min(delay * 2, RETRY_LAST_S if self._waits(key) else RETRY_IDLE_S)

    async def flush(self, key: str, channel: Channel) -> None:
        """Hand over what waits in the outbox; to a contact that is not verified only its number."""
        row = self._contacts.get(key)
        async with self._flushing.setdefault(key, asyncio.Lock()):
            if row is None or row.state != "verified":
                with self._core.database.begin() as tx:
                    count = statements.count_posted(tx, key, kind="offer")
                await self.ask(channel, Waiting(offers=count), Taken)
                self._flushed.add(channel)
                return
            while True:
                with self._core.database.begin() as tx:
                    batch = statements.posted(tx, key, 16)
                if not batch:
                    self._flushed.add(channel)
                    return
                answer = await self.ask(channel, Deliver(statements=[envelope for _, envelope in batch]), Taken)
                # The replies first: a kill in between makes the batch go out again, and a lost reply never comes again.
                for reply in answer.statements[: len(batch)]:
                    self._take(key, reply)
                with self._core.database.begin() as tx:
                    statements.unpost(tx, [number for number, _ in batch])
                self._core.notices.publish("contact", key)

    async def nudge(self, key: str) -> None:
        """Tell a connected contact that we have verified them now, so what waits there can come."""
        channel = self.connected(key)
        if channel is not None:
            with contextlib.suppress(LabxchangeError):
                await self._greet(channel)
                await self.flush(key, channel)
                await self.ask(channel, Waiting(offers=0), Taken)

    async def ask(self, channel: Channel, request: messages.Message, answer: type[messages.M]) -> messages.M:
        """One request, one answer.

        Raises:
            RefusedError: the peer refused, with its code and sentence.
            PeerError, UnavailableError.
        """
        async with await channel.open() as stream:
            await stream.send(messages.encode(request), end=True)
            reply = messages.decode_answer(await stream.receive(ANSWER_S))
        if isinstance(reply, Refused):
            raise refused(reply.statement, channel)
        if not isinstance(reply, answer):
            raise PeerError("out-of-order", "The other node gave an answer to another question.")
        return reply

    async def close(self) -> None:
        """Say goodbye and stop."""
        self.closing = True
        for keeper in self._keepers.values():
            keeper.cancel()
        for channels in list(self._channels.values()):
            for channel in list(channels):
                channel.close("node-stopping")
        await asyncio.gather(*self._keepers.values(), *self._tasks, return_exceptions=True)
        await self.endpoint.close()


async def _first(*waits: Awaitable[object]) -> None:
    tasks = [asyncio.ensure_future(wait) for wait in waits]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
