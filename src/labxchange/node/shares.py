"""One's own shares: make a version and offer it, hash it, show it.

Life of a share version: scanned -> listing signed, grants and offers signed, recorded and posted -> hashed in the background ->
manifest signed. A file that changed meanwhile is left out of the manifest, with its reason; the rest goes on. Grants
are left to ``grants``, serving the bytes to ``serving``.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Literal

import msgspec
from msgspec.structs import replace
from sqlalchemy import Connection

from labxchange.audit.entry import Entry
from labxchange.audit.events import Event
from labxchange.dataset.listing import Listing, make_listing
from labxchange.dataset.manifest import FileDigests, Manifest, make_manifest
from labxchange.dataset.names import escape
from labxchange.errors import InputError, LabxchangeError, NodeLocked
from labxchange.files.hashing import CacheKey, FileHash, Hashed, hash_files
from labxchange.files.scan import Scan, Sources, scan
from labxchange.identity.statement import parse, sign
from labxchange.node.catalog import Catalog
from labxchange.node.contacts import Contacts
from labxchange.node.core import Core
from labxchange.node.grants import Grants, Terms
from labxchange.node.naming import named
from labxchange.node.values import ShareInfo
from labxchange.settings import GRANT_DAYS
from labxchange.sharing.share import Share
from labxchange.store import shares as rows
from labxchange.store import statements
from labxchange.store.hash_cache import HashCache
from labxchange.store.people import Contact
from labxchange.store.shares import ShareRow

_DAY_MS = 86_400_000
_CACHED_MIN_BYTES = 1 << 18
_MAX_GRANT_MS = 3660 * _DAY_MS


class Origin(msgspec.Struct, frozen=True, kw_only=True):
    """Where an own share version comes from, as the store keeps it."""

    sources: Sources
    skipped: tuple[tuple[str, str], ...]
    reason: str = ""


class Shares:
    """Makes and shows own shares.

    Args:
        wake: called with a contact's key when something was posted for them.
    """

    def __init__(self, core: Core, contacts: Contacts, catalog: Catalog, grants: Grants, *, wake: Callable[[str], None]) -> None:
        self._core = core
        self._contacts = contacts
        self._catalog = catalog
        self._grants = grants
        self._wake = wake
        self._hashing: dict[tuple[str, int], asyncio.Task[None]] = {}
        self._stopping = threading.Event()
        self.hashed_bytes: dict[tuple[str, int], int] = {}

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
        self._begin_hashing(row, found)
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
            envelope = statements.get(tx, row.statement)
        assert envelope is not None
        body = parse(envelope, Share).body
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
        with self._core.act(base, made) as tx:
            statements.put_body(tx, body)
            for statement in (listing, share):
                statements.put(tx, statement, about=share_id, now=now)
            rows.add_share(tx, row)
            for person in people:
                self._grants.issue(tx, row, person, terms, start=start, end=end, base=made)
        return row

    # --- hashing ------------------------------------------------------------------------------------------------------
    def _begin_hashing(self, row: ShareRow, found: Scan) -> None:
        key = (row.share, row.version)
        self.hashed_bytes[key] = 0
        self._hashing[key] = asyncio.ensure_future(self._hash(row, found))

    async def _hash(self, row: ShareRow, found: Scan) -> None:
        key = (row.share, row.version)
        try:
            digests, chunks = await asyncio.to_thread(self._hash_all, key, found)
            if self._stopping.is_set():
                return
            self._sign_manifest(row, digests, chunks)
        except NodeLocked:
            return  # as after a stop: the next unlock hashes again
        except LabxchangeError as error:
            self._fail(row, error)
        finally:
            self._hashing.pop(key, None)
            self.hashed_bytes.pop(key, None)
            self._core.notices.publish("share", row.share)

    def _hash_all(self, key: tuple[str, int], found: Scan) -> tuple[list[FileDigests], bytes]:
        def advance(count: int) -> None:
            self.hashed_bytes[key] += count

        cache = HashCache(self._core.home.root / "hash-cache.db")
        digests: list[FileDigests] = []
        chunks = bytearray()
        try:
            batches = hash_files(found.sources, found.files, cache=_Cache(cache), advance=advance, stop=self._stopping)
            for batch in batches:
                for hashed in batch:
                    digests.append(_digests_of(hashed))
                    chunks += _chunks_of(hashed, -(-found.files[hashed.file].size // found.files[hashed.file].chunk_bytes))
        finally:
            cache.close()
        return digests, bytes(chunks)

    def _sign_manifest(self, row: ShareRow, digests: list[FileDigests], chunks: bytes) -> None:
        loaded = self._catalog.load(row)
        identity, now = self._core.require(), self._core.clock.now()
        head, body = make_manifest(loaded.files, digests, issuer=self._core.me, issued=now, listing=row.listing)
        manifest = sign(head, identity)
        left_out = [(file.path, item) for file, item in zip(loaded.files, digests, strict=True) if isinstance(item, str)]
        entries = [
            Entry(
                event=Event.TRANSFER_SOURCE_CHANGED,
                object_type="file",
                object_id=escape(path, limit=1000),
                dataset=row.share,
                who=self._core.who(actor="program"),
                result="error",
                result_code=reason,
            )
            for path, reason in left_out[:100]
        ]
        entries.append(
            Entry(
                event=Event.DATASET_VERIFIED,
                object_type="dataset",
                object_id=row.share,
                object_digest=head.root,
                who=self._core.who(actor="program"),
                details={"files": head.files, "left_out": head.left_out, "bytes": head.bytes},
            )
        )
        with self._core.act(*entries) as tx:
            statements.put_body(tx, body)
            statements.put(tx, manifest, about=row.share, now=now)
            fresh = replace(self._now(tx, row, "available"), manifest=manifest.id, digests=statements.put_body(tx, chunks))
            rows.put_share(tx, fresh)

    def _now(self, tx: Connection, row: ShareRow, state: Literal["available", "failed"]) -> ShareRow:
        """The row in its new state, unless the share was retracted while it was hashed."""
        current = rows.share(tx, row.share, row.version, owner=self._core.me)
        return replace(row, state=current.state if current is not None and current.state == "retracted" else state)

    def _fail(self, row: ShareRow, error: LabxchangeError) -> None:
        origin = msgspec.msgpack.decode(row.source, type=Origin)
        source = msgspec.msgpack.encode(replace(origin, reason=error.message))
        entry = Entry(
            event=Event.DATASET_VERIFIED,
            object_type="dataset",
            object_id=row.share,
            who=self._core.who(actor="program"),
            result="error",
            result_code=error.code,
        )
        with self._core.act(entry) as tx:
            rows.put_share(tx, replace(self._now(tx, row, "failed"), source=source))

    async def resume_hashing(self) -> None:
        """After a start: hash what a stop interrupted, as it was listed."""
        with self._core.database.begin() as tx:
            pending = [row for row in rows.owned_shares(tx, self._core.me) if row.state == "hashing"]
        for row in pending:
            if (row.share, row.version) in self._hashing:
                continue
            origin = msgspec.msgpack.decode(row.source, type=Origin)
            self._begin_hashing(row, Scan(self._catalog.load(row).files, origin.sources, []))

    async def hashed(self, share: str, version: int) -> None:
        """Wait until the manifest of a share version is signed, or hashing failed or was interrupted (state ``hashing``)."""
        task = self._hashing.get((share, version))
        if task is not None:
            await asyncio.shield(task)

    async def close(self) -> None:
        self._stopping.set()
        await asyncio.gather(*self._hashing.values(), return_exceptions=True)

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
            envelope = statements.get(tx, row.statement)
        assert envelope is not None
        return parse(envelope, Share).body

    def all(self) -> list[ShareInfo]:
        with self._core.database.begin() as tx:
            owned = rows.owned_shares(tx, self._core.me)
        return [self.info(row) for row in owned]

    def info(self, row: ShareRow) -> ShareInfo:
        with self._core.database.begin() as tx:
            current = rows.share(tx, row.share, row.version, owner=self._core.me) or row
            envelope = statements.get(tx, current.listing)
            signed = statements.get(tx, current.manifest) if current.manifest else None
            grants = rows.grants_of(tx, row.share, row.version, owner=self._core.me)
        assert envelope is not None
        listing = parse(envelope, Listing).body
        manifest = parse(signed, Manifest).body if signed else None
        origin = msgspec.msgpack.decode(current.source, type=Origin)
        return ShareInfo(
            share=current.share,
            version=current.version,
            title=current.title,
            state=current.state,
            reason=origin.reason,
            files=listing.files,
            bytes=listing.bytes,
            hashed_bytes=self.hashed_bytes.get((row.share, row.version), 0),
            left_out=manifest.left_out if manifest else 0,
            root=manifest.root if manifest else "",
            created=current.stored_ms,
            skipped=origin.skipped,
            recipients=tuple(status for grant in grants for status in self._grants.recipients(grant)),
        )


class _Cache:
    """``store.hash_cache`` in the words of ``files.hashing``; a small file is hashed sooner than it is looked up."""

    def __init__(self, cache: HashCache) -> None:
        self._cache = cache

    def get(self, key: CacheKey) -> FileHash | None:
        found = self._cache.get(key) if key.size >= _CACHED_MIN_BYTES else None
        return FileHash(*found) if found else None

    def put(self, key: CacheKey, value: FileHash) -> None:
        if key.size >= _CACHED_MIN_BYTES:
            self._cache.put(key, value)


def _digests_of(hashed: Hashed) -> FileDigests:
    if isinstance(hashed.result, str):
        return hashed.result
    return hashed.result.sha256, sha256(hashed.result.chunks).digest()


def _chunks_of(hashed: Hashed, count: int) -> bytes:
    return bytes(32 * count) if isinstance(hashed.result, str) else hashed.result.chunks


def _title(text: str) -> str:
    title = escape(" ".join(text.split()), limit=200)
    if not title:
        raise InputError("title-needed", "A share needs a title.")
    return title
