"""Contacts: invite, accept, verify, block - and who may connect.

Rules kept here
- an invitation lets one unknown key connect once, within its days; a second use is refused and shown to the inviter
- a new contact is unverified, whatever name it claims; six words typed by a person verify it, or an invitation made for its key
- a new key that claims the name of somebody known is blocked and alerted until a person decides; it is never a click-through
- a blocked or unknown key is refused in the handshake, and its attempts are written once a minute

Connecting is left to ``peers``, what faces see to ``acquaintance``.
"""

from __future__ import annotations

import hmac
import unicodedata

from msgspec.structs import replace
from sqlalchemy import Connection

from labxchange.audit.entry import Entry, Who
from labxchange.audit.events import Event
from labxchange.dataset.names import escape
from labxchange.errors import InputError, RefusedError
from labxchange.identity.card import Card
from labxchange.identity.fingerprint import WORD_COUNT, complete_word, fingerprint, parse_fingerprint, words
from labxchange.identity.invitation import Invitation, invitation_proof, parse_invitation
from labxchange.identity.statement import Signed
from labxchange.node.core import Core
from labxchange.node.denials import Denials
from labxchange.node.sealing import open_sealed, seal_secret
from labxchange.settings import INVITATION_DAYS
from labxchange.store import people
from labxchange.store.people import Contact, InvitationRow

_DAY_MS = 86_400_000


