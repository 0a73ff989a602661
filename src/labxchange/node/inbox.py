"""What others offer: share versions, grants and offers as they were delivered, each checked before it is kept.

Rules: a statement counts only when its issuer is the contact who delivered it; ids of shares and grants count together with who
gave them, so nobody adds to the share of somebody else or keeps an id from them, and the ids of own shares are refused; an offer
counts only when its share, listing and grant are there, agree with each other and name this node; the newest revision of a grant
wins. Receiving is left to ``receiving``.
"""

from __future__ import annotations

from msgspec.structs import replace
from sqlalchemy import Connection

from labxchange.audit.entry import Entry
from labxchange.audit.events import Event
from labxchange.dataset.listing import Listing
from labxchange.dataset.manifest import Manifest
from labxchange.dataset.names import escape
from labxchange.errors import InputError, PeerError
from labxchange.identity.statement import Signed
from labxchange.node.contacts import Contacts
from labxchange.node.core import Core
from labxchange.node.naming import named
from labxchange.node.showing import told_withheld
from labxchange.node.values import InboxItem
from labxchange.sharing.grant import ExtensionRequest, Grant, Revocation
from labxchange.sharing.share import Offer, Share
from labxchange.store import shares as rows
from labxchange.store import statements, transfers
from labxchange.store.damage import damaged
from labxchange.store.shares import GrantRow, ShareRow
from labxchange.store.transfers import TransferRow


