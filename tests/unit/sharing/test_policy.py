"""``decide`` against a second, plain telling of its rules, over every combination of what can be the case."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

import msgspec
import pytest

from labxchange.errors import InputError
from labxchange.sharing.grant import Grant, changed
from labxchange.sharing.policy import Allow, Deny, Facts, Request, decide

OWNER, BO, CY = "a" * 64, "b" * 64, "c" * 64
SHARE, OTHER = "1" * 32, "2" * 32
TRANSFER = "3" * 32
BEGIN, END = 1000, 2000


def grant(**fields: object) -> Grant:
    given: dict[str, object] = {
        "issuer": OWNER,
        "issued": 500,
        "grant": "4" * 32,
        "revision": 1,
        "share": SHARE,
        "version": 1,
        "listing": "5" * 64,
        "recipients": [BO],
        "rights": ["list", "read"],
        "purpose": "",
        "not_before": BEGIN,
        "not_after": END,
        "downloads": 2,
    }
    return Grant(**(given | fields))  # type: ignore[arg-type]


GRANTS: dict[str, Grant | None] = {
    "none": None,
    "good": grant(),
    "of another": grant(issuer=CY),
    "other share": grant(share=OTHER),
    "other version": grant(version=2),
    "names another": grant(recipients=[CY]),
    "only list": grant(rights=["list"]),
    "only read": grant(rights=["read"]),
}
TIMES = (0, BEGIN - 1, BEGIN, END - 1, END, END + 10**12)
TRANSFERS: dict[str, tuple[str, str, bool]] = {
    "new": ("", "", False),
    "running": (BO, "4" * 32, True),
    "slot returned": (BO, "4" * 32, False),
    "of another person": (CY, "4" * 32, True),
    "under another grant": (BO, "6" * 32, True),
}


def plain(request: Request, facts: Facts, now: int) -> str:
    """The rules once more, as a list; "" where every one holds."""
    held = facts.grant
    names_it = held is not None and (held.issuer, held.share, held.version) == (OWNER, request.share, request.version)
    mine = facts.transfer_owner in ("", request.requester) and facts.transfer_grant in ("", held.grant if held else "")
    needed = "list" if request.action == "list" else "read"
    free = held is not None and (facts.slot_held or facts.slots_taken < held.downloads)
    rules: list[tuple[str, Callable[[], bool]]] = [
        ("clock-in-doubt", lambda: not facts.clock_in_doubt),
        ("contact-unknown", lambda: facts.contact != "unknown"),
        ("contact-blocked", lambda: facts.contact != "blocked"),
        ("contact-unverified", lambda: facts.contact == "verified"),
        ("grant-unknown", lambda: names_it),
        ("not-a-recipient", lambda: held is not None and request.requester in held.recipients),
        ("grant-revoked", lambda: not facts.revoked),
        ("share-retracted", lambda: not facts.retracted),
        ("grant-not-yet-valid", lambda: held is not None and now >= held.not_before),
        ("grant-expired", lambda: held is not None and now < held.not_after),
        ("right-missing", lambda: held is not None and needed in held.rights),
        ("transfer-foreign", lambda: request.action == "list" or mine),
        ("transfer-unknown", lambda: request.action != "read" or facts.slot_held),
        ("downloads-exhausted", lambda: request.action == "list" or free),
    ]
    return next((code for code, holds in rules if not holds()), "")


@pytest.mark.parametrize("action", ["list", "start", "read"])
@pytest.mark.parametrize("contact", ["unknown", "unverified", "verified", "blocked"])
def test_every_combination(action: str, contact: str) -> None:
    seen: set[str] = set()
    combinations = product(GRANTS.values(), TIMES, TRANSFERS.values(), (0, 1, 2, 5), *[(False, True)] * 3)
    for held, now, (owner, under, slot), taken, revoked, retracted, doubt in combinations:
        request = Request(requester=BO, action=action, share=SHARE, version=1, transfer=TRANSFER)  # type: ignore[arg-type]
        facts = Facts(
            owner=OWNER,
            contact=contact,  # type: ignore[arg-type]
            grant=held,
            revoked=revoked,
            retracted=retracted,
            slots_taken=taken,
            transfer_owner=owner,
            transfer_grant=under,
            slot_held=slot,
            clock_in_doubt=doubt,
        )
        answer = decide(request, facts, now)
        expected = plain(request, facts, now)
        seen.add(expected)
        if expected:
            assert isinstance(answer, Deny), (expected, facts)
            assert answer.code == expected
            assert answer.sentence.endswith(".")
            assert answer.hint
        else:
            assert answer == Allow()
    assert ("" in seen) is (contact == "verified")


def test_a_grant_ends_after_it_begins_and_names_nobody_twice() -> None:
    for fields in ({"not_after": BEGIN}, {"not_after": BEGIN - 1}, {"recipients": [BO, BO]}):
        with pytest.raises(ValueError):
            grant(**fields)
    for wrong in ({"recipients": []}, {"rights": []}, {"rights": ["write"]}, {"downloads": 0}, {"recipients": ["x"]}):
        with pytest.raises((msgspec.ValidationError, ValueError)):
            msgspec.convert(msgspec.to_builtins(grant(**wrong)), Grant)


def test_a_change_is_the_next_revision_and_never_ends_in_the_past() -> None:
    later = changed(grant(), issued=1500, not_after=9000)
    assert (later.revision, later.not_after, later.issued, later.grant) == (2, 9000, 1500, grant().grant)
    earlier = changed(later, issued=1600, not_after=1700)
    assert (earlier.revision, earlier.not_after) == (3, 1700)
    for issued, until in ((1500, 1500), (1500, 1400), (500, BEGIN), (500, 600)):
        with pytest.raises(InputError) as past:
            changed(grant(), issued=issued, not_after=until)
        assert past.value.code == "grant-end-in-past"