class Contacts:
    """The address book of one node."""

    def __init__(self, core: Core, denials: Denials) -> None:
        self._core = core
        self._denials = denials

    # --- looking up ---------------------------------------------------------------------------------------------------
    def all(self) -> list[Contact]:
        with self._core.database.begin() as tx:
            return people.all_contacts(tx)

    def get(self, key: str) -> Contact | None:
        with self._core.database.begin() as tx:
            return people.contact(tx, key)

    def find(self, text: str) -> Contact:
        """The one contact that ``text`` names: by name, fingerprint (or its first group), or key.

        Raises:
            InputError: ``contact-unknown``, ``contact-ambiguous``.
        """
        wanted = " ".join(text.split()).casefold()
        rows = self.all()
        found = [row for row in rows if row.name.casefold() == wanted or row.key == wanted]
        if not found and len(wanted) >= 7:
            found = [row for row in rows if fingerprint(bytes.fromhex(row.key)).casefold().startswith(wanted)]
        if not found and wanted:
            found = [row for row in rows if wanted in row.name.casefold()]
        if not found:
            raise InputError(
                "contact-unknown", f"There is no contact {escape(text)!r}.", hint="`labxchange contact list` shows all."
            )
        if len(found) > 1:
            raise InputError(
                "contact-ambiguous", f"{escape(text)!r} could be {len(found)} contacts.", hint="Use the fingerprint instead."
            )
        return found[0]

    def name(self, key: str) -> str:
        """The name to show for a key."""
        if key == self._core.me and self._core.card is not None:
            return self._core.card.body.name
        row = self.get(key)
        return row.name if row else f"unknown key {key[:12]}"

    def entry(self, event: Event, row: Contact, **fields: object) -> Entry:
        """An entry about a contact."""
        given: dict[str, object] = {
            "object_type": "contact",
            "object_id": row.key,
            "who": self._core.who(),
            "counterparty": row.key,
            "counterparty_name": row.name,
            "country": people.card_of(row).country,
        }
        return Entry(event=event, **(given | fields))  # type: ignore[arg-type]

    # --- invitations --------------------------------------------------------------------------------------------------
    def invite(self, *, made_for: str = "") -> Invitation:
        """A new invitation; ``made_for`` a fingerprint that is already known.

        Raises:
            InputError: ``no-address``, ``fingerprint-mistyped``.
        """
        identity, card = self._core.require(), self._core.require_card().body
        made_for = parse_fingerprint(made_for) if made_for else ""
        if not card.addresses:
            raise InputError(
                "no-address", "This node listens nowhere that others could reach.", hint="`labxchange doctor` says what is wrong."
            )
        invitation = Invitation(
            inviter=identity.public,
            addresses=list(card.addresses),
            id=self._core.random_bytes(16),
            secret=self._core.random_bytes(16),
            expires=self._core.clock.now() + INVITATION_DAYS * _DAY_MS,
        )
        row = InvitationRow(
            id=invitation.id.hex(),
            secret=seal_secret(identity, invitation.secret, invitation.id.hex(), random_bytes=self._core.random_bytes),
            made_for=made_for,
            expires_ms=invitation.expires,
            state="open",
        )
        entry = Entry(
            event=Event.INVITATION_CREATED, object_type="invitation", object_id=row.id, who=self._core.who(), new=made_for
        )
        with self._core.act(entry) as tx:
            people.put_invitation(tx, row)
        return invitation

    def read(self, text: str) -> Invitation:
        """An invitation that somebody sent.

        Raises:
            InputError: ``invitation-malformed``, ``invitation-expired``, ``invitation-own``.
        """
        invitation = parse_invitation(text)
        if invitation.inviter == self._core.require().public:
            raise InputError("invitation-own", "This is your own invitation.", hint="Send it to the person you want to meet.")
        if invitation.expires <= self._core.clock.now():
            raise InputError("invitation-expired", "This invitation has expired.", hint="Ask for a new one.")
        return invitation

    # --- the handshake's question -------------------------------------------------------------------------------------
    def admit(self, card: Signed[Card], *, invitation_id: bytes, proof: bytes, th1: bytes) -> None:
        """May this proven key connect? Called for each inbound connection.

        Raises:
            RefusedError: ``contact-blocked``, ``contact-unknown``, ``invitation-used``, ``invitation-expired``,
                ``invitation-unknown``, ``invitation-for-another``.
        """
        key = card.body.issuer
        row = self.get(key)
        if row is not None and row.state == "blocked":
            self._deny("contact-blocked", key)
        if row is not None:
            self.update_card(card)
            return
        if not invitation_id:
            self._deny("contact-unknown", key, stranger=True)
        self._admit_invited(card, invitation_id=invitation_id, proof=proof, th1=th1)

    def _admit_invited(self, card: Signed[Card], *, invitation_id: bytes, proof: bytes, th1: bytes) -> None:
        key = card.body.issuer
        with self._core.database.begin() as tx:
            invitation = people.invitation(tx, invitation_id.hex())
        code = ""
        if invitation is None:
            code = "invitation-unknown"
        else:
            secret = open_sealed(self._core.require(), invitation.secret, invitation.id)
            if not hmac.compare_digest(invitation_proof(secret, th1=th1, card=card.envelope), proof):
                code = "invitation-unknown"
            elif invitation.state == "used":
                code = "invitation-used"
            elif invitation.expires_ms <= self._core.clock.now():
                code = "invitation-expired"
            elif invitation.made_for not in ("", fingerprint(bytes.fromhex(key))):
                code = "invitation-for-another"
        if invitation is None or code:
            self._refuse_invited(card, invitation if code != "invitation-unknown" else None, code)
        assert invitation is not None
        used = Entry(
            event=Event.INVITATION_USED,
            object_type="invitation",
            object_id=invitation.id,
            who=self._stranger(card.body),
            counterparty=key,
            counterparty_name=card.body.name,
        )
        spent = replace(invitation, state="used", used_by=key)
        self.add(card, verified=bool(invitation.made_for), before=used, spent=spent)

    def _refuse_invited(self, card: Signed[Card], invitation: InvitationRow | None, code: str) -> None:
        if invitation is None:
            self._deny(code, card.body.issuer, stranger=True)
            return
        event = Event.INVITATION_REUSED if code == "invitation-used" else Event.INVITATION_REFUSED
        entry = Entry(
            event=event,
            object_type="invitation",
            object_id=invitation.id,
            who=self._stranger(card.body),
            result="denied",
            result_code=code,
            counterparty=card.body.issuer,
            counterparty_name=card.body.name,
        )
        self._denials.note(code, card.body.issuer, event=event, entry=entry, stranger=True)
        if code == "invitation-used":
            with self._core.database.begin() as tx:
                people.put_invitation(tx, replace(invitation, reused=invitation.reused + 1))
                _alert_interception(tx, invitation)
        self._core.notices.publish("contact")
        raise RefusedError(code, "The invitation cannot be used.")

    def _deny(self, code: str, key: str, *, stranger: bool = False) -> None:
        self._denials.note(code, key, stranger=stranger)
        raise RefusedError(code, "The connection is refused.")

    def _stranger(self, card: Card) -> Who:
        return Who(
            person=card.name, organisation=card.organisation, key=card.issuer, authenticated="peer handshake", actor="program"
        )

    # --- adding and changing ------------------------------------------------------------------------------------------
    def add(
        self, card: Signed[Card], *, verified: bool, before: Entry | None = None, spent: InvitationRow | None = None
    ) -> Contact:
        """Pin a new key: unverified, verified (invited by its fingerprint), or blocked when it claims a known person's name.

        ``spent`` is the invitation that it used: no longer open from the same moment on.
        """
        now = self._core.clock.now()
        body = card.body
        known = self.get(body.issuer)
        if known is not None:
            return known
        twins = [row for row in self.all() if _same_person(row, body)]
        alert = "This key claims the name of a contact you already have. It is blocked until you decide." if twins else ""
        row = Contact(
            key=body.issuer,
            state="blocked" if twins else "verified" if verified else "unverified",
            name=escape(body.name),
            card=card.envelope,
            added_ms=now,
            verified_ms=now if verified and not twins else 0,
            alert=alert,
        )
        entries = [before] if before else []
        entries.append(self.entry(Event.CONTACT_ADDED, row, new=row.state))
        if twins:
            entries.append(self.entry(Event.CONTACT_KEY_CHANGED, row, old=twins[0].key, new=row.key, result="denied"))
        elif verified:
            entries.append(self.entry(Event.CONTACT_VERIFIED, row, reason_code="invited-by-fingerprint"))
        with self._core.act(*entries) as tx:
            people.put_contact(tx, row)
            if spent is not None:
                people.put_invitation(tx, spent)
            for twin in twins:
                text = (
                    "Another key has claimed this contact's name; it was blocked. Speak with them over a known telephone number."
                )
                people.put_contact(tx, replace(twin, alert=text))
        self._core.notices.publish("contact", row.key)
        if row.state == "blocked":
            raise RefusedError("contact-key-changed", "A different key is already known under this name.")
        return row

    def update_card(self, card: Signed[Card]) -> None:
        """Take a newer card of a known key; the newest wins. A new name is shown, the name of another contact not taken."""
        row = self.get(card.body.issuer)
        if row is None:
            return
        old = people.card_of(row)
        if card.body.issued <= old.issued:
            return
        if (card.body.trail_key, card.body.cosign_key) != (old.trail_key, old.cosign_key):
            self._refuse_keys(row, card.body)
            return
        if _person(card.body) != _person(old):
            if any(_same_person(other, card.body) for other in self.all()):
                self._refuse_name(row, card.body)
                return
            row = replace(row, alert=f"This contact called themselves {row.name} ({escape(old.organisation)}) before.")
        change = self.entry(Event.CONTACT_ADDRESS_CHANGED, row, old=", ".join(old.addresses), new=", ".join(card.body.addresses))
        entries = [change] if old.addresses != card.body.addresses else []
        if _person(card.body) != _person(old):
            entries.append(
                self.entry(
                    Event.CONTACT_ADDRESS_CHANGED,
                    row,
                    old=f"{old.name}, {old.organisation}",
                    new=f"{card.body.name}, {card.body.organisation}",
                    result_code="name-changed",
                )
            )
        with self._core.act(*entries) as tx:
            people.put_contact(tx, replace(row, card=card.envelope, name=escape(card.body.name)))
        self._core.notices.publish("contact", row.key)

    def _refuse_keys(self, row: Contact, claimed: Card) -> None:
        """Another trail or cosigning key under the same identity key: nothing that labxchange does makes one."""
        if row.state == "blocked":
            return
        alert = "This contact now shows other keys for its trail. It is blocked until you decide."
        entry = self.entry(
            Event.CONTACT_KEY_CHANGED, row, new=claimed.trail_key, result="denied", result_code="trail-key-changed"
        )
        with self._core.act(entry) as tx:
            people.put_contact(tx, replace(row, state="blocked", verified_ms=0, alert=alert))
        self._core.notices.publish("contact", row.key)

    def _refuse_name(self, row: Contact, claimed: Card) -> None:
        alert = "This contact now claims the name of another contact you have; it was not taken."
        if row.alert == alert:
            return
        entry = self.entry(
            Event.CONTACT_KEY_CHANGED, row, old=row.name, new=claimed.name, result="denied", result_code="name-of-another"
        )
        with self._core.act(entry) as tx:
            people.put_contact(tx, replace(row, alert=alert))
        self._core.notices.publish("contact", row.key)

    def verify(self, text: str, typed: list[str]) -> Contact:
        """Compare the six words that a person heard and typed with the contact's key.

        Raises:
            InputError: ``words-count``, ``word-unknown``, ``words-differ``, ``contact-blocked``.
        """
        self._core.require()
        row = self.find(text)
        if row.state == "blocked":
            raise InputError("contact-blocked", f"{row.name} is blocked.", hint="Unblock first, if you are sure.")
        if len(typed) != WORD_COUNT:
            raise InputError("words-count", f"There are {WORD_COUNT} words, not {len(typed)}.")
        heard = tuple(complete_word(word) for word in typed)
        if heard != words(bytes.fromhex(row.key)):
            self._core.record(self.entry(Event.CONTACT_VERIFIED, row, result="denied", result_code="words-differ"))
            raise InputError(
                "words-differ",
                f"These are not the words of the key that claims to be {row.name}.",
                hint="Ask them to read the words again. If they still differ, somebody stands between you: do not share.",
            )
        now = self._core.clock.now()
        row = replace(row, state="verified", verified_ms=now, alert="")
        with self._core.act(self.entry(Event.CONTACT_VERIFIED, row, reason_code="six-words")) as tx:
            people.put_contact(tx, row)
        self._core.notices.publish("contact", row.key)
        return row

    def block(self, text: str, *, reason: str) -> Contact:
        """Refuse this key from now on."""
        return self._change(text, Event.CONTACT_BLOCKED, "blocked", reason)

    def unblock(self, text: str, *, reason: str) -> Contact:
        """Let a blocked key connect again, unverified."""
        row = self.find(text)
        if row.state != "blocked":
            raise InputError("contact-not-blocked", f"{row.name} is not blocked.")
        return self._change(text, Event.CONTACT_UNBLOCKED, "unverified", reason)

    def accept_trail(self, text: str, *, reason: str) -> Contact:
        """A person decides to go on with a contact whose trail diverged or was rolled back; the evidence is kept."""
        row = self.find(text)
        if not row.trail:
            raise InputError("trail-not-stopped", f"Nothing is wrong with the trail of {row.name}.")
        event = Event.TRAIL_DIVERGED if row.trail == "diverged" else Event.TRAIL_ROLLED_BACK
        entry = self.entry(event, row, old=row.trail, new="accepted by a person", reason_text=reason)
        with self._core.act(entry) as tx:
            people.forget_witnessed(tx, row.key, now=self._core.clock.now())
            people.put_contact(tx, replace(row, trail="", alert=""))
        self._core.notices.publish("contact", row.key)
        return self.find(row.key)

    def _change(self, text: str, event: Event, state: str, reason: str) -> Contact:
        self._core.require()
        row = self.find(text)
        changed = replace(row, state=state, alert="", verified_ms=0)
        with self._core.act(self.entry(event, row, old=row.state, new=state, reason_text=reason)) as tx:
            people.put_contact(tx, changed)
        self._core.notices.publish("contact", row.key)
        return changed


def _same_person(row: Contact, card: Card) -> bool:
    return row.key != card.issuer and _person(people.card_of(row)) == _person(card)


def _person(card: Card) -> tuple[str, ...]:
    """A name and an organisation as a person reads them: letters of other forms and other blanks make no other person."""
    return tuple(" ".join(unicodedata.normalize("NFKC", text).casefold().split()) for text in (card.name, card.organisation))


def _alert_interception(tx: Connection, invitation: InvitationRow) -> None:
    row = people.contact(tx, invitation.used_by)
    if row is not None:
        alert = "The invitation that this contact used was tried again by another key: someone may have intercepted it."
        people.put_contact(tx, replace(row, alert=alert))
