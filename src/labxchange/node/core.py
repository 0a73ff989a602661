"""What every part of the node works with: the store, the trail, the clock, the keys while unlocked, the notices.

The one rule kept here is the write-ahead rule: ``act`` commits entries and rows together, seals the trail, and only then lets
the caller make the effect visible. If the trail cannot be written, nothing else happens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from sqlalchemy import Connection

from labxchange.audit.entry import Entry, Who
from labxchange.errors import InputError, NodeLocked
from labxchange.identity.card import Card
from labxchange.identity.keys import Identity
from labxchange.identity.statement import B, Signed, sign
from labxchange.node.clock import Clock
from labxchange.node.events import Notices
from labxchange.node.home import Home
from labxchange.settings import SOFTWARE
from labxchange.store import settings
from labxchange.store.database import Database
from labxchange.store.trail import Trail


class Core:
    """Shared state of one node. ``random_bytes`` is the operating system's generator, or a seeded one in simulation."""

    def __init__(self, *, home: Home, database: Database, clock: Clock, random_bytes: Callable[[int], bytes]) -> None:
        self.home = home
        self.database = database
        self.clock = clock
        self.random_bytes = random_bytes
        self.notices = Notices()
        self.public = b""
        self.trail: Trail | None = None
        self.identity: Identity | None = None
        self.card: Signed[Card] | None = None
        self.authenticated = ""

    @property
    def me(self) -> str:
        """One's own identity key in hex; empty before `key create`."""
        return self.public.hex()

    def know(self, public: bytes) -> None:
        """Take up whose node this is; the trail opens, still locked."""
        self.public = public
        self.trail = Trail(public, stamp=self.clock.stamp, random_bytes=self.random_bytes, software=SOFTWARE)
        with self.database.begin() as tx:
            self.trail.reload(tx)

    def forget(self) -> None:
        """An identity could not be written down: there is none."""
        self.public = b""
        self.trail = self.identity = self.card = None
        self.authenticated = ""

    def require(self) -> Identity:
        """The keys.

        Raises:
            InputError: ``no-identity``.
            NodeLocked: they are sealed.
        """
        if not self.public:
            raise InputError(
                "no-identity", "There is no identity on this machine yet.", hint="Make one with `labxchange key create`."
            )
        if self.identity is None:
            raise NodeLocked
        return self.identity

    def require_card(self) -> Signed[Card]:
        self.require()
        assert self.card is not None
        return self.card

    def sign(self, kind: type[B], **fields: object) -> Signed[B]:
        """A statement of one's own, made now."""
        identity = self.require()
        body: B = kind(issuer=self.me, issued=self.clock.now(), **fields)
        return sign(body, identity)

    def who(self, *, actor: str = "person") -> Who:
        """The owner of this node, for an entry."""
        if self.card is None:
            return Who()
        card = self.card.body
        return Who(
            person=card.name,
            role=card.role,
            organisation=card.organisation,
            key=card.issuer,
            authenticated=self.authenticated,  # type: ignore[arg-type]
            actor=actor,  # type: ignore[arg-type]
        )

    @contextmanager
    def act(self, *entries: Entry) -> Iterator[Connection]:
        """One durable transaction that begins with ``entries``. Effects that others can see come after the block.

        Raises:
            UnavailableError: ``disk-full``; nothing happened.
        """
        assert self.trail is not None
        assert not self.database.busy, "an act is durable at its end, so it cannot be part of another transaction"
        try:
            with self.database.begin() as tx:
                for entry in entries:
                    self.trail.append(tx, entry)
                yield tx
                self.trail.seal(tx)
                settings.put(tx, "largest-time", str(self.clock.largest).encode())
        except BaseException:
            with self.database.begin() as tx:
                self.trail.reload(tx)
            raise

    def append(self, tx: Connection, entry: Entry) -> int:
        """Another entry inside the block of ``act``; returns its seq."""
        assert self.trail is not None
        return self.trail.append(tx, entry)

    def record(self, *entries: Entry) -> None:
        """Entries that have no other effect."""
        with self.act(*entries):
            pass
        self.notices.publish("trail")
