"""Writes ``audit.json``: the test vectors of ``docs/spec/audit.md``.

    python -m tests.vectors.make_audit      (from the repository, with src on the path)

Everything follows from fixed seeds, so a run that changes the file shows a change of the format.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from labxchange.audit import checkpoint as cp
from labxchange.audit import leaf, verifier
from labxchange.audit.entry import Entry
from labxchange.audit.events import Event
from labxchange.audit.export import Succession, succession_message
from labxchange.audit.scope import Scope, scope_key, scope_tag
from labxchange.encoding import b64encode, frame
from labxchange.identity.keys import Identity
from tests.unit.audit.world import CRO, SPONSOR, Party, Trail, entry, sample

PATH = Path(__file__).with_name("audit.json")


def _leaf_vectors() -> list[dict[str, Any]]:
    trail = Trail(SPONSOR, "vector")
    trail.write(Entry(event=Event.SYSTEM_STARTED))
    trail.write(Entry(event=Event.ACCESS_DENIED, result="denied", result_code="unknown-peer"))
    trail.write(entry(15))
    return [
        {
            "leaf": built.data.decode(),
            "leaf_hash": built.hash.hex(),
            "openings": [
                {
                    "name": one.name,
                    "subject": one.subject,
                    "salt": one.salt.hex(),
                    "value": one.value.decode(),
                    "framed": frame("labxchange field v1", one.salt, one.name, one.value).hex(),
                    "commitment": leaf.commitment(one.name, salt=one.salt, value=one.value),
                }
                for one in built.openings
            ],
        }
        for built in trail.leaves
    ]


def _scope_vectors() -> list[dict[str, str]]:
    own = Identity(bytes(32)).scope_key
    scopes = [Scope(kind="study", name="ACME-301"), Scope(kind="site", name="Zürich"), Scope(kind="category", name="patient")]
    return [
        {
            "trail_scope_key": own.hex(),
            "kind": scope.kind,
            "name": scope.name,
            "scope_key": scope_key(own, scope).hex(),
            "tag": scope_tag(scope_key(own, scope), scope),
        }
        for scope in scopes
    ]


def _checkpoint_vector() -> dict[str, Any]:
    trail = sample(7)
    note = trail.notes[5]
    line = trail.cosignatures[5][0]
    return {
        "trail_public": SPONSOR.identity.trail_public.hex(),
        "note": note.text,
        "key_id": note.signatures[0].key_id.hex(),
        "cosigner": cp.cosigner_name(CRO.fingerprint),
        "cosign_public": CRO.identity.cosign_public.hex(),
        "cosignature": line,
        "cosigned_at_s": cp.verify_cosignature(
            note.checkpoint,
            cp.parse_signature_line(line),
            name=cp.cosigner_name(CRO.fingerprint),
            public=CRO.identity.cosign_public,
        ),
        "root_of_7": trail.frontier.root().hex(),
        "leaf_hashes": [built.hash.hex() for built in trail.leaves],
        "consistency_5_7": [b64encode(part) for part in trail.consistency(5, 7)],
    }


def rotated() -> tuple[Trail, list[Succession], list[bytes]]:
    """A trail whose owner changed keys after its fifth entry: with the succession and both cards."""
    before = sample(5)
    following = Party("sponsor, next key", SPONSOR.name, SPONSOR.organisation)
    before.party = following
    before.epoch = 2
    before.write(Entry(event=Event.KEY_ROTATED, object_type="identity", object_id=following.key))
    before.checkpoint()
    message = succession_message(SPONSOR.identity.public, following.identity.public)
    succession = Succession(
        previous=SPONSOR.identity.public,
        next=following.identity.public,
        previous_signature=SPONSOR.identity.sign(message),
        next_signature=following.identity.sign(message),
    )
    return before, [succession], [SPONSOR.card, following.card]


def _bundle_vectors() -> list[dict[str, Any]]:
    trust = [SPONSOR.fingerprint, CRO.fingerprint]
    whole = sample(14)
    bundles = {"whole": whole.bundle(parties=[CRO]), "uncosigned": sample(6, cosign=False).bundle(parties=[CRO])}

    whole = sample(14)
    study = Scope(kind="study", name="X")
    head = whole.write_heads(study)
    whole.checkpoint()
    whole.cosigned_by(CRO)
    shown = [0, head, *(number for number in range(1, 14) if number % 3 == 0 and number != 11)]
    bundles["excerpt"] = whole.bundle(parties=[CRO], shown=shown, scopes=[whole.own_scope(study)], cosigned_only=True)
    bundles["excerpt-with-a-gap"] = whole.bundle(
        parties=[CRO], shown=[n for n in shown if n != 6], scopes=[whole.own_scope(study)], cosigned_only=True
    )

    unmatched = sample(14)
    unmatched.statements.clear()
    bundles["receipt-missing"] = unmatched.bundle(parties=[CRO])

    lost = sample(14)
    after = lost.restored(8, epoch=2)
    after.checkpoint()
    after.cosigned_by(CRO)
    after.seen.append(lost.notes[10].text)
    bundles["restored-two-missing"] = after.bundle(parties=[CRO])

    forked, other = sample(14), sample(9)
    other.write(entry(99))
    forked.seen.append(other.checkpoint().text)
    bundles["two-histories"] = forked.bundle(parties=[CRO])

    trail, successions, cards = rotated()
    bundles["rotated-key"] = trail.bundle(parties=[CRO], successions=successions, owner_cards=cards)

    redacted = sample(8).bundle(parties=[CRO], openings=lambda seq: seq != 3)
    bundles["redacted"] = redacted
    bundles["altered"] = bundles["whole"].replace(b"share.created", b"share.retract", 1)
    out = []
    for name, data in bundles.items():
        result = verifier.verify(data, trust=trust)
        out.append(
            {
                "name": name,
                "trust": trust,
                "verdict": result.verdict.value,
                "codes": [reason.code for reason in result.reasons],
                "entries": [reason.entry for reason in result.reasons],
                "anchored": result.anchored,
                "missing": result.missing,
                "file": data.decode(),
            }
        )
    return out


def vectors() -> dict[str, Any]:
    return {
        "about": "Test vectors of docs/spec/audit.md, written by tests/vectors/make_audit.py.",
        "leaves": _leaf_vectors(),
        "scopes": _scope_vectors(),
        "checkpoint": _checkpoint_vector(),
        "bundles": _bundle_vectors(),
    }


def main() -> None:
    PATH.write_text(json.dumps(vectors(), ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
