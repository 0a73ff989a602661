"""What a contact may do with one's own shares: facts from the store, put before ``sharing.policy``, which decides.

The policy is asked at every request; a refusal is counted and entered here, and raised for whoever answers the request.
"""

from __future__ import annotations

from labxchange.audit.entry import Entry, Who
from labxchange.audit.events import Event
from labxchange.errors import RefusedError
from labxchange.node.contacts import Contacts
from labxchange.node.core import Core
from labxchange.node.denials import Denials
from labxchange.sharing.grant import Grant
from labxchange.sharing.policy import Action, Allow, Deny, Facts, Request, decide
from labxchange.store import people, statements, transfers
from labxchange.store import shares as rows
from labxchange.store.people import Contact
from labxchange.store.shares import GrantRow, ShareRow
from labxchange.store.transfers import TransferRow

_GRANTS_KEPT = 1000
_ENDS = frozenset({"contact-blocked", "not-a-recipient", "grant-revoked", "share-retracted", "grant-expired"})
"""What ends a transfer whose recipient is away; the rest can pass before they come again."""


class Judging:
    """Asks the policy."""

    def __init__(self, core: Core, contacts: Contacts, denials: Denials) -> None:
        self._core = core
        self._contacts = contacts
        self._denials = denials
        self._grants: dict[str, Grant] = {}

    def judge(
        self, row: Contact, action: Action, share: str, version: int, transfer: str = ""
    ) -> tuple[Allow | Deny, GrantRow | None]:
        """Ask the policy for each grant that could allow it; the first that does, or the last reason against."""
        request = Request(requester=row.key, action=action, share=share, version=version, transfer=transfer)
        with self._core.database.begin() as tx:
            answer: tuple[Allow | Deny, GrantRow | None] | None = None
            for grant in rows.grants_for(tx, row.key, share, version, owner=self._core.me) or (None,):
                answer = (decide(request, self.facts(row, grant, transfer), self._core.clock.now()), grant)
                if isinstance(answer[0], Allow):
                    break
        assert answer is not None
        return answer

    def facts(self, row: Contact, grant: GrantRow | None, transfer: str) -> Facts:
        with self._core.database.begin() as tx:
            current = self._contacts.get(row.key)
            known = transfers.transfer(tx, transfer) if transfer else None
            share = rows.share(tx, grant.share, grant.version, owner=self._core.me) if grant else None
            taken = transfers.slots_taken(tx, grant.grant, row.key, without=transfer) if grant else 0
            return Facts(
                owner=self._core.me,
                contact=current.state if current else "unknown",
                grant=self._grant(grant.statement) if grant else None,
                revoked=bool(grant and grant.revocation),
                retracted=bool(share and share.state == "retracted"),
                slots_taken=taken,
                transfer_owner=known.peer if known else "",
                transfer_grant=known.grant if known else "",
                slot_held=bool(known and known.slot in ("reserved", "used")),
                clock_in_doubt=self._core.clock.in_doubt,
            )

    def _grant(self, statement: str) -> Grant | None:
        """A grant's statement, verified once: it is asked for with each range and twice a second."""
        known = self._grants.get(statement)
        if known is None:
            with self._core.database.begin() as tx:
                found = statements.find(tx, statement, Grant)
            if found is None:
                return None
            if len(self._grants) >= _GRANTS_KEPT:
                self._grants.clear()
            known = self._grants[statement] = found.body
        return known

    def allowed(self, row: Contact, action: Action, share: str, version: int, transfer: str = "") -> GrantRow:
        answer, grant = self.judge(row, action, share, version, transfer)
        if isinstance(answer, Deny):
            event = Event.GRANT_DENIED if action == "list" else Event.TRANSFER_REFUSED
            entry = Entry(
                event=event,
                object_type="share",
                object_id=f"{share}/{version}",
                dataset=share,
                who=self.peer_who(row),
                counterparty=row.key,
                counterparty_name=row.name,
                result="denied",
                result_code=answer.code,
            )
            self._denials.note(answer.code, row.key, event=event, entry=entry)
            raise RefusedError(answer.code, answer.sentence, hint=answer.hint)
        assert grant is not None
        return grant

    def peer_who(self, row: Contact) -> Who:
        """A contact as the one who acts."""
        card = people.card_of(row)
        return Who(
            person=card.name,
            role=card.role,
            organisation=card.organisation,
            key=row.key,
            authenticated="peer handshake",
            actor="program",
        )

    def share(self, share: str, version: int) -> ShareRow:
        with self._core.database.begin() as tx:
            row = rows.share(tx, share, version, owner=self._core.me)
        if row is None:
            raise RefusedError("grant-unknown", "There is no grant for this share version.", hint="Ask the sender to share it.")
        return row

    def over(self, row: TransferRow) -> str:
        """Why a transfer can never go on under its grant; empty when it can."""
        contact = self._contacts.get(row.peer)
        if contact is None:
            return ""
        with self._core.database.begin() as tx:
            grant = rows.grant(tx, row.grant, owner=self._core.me)
        request = Request(requester=row.peer, action="read", share=row.share, version=row.version, transfer=row.transfer)
        answer = decide(request, self.facts(contact, grant, row.transfer), self._core.clock.now())
        return answer.code if isinstance(answer, Deny) and answer.code in _ENDS else ""
