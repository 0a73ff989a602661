"""One's own shares: make a version and offer it, show it.

Life of a share version: scanned -> listing signed, grants and offers signed, recorded and posted -> hashed in the background
(``hashing``), while it may be fetched already -> manifest signed. Grants are left to ``grants``, serving to ``serving``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import msgspec
from msgspec.structs import replace

from labxchange.audit.entry import Entry
from labxchange.audit.events import Event
from labxchange.dataset.listing import Listing, make_listing
from labxchange.dataset.manifest import Manifest
from labxchange.dataset.names import escape
from labxchange.errors import InputError
from labxchange.files.scan import Scan, scan
from labxchange.identity.statement import sign
from labxchange.node.contacts import Contacts
from labxchange.node.core import Core
from labxchange.node.grants import Grants, Terms
from labxchange.node.hashing import Hashing, Origin, origin_of
from labxchange.node.naming import named
from labxchange.node.showing import told_withheld
from labxchange.node.values import ShareInfo
from labxchange.settings import GRANT_DAYS
from labxchange.sharing.share import Share
from labxchange.store import shares as rows
from labxchange.store import statements
from labxchange.store.people import Contact
from labxchange.store.shares import ShareRow

_DAY_MS = 86_400_000
_CACHED_MIN_BYTES = 1 << 18
_MAX_GRANT_MS = 3660 * _DAY_MS


class Shares:
    """Makes and shows own shares.

    Args:
        wake: called with a contact's key when something was posted for them.
    """

    def __init__(self, core: Core, contacts: Contacts, grants: Grants, hashing: Hashing, *, wake: Callable[[str], None]) -> None:
        self._core = core
        self._contacts = contacts
        self._grants = grants
        self._hashing = hashing
        self._wake = wake

    # --- making -------------------------------------------------------------------------------------------------------
    async def create(self, paths: list[str], recipients: list[str], terms: Terms, *, share: str = "") -> ShareInfo:
        """Share files or a folder with contacts, as a new share or as the next version of one's own share ``share``.

        What is looked up before the files are listed is looked up again after: meanwhile a contact may have been blocked, and
        another version may have taken the number.

        Raises:
            InputError: of ``scan`` and of ``Contacts.find``; ``no-recipients``, ``contact-blocked``, ``share-unknown``,
                ``terms-malformed``, ``statement-invalid``.
        """
        self._core.require()
        keys = [person.key for person in self._people(recipients)]
        share_id = self.find(share).share if share else ""
        self._period(terms)
        found = await asyncio.to_thread(scan, [Path(path) for path in paths])
        if not found.files:
            raise InputError(
                "nothing-to-share", "There is no file to share here.", hint="Files that were left out: none or links."
            )
        # No await from here to the end of the transaction: nothing comes between these checks and their effect.
        self._core.require()
        people = self._people(keys)
        if share_id:
            terms = self._inherit(terms, share_id)
        terms = replace(terms, title=_title(terms.title or Path(paths[0]).resolve().name))
        start, end = self._period(terms)
        share_id, version = self._next(share_id)
        row = self._record(found, people, terms, share_id=share_id, version=version, start=start, end=end)
        self._hashing.begin(row, found)
        for person in people:
            self._wake(person.key)
        self._core.notices.publish("share", share_id)
        return self.info(row)

    def _people(self, recipients: list[str]) -> list[Contact]:
        """The contacts that are named, none of them blocked."""
        people = list({person.key: person for person in map(self._contacts.find, recipients)}.values())
        if not people:
            raise InputError("no-recipients", "Name at least one contact to share with.", hint="`labxchange contact list`.")
        for person in people:
            if person.state == "blocked":
                raise InputError(
                    "contact-blocked", f"{person.name} is blocked.", hint="`labxchange contact unblock`, if you are sure."
                )
        return people

    def _next(self, share_id: str) -> tuple[str, int]:
        if not share_id:
            return self._core.random_bytes(16).hex(), 1
        with self._core.database.begin() as tx:
            return share_id, rows.newest_version(tx, share_id, self._core.me) + 1

    def _inherit(self, terms: Terms, share_id: str) -> Terms:
        """A new version keeps the name and place of the share unless told otherwise."""
        with self._core.database.begin() as tx:
            row = rows.share(tx, share_id, rows.newest_version(tx, share_id, self._core.me), owner=self._core.me)
            assert row is not None
            body = statements.need(tx, row.statement, Share).body
        kept = {name: getattr(terms, name) or getattr(body, name) for name in ("title", "note", "study", "site", "category")}
        return replace(terms, **kept)

    def _period(self, terms: Terms) -> tuple[int, int]:
        now = self._core.clock.now()
        start = terms.not_before or now
        end = terms.not_after or start + GRANT_DAYS * _DAY_MS
        if end <= max(start, now) or end - now > _MAX_GRANT_MS:
            raise InputError("terms-malformed", "A grant ends after it begins, in the future, and within ten years.")
        if not 1 <= terms.downloads <= 1_000_000:
            raise InputError("terms-malformed", "The number of downloads is between 1 and 1,000,000.")
        return start, end

    def _record(
        self, found: Scan, people: list[Contact], terms: Terms, *, share_id: str, version: int, start: int, end: int
    ) -> ShareRow:
        identity, now = self._core.require(), self._core.clock.now()
        head, body = make_listing(found.files, issuer=self._core.me, issued=now, share=share_id, version=version)
        listing = sign(head, identity)
        share = self._core.sign(
            Share,
            share=share_id,
            version=version,
            listing=listing.id,
            title=terms.title,
            note=terms.note,
            study=terms.study,
            site=terms.site,
            category=terms.category,
            withheld=terms.withheld,
        )
        skipped = tuple((item.path, item.reason) for item in found.skipped[:1000])
        origin = msgspec.msgpack.encode(Origin(sources=found.sources, skipped=skipped))
        row = ShareRow(
            share=share_id,
            version=version,
            owner=self._core.me,
            state="hashing",
            title=terms.title,
            statement=share.id,
            listing=listing.id,
            source=origin,
            stored_ms=now,
        )
        base = Entry(
            event=Event.DATASET_CREATED,
            object_type="dataset",
            object_id=share_id,
            object_digest=head.body,
            dataset=share_id,
            who=self._core.who(),
            study=terms.study,
            site=terms.site,
            category=terms.category,
            details={"files": head.files, "bytes": head.bytes, "skipped": len(found.skipped)},
        )
        made = replace(
            base,
            event=Event.SHARE_CREATED if version == 1 else Event.SHARE_VERSIONED,
            object_type="share",
            object_id=f"{share_id}/{version}",
            object_digest=share.id,
            new=terms.title,
            details={},
        )
        entries = [base, made]
        if terms.withheld:
            left = {
                "columns": sum(len(item.columns) for item in terms.withheld),
                "rows": sum(item.rows for item in terms.withheld),
            }
            entries.append(replace(made, event=Event.SHARE_EXPOSED_SUBSET, details=left))
        with self._core.act(*entries) as tx:
            statements.put_body(tx, body)
            for statement in (listing, share):
                statements.put(tx, statement, about=share_id, now=now)
            rows.add_share(tx, row)
            for person in people:
                self._grants.issue(tx, row, person, terms, start=start, end=end, base=made)
        return row

    # --- looking up ---------------------------------------------------------------------------------------------------
    def find(self, text: str) -> ShareRow:
        """The newest own version that ``text`` names, as ``naming`` reads it.

        Raises:
            InputError: ``share-unknown``, ``share-ambiguous``.
        """
        return self.find_version(text)[0]

    def find_version(self, text: str) -> tuple[ShareRow, int]:
        """The same, and the version that ``text`` names (0: none in particular)."""
        with self._core.database.begin() as tx:
            found = named(text, rows.owned_shares(tx, self._core.me))
        if found.shares > 1:
            raise InputError("share-ambiguous", f"{escape(text)!r} could be {found.shares} shares.", hint="Use the share's id.")
        if not found.rows:
            raise InputError("share-unknown", f"There is no share {escape(text)!r}.", hint="`labxchange share status` shows all.")
        return max(found.rows, key=lambda row: row.version), found.version

    def scope(self, row: ShareRow) -> Share:
        """The share statement: study, site and category for entries about it."""
        with self._core.database.begin() as tx:
            return statements.need(tx, row.statement, Share).body

    def all(self) -> list[ShareInfo]:
        with self._core.database.begin() as tx:
            owned = rows.owned_shares(tx, self._core.me)
        return [self.info(row) for row in owned]

    def info(self, row: ShareRow) -> ShareInfo:
        with self._core.database.begin() as tx:
            current = rows.share(tx, row.share, row.version, owner=self._core.me) or row
            listing = statements.need(tx, current.listing, Listing).body
            manifest = statements.need(tx, current.manifest, Manifest).body if current.manifest else None
            grants = rows.grants_of(tx, row.share, row.version, owner=self._core.me)
        origin = origin_of(current)
        return ShareInfo(
            share=current.share,
            version=current.version,
            title=current.title,
            state=current.state,
            reason=origin.reason,
            files=listing.files,
            bytes=listing.bytes,
            hashed_bytes=self._hashing.hashed_bytes(row.share, row.version),
            left_out=manifest.left_out if manifest else 0,
            root=manifest.root if manifest else "",
            created=current.stored_ms,
            skipped=origin.skipped,
            recipients=tuple(status for grant in grants for status in self._grants.recipients(grant)),
            withheld=told_withheld(self.scope(current)),
        )


def _title(text: str) -> str:
    title = escape(" ".join(text.split()), limit=200)
    if not title:
        raise InputError("title-needed", "A share needs a title.")
    return title
