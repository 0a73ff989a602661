"""The committed handshake vector: the machines make exactly it, and so does a second reading of the specification."""

from __future__ import annotations

import hmac
import json
from hashlib import sha256, sha384
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from tests.vectors.make_handshake import machines, vector

VECTOR = json.loads((Path(__file__).parents[2] / "vectors" / "handshake.json").read_text())


def hexed(name: str) -> bytes:
    return bytes.fromhex(VECTOR[name])


def f(*parts: Any) -> bytes:
    raws = [p.to_bytes(8, "big") if isinstance(p, int) else p.encode() if isinstance(p, str) else p for p in parts]
    return b"".join(len(raw).to_bytes(4, "big") + raw for raw in raws)


def parts(data: bytes) -> list[bytes]:
    found = []
    while data:
        length = int.from_bytes(data[:4], "big")
        found.append(data[4 : 4 + length])
        data = data[4 + length :]
    return found


def kdf(key: bytes, length: int, *info: Any) -> bytes:
    block = hmac.digest(key, f(*info) + b"\x01", "sha384")
    assert length <= 48
    return block[:length]


def test_the_machines_make_the_vector() -> None:
    assert vector(hexed("mlkem_secret"), hexed("mlkem_ciphertext")) == VECTOR


def test_the_initiator_finds_the_secret_itself() -> None:
    initiator, _ = machines(b"", b"")
    assert initiator.first() == hexed("m1")
    assert initiator.receive_m2(hexed("m2")) == hexed("m3")
    assert initiator.keys.lane == hexed("k_lane")
    initiator.receive_answer(hexed("m4_plain"))
    assert initiator.state == "ready"


def test_the_specification_read_anew_gives_the_same_keys() -> None:
    r_public = X25519PrivateKey.from_private_bytes(hexed("x25519_r")).public_key().public_bytes_raw()
    fields = parts(hexed("m1"))
    called = bytes.fromhex(json.loads(VECTOR_CARD_R)["issuer"])
    tag_key = sha256(f("labxchange dial v1", called)).digest()
    assert fields[5] == hmac.digest(tag_key, f(*fields[:5]), "sha256")[:16]
    assert fields[:3] == [f(1), f("mlkem768-x25519-aes256gcm-sha384"), hexed("nonce_i")]

    head, box_r = parts(hexed("m2"))
    assert parts(head) == [
        (1).to_bytes(8, "big"), b"mlkem768-x25519-aes256gcm-sha384", hexed("nonce_r"), r_public, hexed("mlkem_ciphertext"),
    ]  # fmt: skip
    shared = MLKEM768PrivateKey.from_seed_bytes(hexed("mlkem_i")).decapsulate(hexed("mlkem_ciphertext"))
    assert shared == hexed("mlkem_secret")
    exchanged = X25519PrivateKey.from_private_bytes(hexed("x25519_i")).exchange(X25519PublicKey.from_public_bytes(r_public))

    label = "labxchange hs v1"
    th0 = sha384(f(label, "labxchange/1", hexed("certificate_digest"), hexed("m1"), head)).digest()
    s0 = hmac.digest(th0, shared + exchanged, "sha384")
    assert (th0, s0) == (hexed("th0"), hexed("s0"))
    body_r, sig_r, mac_r = parts(AESGCM(kdf(s0, 32, label, "box R")).decrypt(bytes(12), box_r, th0))
    assert mac_r == hmac.digest(kdf(s0, 48, label, "mac R"), f("labxchange hs responder v1", th0, body_r), "sha384")
    assert body_r == f(hexed("card_r"), f("card", 1, "grant", 2))
    th1 = sha384(f("labxchange th1 v1", th0, body_r, sig_r, mac_r)).digest()

    body_i, sig_i, mac_i = parts(AESGCM(kdf(s0, 32, label, "box I")).decrypt(bytes(12), hexed("m3"), th1))
    assert mac_i == hmac.digest(kdf(s0, 48, label, "mac I"), f("labxchange hs initiator v1", th1, body_i, called), "sha384")
    proof = hmac.digest(hexed("invitation_secret"), f("invite", th1, hexed("card_i")), "sha256")
    assert body_i == f(hexed("card_i"), f("card", 1, "grant", 2), hexed("invitation_id"), proof)
    th2 = sha384(f("labxchange th2 v1", th1, body_i, sig_i, mac_i)).digest()
    assert (th1, th2) == (hexed("th1"), hexed("th2"))
    s2 = hmac.digest(th2, s0, "sha384")
    assert kdf(s2, 48, "labxchange lanes v1") == hexed("k_lane")
    control = kdf(s2, 44, "labxchange ctrl v1", "R", 0)
    assert control == hexed("k_ctrl_r_stream_0")
    m4 = hexed("m4")
    plain = AESGCM(control[:32]).decrypt(control[32:], m4[4:], m4[:4])
    assert plain == b"\x01" + f("ready", "")


def _payload(card: bytes) -> str:
    import base64

    return base64.b64decode(json.loads(card)["payload"]).decode()


VECTOR_CARD_R = _payload(bytes.fromhex(VECTOR["card_r"]))


@pytest.mark.parametrize("name", ["m1", "m2", "m3"])
def test_a_changed_vector_is_refused(name: str) -> None:
    changed = bytearray(hexed(name))
    changed[-1] ^= 1
    initiator, responder = machines(hexed("mlkem_secret"), hexed("mlkem_ciphertext"))
    initiator.first()
    steps = {"m1": responder.receive_m1, "m2": initiator.receive_m2, "m3": responder.receive_m3}
    if name == "m3":
        responder.receive_m1(hexed("m1"))
    with pytest.raises(Exception, match=r"handshake|node"):
        steps[name](bytes(changed))
