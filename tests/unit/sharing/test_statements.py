"""What parties sign about shares and transfers: each kind survives the way there and back, and its bounds hold on both sides."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from labxchange.encoding import b64encode
from labxchange.errors import InputError, IntegrityError
from labxchange.identity.keys import Identity
from labxchange.identity.statement import Statement, parse, pre_authentication, sign
from labxchange.sharing.exchange import Accept, Counts, Cut, Path, Progress, Receipt, ReceiptAck, Refusal
from labxchange.sharing.grant import MAX_RECIPIENTS, ExtensionRequest, Grant, Revocation
from labxchange.sharing.share import Offer, Share

ME = Identity(bytes([7]) * 32)
ID, DIGEST = "1" * 32, "2" * 64
COUNTS = Counts(matched=1, differ=0, missing=0, unexpected=0, error=0)
ROUTE = Path(route="direct", relay="", plane="quic-stream", plane_reason="", cipher="aes-256-gcm")
BODIES: dict[type[Statement], dict[str, Any]] = {
    Share: {"share": ID, "version": 1, "listing": DIGEST, "title": "T", "note": "", "study": "", "site": "", "category": ""},
    Offer: {"recipient": DIGEST, "share": ID, "version": 1, "listing": DIGEST, "grant": DIGEST, "root": ""},
    Grant: {
        "grant": ID,
        "revision": 1,
        "share": ID,
        "version": 1,
        "listing": DIGEST,
        "recipients": [DIGEST],
        "rights": ["list", "read"],
        "purpose": "",
        "not_before": 1,
        "not_after": 2,
        "downloads": 1,
    },
    Revocation: {"grant": ID, "reason": ""},
    ExtensionRequest: {"grant": ID, "until": 3, "reason": ""},
    Accept: {"transfer": ID, "offer": DIGEST, "grant": DIGEST, "listing": DIGEST, "proof": DIGEST, "checkpoint": ""},
    Progress: {"transfer": ID, "chunks": 1, "files": 0, "bytes": 2**53 - 1, "reused": 0},
    Cut: {"transfer": ID, "code": "grant-revoked", "side": "sender", "files": 0, "bytes": 0, "arrived": [(0, 4)], "more": 0},
    Receipt: {
        "level": "intact",
        "verdict": "match",
        "transfer": ID,
        "offer": DIGEST,
        "accept": DIGEST,
        "grant": DIGEST,
        "listing": DIGEST,
        "manifest": "",
        "root": DIGEST,
        "counts": COUNTS,
        "bytes": 1,
        "reused": 0,
        "started": 1,
        "finished": 2,
        "started_local": "",
        "finished_local": "",
        "path": ROUTE,
        "software": "labxchange",
    },
    ReceiptAck: {
        "transfer": ID,
        "receipt": DIGEST,
        "checkpoint": "",
        "index": 0,
        "leaf": "",
        "salt": "",
        "value": "",
        "proof": [DIGEST],
    },
    Refusal: {"to": DIGEST, "request": "offer", "code": "", "sentence": "No.", "hint": ""},
}
WRONG: list[tuple[type[Statement], dict[str, Any]]] = [
    (Share, {"title": ""}),
    (Share, {"title": "x" * 201}),
    (Share, {"study": "x" * 101}),
    (Share, {"version": 0}),
    (Share, {"share": ID.upper().replace("1", "A")}),
    (Offer, {"root": "2" * 63}),
    (Offer, {"recipient": ""}),
    (Grant, {"recipients": []}),
    (Grant, {"recipients": [f"{number:064x}" for number in range(MAX_RECIPIENTS + 1)]}),
    (Grant, {"rights": ["write"]}),
    (Grant, {"revision": 0}),
    (Grant, {"downloads": 1_000_001}),
    (Grant, {"not_after": 2**53}),
    (Revocation, {"reason": "x" * 1001}),
    (ExtensionRequest, {"until": -1}),
    (Accept, {"proof": ""}),
    (Accept, {"checkpoint": "x" * 8001}),
    (Progress, {"bytes": 2**53}),
    (Cut, {"code": "Grant Revoked"}),
    (Cut, {"code": "grant-revoked\n"}),
    (Cut, {"side": "both"}),
    (Cut, {"arrived": [(0, 1)] * 1001}),
    (Receipt, {"verdict": "perhaps"}),
    (Receipt, {"level": ""}),
    (Receipt, {"level": "rejected", "findings": "x" * 4001}),
    (Receipt, {"level": "rejected", "findings": "a\x1b[31mb"}),
    (Receipt, {"level": "rejected", "findings": "a\r\nb"}),
    (Receipt, {"level": "accepted", "follows": ID}),
    (ReceiptAck, {"leaf": "x" * 24_001}),
    (ReceiptAck, {"proof": [DIGEST] * 65}),
    (Refusal, {"sentence": "x" * 1001}),
    (Refusal, {"to": ID}),
]


def made(kind: type[Statement], **changes: Any) -> Statement:
    return kind(issuer=ME.public.hex(), issued=5, **(BODIES[kind] | changes))


def sealed(kind: str, fields: dict[str, Any]) -> bytes:
    """An envelope as somebody writes it who asks nobody what is allowed."""
    payload = json.dumps(fields, separators=(",", ":")).encode()
    payload_type = f"application/vnd.labxchange.{kind}.v1+json"
    signature = b64encode(ME.sign(pre_authentication(payload_type, payload)))
    return json.dumps({"payload": b64encode(payload), "payloadType": payload_type, "signatures": [{"sig": signature}]}).encode()


def fields_of(body: Statement) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(msgspec.json.encode(body))
    return found


@pytest.mark.parametrize("kind", list(BODIES), ids=lambda kind: kind.kind)
def test_each_kind_is_read_as_it_was_signed(kind: type[Statement]) -> None:
    body = made(kind)
    signed = sign(body, ME)
    assert parse(signed.envelope, kind) == signed
    assert parse(sealed(kind.kind, fields_of(body)), kind).body == body
    for name in fields_of(body):
        less = {key: value for key, value in fields_of(body).items() if key != name}
        with pytest.raises(IntegrityError):
            parse(sealed(kind.kind, less), kind)
    with pytest.raises(IntegrityError):
        parse(sealed(kind.kind, fields_of(body) | {"more_of_it": 1}), kind)
    with pytest.raises(IntegrityError):
        parse(signed.envelope, Refusal if kind is not Refusal else Cut)


@pytest.mark.parametrize(("kind", "changes"), WRONG, ids=lambda item: item.kind if isinstance(item, type) else next(iter(item)))
def test_what_is_out_of_bounds_is_neither_signed_nor_read(kind: type[Statement], changes: dict[str, Any]) -> None:
    with pytest.raises(InputError) as refused:
        sign(made(kind, **changes), ME)
    assert refused.value.code == "statement-invalid"
    with pytest.raises(IntegrityError):
        parse(sealed(kind.kind, fields_of(made(kind)) | json.loads(json.dumps(changes))), kind)


def test_every_kind_of_the_package_is_here() -> None:
    from labxchange.sharing import exchange, grant, share

    kinds = {
        item
        for module in (exchange, grant, share)
        for item in vars(module).values()
        if isinstance(item, type) and issubclass(item, Statement) and item is not Statement
    }
    assert kinds == set(BODIES)
