"""May they? The one pure function that answers, and its reasons.

Rules, in the order in which they are asked (deny by default: a request passes only when every one holds)
- the clock of this node is not in doubt
- the requester is a contact, is not blocked, and is verified here
- the grant exists, was issued by this node, names exactly this share version, and names the requester
- the grant was not revoked, the share was not retracted
- now lies between not-before and not-after
- the grant holds the right that the action needs
- a new transfer finds a free download slot; a resume belongs to the same requester and the same grant

What it does not do: look anything up (facts are given), remember (slots are taken in the store's transaction), tell anybody.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from labxchange.sharing.grant import Grant

Action = Literal["list", "start", "read"]
ContactState = Literal["unknown", "unverified", "verified", "blocked"]

_RIGHT: dict[Action, Literal["list", "read"]] = {"list": "list", "start": "read", "read": "read"}


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """Who asks for what. ``transfer`` is empty for ``list``."""

    requester: str
    action: Action
    share: str
    version: int
    transfer: str = ""


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """What the store knows about it. ``slots_taken`` counts this requester's download slots under the grant, without this
    transfer's; ``transfer_owner`` and ``transfer_grant`` are empty while the transfer is not known; ``slot_held`` is true while
    it holds a slot (a slot that was returned is not held)."""

    owner: str
    contact: ContactState
    grant: Grant | None
    revoked: bool
    retracted: bool
    slots_taken: int
    transfer_owner: str
    transfer_grant: str
    slot_held: bool
    clock_in_doubt: bool


class Allow(msgspec.Struct, frozen=True):
    """Every rule holds."""


class Deny(msgspec.Struct, frozen=True, kw_only=True):
    """A rule does not hold: stable code, sentence for the requester, what they can do."""

    code: str
    sentence: str
    hint: str


def decide(request: Request, facts: Facts, now: int) -> Allow | Deny:
    """Allow or the first reason against; ``now`` in UTC milliseconds."""
    return _clock(facts) or _contact(facts) or _grant(request, facts, now) or _transfer(request, facts) or Allow()


def _clock(facts: Facts) -> Deny | None:
    if facts.clock_in_doubt:
        return Deny(
            code="clock-in-doubt",
            sentence="The clock of the sender's node is in doubt, so no grant can be judged.",
            hint="The sender sets it right with `labxchange clock reset`; then try again.",
        )
    return None


def _contact(facts: Facts) -> Deny | None:
    match facts.contact:
        case "unknown":
            return Deny(code="contact-unknown", sentence="The sender does not know this key.", hint="Ask for an invitation.")
        case "blocked":
            return Deny(code="contact-blocked", sentence="The sender has blocked this contact.", hint="Speak with the sender.")
        case "unverified":
            return Deny(
                code="contact-unverified",
                sentence="The sender has not verified who you are.",
                hint="Read your six words to the sender over the telephone; they are in `labxchange key show`.",
            )
        case "verified":
            return None


def _grant(request: Request, facts: Facts, now: int) -> Deny | None:
    grant = facts.grant
    if grant is None or grant.issuer != facts.owner or (grant.share, grant.version) != (request.share, request.version):
        return Deny(
            code="grant-unknown", sentence="There is no grant for this share version.", hint="Ask the sender to share it."
        )
    if request.requester not in grant.recipients:
        return Deny(code="not-a-recipient", sentence="The grant does not name you.", hint="Ask the sender to share it with you.")
    if facts.revoked:
        return Deny(code="grant-revoked", sentence="The sender has revoked the grant.", hint="Ask the sender why.")
    if facts.retracted:
        return Deny(code="share-retracted", sentence="The sender has taken this share back.", hint="Ask for a newer version.")
    if now < grant.not_before:
        return Deny(code="grant-not-yet-valid", sentence="The grant is not valid yet.", hint="Try again when it begins.")
    if now >= grant.not_after:
        return Deny(
            code="grant-expired",
            sentence="The grant has ended.",
            hint="Ask for more time with `labxchange share request-extension`.",
        )
    if _RIGHT[request.action] not in grant.rights:
        return Deny(code="right-missing", sentence="The grant does not hold this right.", hint="Ask the sender for it.")
    return None


def _transfer(request: Request, facts: Facts) -> Deny | None:
    grant = facts.grant
    if request.action == "list" or grant is None:
        return None
    if facts.transfer_owner and (facts.transfer_owner, facts.transfer_grant) != (request.requester, grant.grant):
        return Deny(
            code="transfer-foreign", sentence="This transfer belongs to somebody else.", hint="Start a transfer of your own."
        )
    if request.action == "read" and not facts.slot_held:
        return Deny(code="transfer-unknown", sentence="This transfer was never started.", hint="Receive the share again.")
    if not facts.slot_held and facts.slots_taken >= grant.downloads:
        return Deny(
            code="downloads-exhausted",
            sentence=f"All {grant.downloads} downloads of this grant are taken.",
            hint="Ask the sender to share it again.",
        )
    return None