class Inbox:
    """Keeps and shows offers."""

    def __init__(self, core: Core, contacts: Contacts) -> None:
        self._core = core
        self._contacts = contacts

    # --- taking -------------------------------------------------------------------------------------------------------
    def take_share(self, signed: Signed[Share]) -> None:
        """The first of its issuer for a listing counts: another would only be a second name."""
        with self._core.database.begin() as tx:
            if not self._shares_of(tx, signed.body.listing, signed.body.issuer):
                statements.put(tx, signed, about=signed.body.listing, now=self._core.clock.now())

    def _shares_of(self, tx: Connection, listing: str, issuer: str) -> list[Signed[Share]]:
        return [share for share in statements.about(tx, listing, Share) if share.body.issuer == issuer]

    def take_listing(self, signed: Signed[Listing]) -> None:
        with self._core.database.begin() as tx:
            statements.put(tx, signed, about=signed.body.share, now=self._core.clock.now())

    def take_grant(self, signed: Signed[Grant]) -> bool:
        """A new grant waits for its offer; a newer revision of a known one takes effect, and then this is True."""
        body = signed.body
        now = self._core.clock.now()
        with self._core.database.begin() as tx:
            row = rows.grant(tx, body.grant, owner=body.issuer)
            statements.put(tx, signed, about=body.grant, now=now)
            old = statements.need(tx, row.statement, Grant).body if row else None
        if row is None or old is None:
            return False
        if (old.share, old.version, old.listing) != (body.share, body.version, body.listing):
            raise PeerError("grant-changed", "A grant changed what it is about.")
        if body.revision <= old.revision:
            return False
        entry = self._entry(Event.GRANT_CHANGED, signed.body.issuer, body.share, object_type="grant", object_id=body.grant)
        entry = replace(entry, old=f"not_after {old.not_after}", new=f"not_after {body.not_after}", object_digest=signed.id)
        with self._core.act(entry) as tx:
            rows.put_grant(tx, replace(row, statement=signed.id, not_after=body.not_after, ended=0, asked_until=0), [])
        self._core.notices.publish("inbox", body.share)
        return True

    def take_offer(self, signed: Signed[Offer]) -> None:
        """An offer is shown once all that it names is here and agrees."""
        body, now = signed.body, self._core.clock.now()
        with self._core.database.begin() as tx:
            listing = statements.find(tx, body.listing, Listing)
            grant = statements.find(tx, body.grant, Grant)
            share = next(iter(self._shares_of(tx, body.listing, body.issuer)), None)
            known = rows.share(tx, body.share, body.version, owner=body.issuer)
            own = rows.newest_version(tx, body.share, self._core.me) > 0
        if listing is None or grant is None or share is None:
            raise PeerError("offer-incomplete", "An offer came without its share, listing or grant.")
        told = {(item.issuer, item.share, item.version) for item in (body, share.body, listing.body, grant.body)}
        named = self._core.me in grant.body.recipients and body.recipient == self._core.me
        if len(told) != 1 or grant.body.listing != body.listing or not named:
            raise PeerError("offer-inconsistent", "An offer contradicts the share, listing or grant that it names.")
        if own:
            raise PeerError("share-foreign", "An offer names a share that belongs to this node.")
        if known is not None and known.listing != body.listing:
            raise PeerError("offer-inconsistent", "An offer contradicts an earlier one for the same share version.")
        row = known or ShareRow(
            share=body.share,
            version=body.version,
            owner=body.issuer,
            state="available",
            title=escape(share.body.title, limit=200),
            statement=share.id,
            listing=body.listing,
            stored_ms=now,
        )
        granted = GrantRow(
            grant=grant.body.grant,
            owner=body.issuer,
            share=body.share,
            version=body.version,
            statement=body.grant,
            offer=signed.id,
            not_after=grant.body.not_after,
        )
        with self._core.database.begin() as tx:
            if rows.grant(tx, granted.grant, owner=granted.owner) is not None:
                return
        entry = self._entry(
            Event.TRANSFER_OFFERED, body.issuer, body.share, object_type="share", object_id=f"{body.share}/{body.version}"
        )
        entry = replace(
            entry,
            object_digest=signed.id,
            study=share.body.study,
            site=share.body.site,
            category=share.body.category,
            purpose=grant.body.purpose,
        )
        with self._core.act(entry) as tx:
            statements.put(tx, signed, about=body.share, now=now)
            rows.put_share(tx, row)
            rows.put_grant(tx, granted, [self._core.me])
        self._core.notices.publish("inbox", body.share)

    def take_revocation(self, signed: Signed[Revocation]) -> str:
        """A grant ends; returns its id.

        Raises:
            PeerError: ``grant-unknown``: its issuer gave no such grant.
        """
        with self._core.database.begin() as tx:
            row = rows.grant(tx, signed.body.grant, owner=signed.body.issuer)
        if row is None:
            raise PeerError("grant-unknown", "A revocation names a grant that its issuer did not give.")
        if row.revocation:
            return row.grant
        entry = self._entry(Event.GRANT_REVOKED, row.owner, row.share, object_type="grant", object_id=row.grant)
        with self._core.act(replace(entry, object_digest=signed.id, reason_text=signed.body.reason)) as tx:
            statements.put(tx, signed, about=row.grant, now=self._core.clock.now())
            rows.put_grant(tx, replace(row, revocation=signed.id, ended=1), [])
        self._core.notices.publish("inbox", row.share)
        return row.grant

    def take_manifest(self, signed: Signed[Manifest]) -> ShareRow | None:
        """The manifest of an offered share version; the same listing must not get two."""
        with self._core.database.begin() as tx:
            found = rows.shares_of_listing(tx, signed.body.listing)
        if not found or found[0].owner != signed.body.issuer:
            raise PeerError("manifest-unknown", "A manifest names a listing that its issuer did not offer.")
        row = found[0]
        if row.manifest and row.manifest != signed.id:
            raise PeerError("manifest-changed", "The sender signed two manifests for one listing.")
        with self._core.database.begin() as tx:
            statements.put(tx, signed, about=row.share, now=self._core.clock.now())
            rows.put_share(tx, replace(row, manifest=signed.id))
        return replace(row, manifest=signed.id)

    def _entry(self, event: Event, sender: str, share: str, **fields: str) -> Entry:
        return Entry(
            event=event,
            dataset=share,
            who=self._core.who(actor="program"),
            counterparty=sender,
            counterparty_name=self._contacts.name(sender),
            **fields,  # type: ignore[arg-type]
        )

    # --- showing ------------------------------------------------------------------------------------------------------
    def all(self) -> list[InboxItem]:
        with self._core.database.begin() as tx:
            foreign = rows.grants_foreign(tx, self._core.me)
        return [self.item(row) for row in foreign]

    def find(self, text: str, *, sender: str = "") -> GrantRow:
        """The offer that ``text`` names, as ``naming`` reads it, of contact ``sender`` where one is named; the newest version
        first.

        Raises:
            InputError: ``offer-unknown``, ``offer-ambiguous``, ``contact-unknown``, ``contact-ambiguous``.
        """
        owner = self._contacts.find(sender).key if sender else ""
        with self._core.database.begin() as tx:
            offers = [row for row in rows.grants_foreign(tx, self._core.me) if owner in ("", row.owner)]
            offered = {(row.share, row.version, row.owner): None for row in offers}
            shares = [rows.share(tx, share, version, owner=key) for share, version, key in offered]
        found = named(text, [share for share in shares if share is not None])
        if not found.rows:
            raise InputError(
                "offer-unknown", f"Nobody offers a share {escape(text)!r}.", hint="`labxchange inbox` shows all offers."
            )
        if found.shares > 1:
            raise InputError(
                "offer-ambiguous",
                f"{escape(text)!r} could be several shares.",
                hint="Use the share's id, or say whose it is: `--from NAME`.",
            )
        newest = max(found.rows, key=lambda share: share.version)
        wanted = (newest.owner, newest.share, newest.version)
        of_newest = [row for row in offers if (row.owner, row.share, row.version) == wanted]
        return max(of_newest, key=lambda grant: (not grant.revocation, grant.not_after))

    def item(self, row: GrantRow) -> InboxItem:
        with self._core.database.begin() as tx:
            share = rows.share(tx, row.share, row.version, owner=row.owner)
            if share is None:
                raise damaged("A share that was offered")
            listing = statements.need(tx, share.listing, Listing)
            manifest = statements.need(tx, share.manifest, Manifest) if share.manifest else None
            grant = statements.need(tx, row.statement, Grant)
            statement = statements.need(tx, share.statement, Share)
            attempts = transfers.incoming_of(tx, row.grant, owner=row.owner)
        newest = attempts[-1] if attempts else None
        sender = self._contacts.get(row.owner)
        return InboxItem(
            share=row.share,
            version=row.version,
            title=share.title,
            note=escape(statement.body.note),
            sender=sender.name if sender else "",
            sender_key=row.owner,
            sender_state=sender.state if sender else "unknown",
            state=_state(row, grant.body, newest, self._core.clock.now()),
            reason=newest.reason if newest else "",
            files=listing.body.files,
            bytes=listing.body.bytes,
            root=manifest.body.root if manifest else "",
            purpose=escape(grant.body.purpose),
            revoked=bool(row.revocation),
            not_before=grant.body.not_before,
            not_after=grant.body.not_after,
            offered=share.stored_ms,
            transfer=newest.transfer if newest else "",
            destination=newest.destination.decode(errors="replace") if newest else "",
            withheld=told_withheld(statement.body),
        )

    def ask_extension(self, text: str, *, sender: str, until: int, reason: str) -> GrantRow:
        """Ask the sender for a later end; returns the grant that it is about.

        Raises:
            InputError: of ``find``; ``grant-end-in-past``, ``grant-revoked``, ``statement-invalid``.
        """
        self._core.require()
        row = self.find(text, sender=sender)
        if row.revocation:
            raise InputError("grant-revoked", "The sender has revoked this grant, so it cannot be extended.")
        if until <= max(self._core.clock.now(), row.not_after):
            raise InputError("grant-end-in-past", "Ask for an end that is later than the present one.")
        request = self._core.sign(ExtensionRequest, grant=row.grant, until=until, reason=reason)
        entry = self._entry(Event.GRANT_CHANGED, row.owner, row.share, object_type="grant", object_id=row.grant)
        entry = replace(
            entry,
            who=self._core.who(),
            old=f"not_after {row.not_after}",
            new=f"asked for {until}",
            reason_text=reason,
            result_code="requested",
        )
        with self._core.act(entry) as tx:
            statements.put(tx, request, about=row.grant, now=self._core.clock.now())
            statements.post(tx, row.owner, request.id)
            rows.put_grant(tx, replace(row, asked_until=until), [])
        self._core.notices.publish("inbox", row.share)
        return row


def _state(row: GrantRow, grant: Grant, newest: TransferRow | None, now: int) -> str:
    if newest is not None and newest.state in ("verified", "completed"):
        return "verified"
    if row.revocation:
        return "revoked"
    if now >= grant.not_after:
        return "expired"
    if newest is not None and newest.state in ("waiting", "running", "paused"):
        return "in progress"
    if newest is not None and newest.state != "cancelled":
        return newest.state
    return "available"
