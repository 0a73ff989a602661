"""Statements: whatever is not exactly a signed statement of its kind is refused, with a code, and with nothing else."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any

import pytest

from labxchange.encoding import b64decode, b64encode, dump_json
from labxchange.errors import IntegrityError
from labxchange.identity.card import Card, parse_card
from labxchange.identity.keys import Identity
from labxchange.identity.statement import parse, peek_kind, pre_authentication, sign
from labxchange.sharing.grant import Revocation

ME, OTHER = Identity(b"\x01" * 32), Identity(b"\x02" * 32)
BODY = Revocation(issuer=ME.public.hex(), issued=1_800_000_000_000, grant="0" * 32, reason="left the project")
TYPE = "application/vnd.labxchange.revocation.v1+json"


def envelope(payload: bytes, *, payload_type: str = TYPE, signer: Identity = ME) -> bytes:
    signature = signer.sign(pre_authentication(payload_type, payload))
    return dump_json({"payload": b64encode(payload), "payloadType": payload_type, "signatures": [{"sig": b64encode(signature)}]})


def changed(**fields: object) -> bytes:
    return json.dumps({**json.loads(b64decode(json.loads(sign(BODY, ME).envelope)["payload"])), **fields}).encode()


def refused(data: bytes, code: str) -> None:
    with pytest.raises(IntegrityError) as caught:
        parse(data, Revocation)
    assert caught.value.code == code


def test_what_is_signed_is_read() -> None:
    signed = sign(BODY, ME)
    assert parse(signed.envelope, Revocation) == signed
    assert peek_kind(signed.envelope) == "revocation"
    assert len(signed.id) == 64


def test_the_id_names_the_payload_not_the_envelope() -> None:
    signed = sign(BODY, ME)
    spaced = json.dumps(json.loads(signed.envelope), indent=3).encode()
    assert parse(spaced, Revocation).id == signed.id
    assert parse(envelope(changed(reason="x")), Revocation).id != signed.id


def test_only_the_issuer_signs() -> None:
    with pytest.raises(ValueError, match="issuer"):
        sign(BODY, OTHER)
    refused(envelope(changed(), signer=OTHER), "bad-signature")
    refused(envelope(changed(issuer=OTHER.public.hex())), "bad-signature")


@pytest.mark.parametrize("issuer", ["", "0" * 64, "xyz", 7, ["a"], "A" * 64])
def test_an_issuer_that_is_no_key(issuer: object) -> None:
    refused(envelope(changed(issuer=issuer)), "bad-signature")


def test_an_issuer_in_another_spelling_is_refused() -> None:
    refused(envelope(changed(issuer=ME.public.hex().upper())), "malformed-statement")


@pytest.mark.parametrize(
    "fields",
    [
        {"extra": 1},
        {"issued": -1},
        {"issued": "1"},
        {"issued": True},
        {"grant": "0" * 31},
        {"grant": "0" * 32 + "\n"},
        {"grant": "F" * 32},
        {"reason": "x" * 1001},
        {"reason": 1},
    ],
)
def test_fields_are_strict(fields: dict[str, object]) -> None:
    refused(envelope(changed(**fields)), "malformed-statement")


@pytest.mark.parametrize(
    "edit",
    [
        lambda text: text.replace(b'"reason"', b'"grant": "11", "reason"', 1),
        lambda text: text.replace(b"1800000000000", b"1800000000000.0"),
        lambda text: text.replace(b"1800000000000", b"18e11"),
        lambda text: text.replace(b"1800000000000", b"9007199254740992"),
        lambda text: text.replace(b"1800000000000", b"NaN"),
        lambda text: text.replace(b"1800000000000", b"null"),
        lambda text: text.replace(b"left the project", b"\\ud800"),
        lambda text: text.replace(b"left the project", b"\xff"),
        lambda text: b"[" + text + b"]",
        lambda text: text + b"{}",
        lambda text: text.replace(b'"left the project"', b'{"a":' * 9 + b"1" + b"}" * 9),
        lambda text: text.replace(b"left the project", b"x" * 70_000),
        lambda text: b"",
    ],
)
def test_json_is_strict(edit: Callable[[bytes], bytes]) -> None:
    refused(envelope(edit(changed())), "malformed-json")


def test_kinds_and_versions() -> None:
    for payload_type, code in [
        (TYPE.replace("v1", "v2"), "unsupported-version"),
        (TYPE.replace("revocation", "grant"), "wrong-kind"),
        ("text/plain", "wrong-kind"),
        ("", "wrong-kind"),
    ]:
        refused(envelope(changed(), payload_type=payload_type), code)
    with pytest.raises(IntegrityError):
        peek_kind(envelope(changed(), payload_type="text/plain"))


@pytest.mark.parametrize(
    "edit",
    [
        lambda outer: outer["signatures"].append(outer["signatures"][0]),
        lambda outer: outer["signatures"].clear(),
        lambda outer: outer["signatures"][0].update(keyid="x"),
        lambda outer: outer.update(more=1),
        lambda outer: outer.pop("payload"),
        lambda outer: outer.update(payload=1),
        lambda outer: outer.update(signatures="x"),
    ],
)
def test_an_envelope_has_one_signature_and_nothing_more(edit: Callable[[dict[str, Any]], object]) -> None:
    outer = json.loads(sign(BODY, ME).envelope)
    edit(outer)
    refused(json.dumps(outer).encode(), "malformed-statement")


def test_base64_is_canonical() -> None:
    outer = json.loads(sign(BODY, ME).envelope)
    for payload in (outer["payload"].rstrip("=") + "\n", "*", outer["payload"] + "===="):
        refused(json.dumps(outer | {"payload": payload}).encode(), "malformed-base64")


def test_no_changed_byte_passes() -> None:
    seed = 11
    chance, good = random.Random(seed), sign(BODY, ME)
    for _ in range(500):
        data = bytearray(good.envelope)
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        try:
            found = parse(bytes(data), Revocation)
        except IntegrityError:
            continue
        assert found.body == good.body, f"seed {seed}"


def test_a_card_is_read_as_one() -> None:
    card = sign(
        Card(
            issuer=ME.public.hex(),
            issued=1,
            trail_key=ME.trail_public.hex(),
            cosign_key=ME.cosign_public.hex(),
            name="Ana",
            organisation="CRO",
            role="",
            country="",
            addresses=["127.0.0.1:47100"],
        ),
        ME,
    )
    assert parse_card(card.envelope) == card
    with pytest.raises(IntegrityError):
        parse_card(sign(BODY, ME).envelope)
