"""Writes ``handshake.json``: one whole handshake with every input and every value on the way.

    PYTHONPATH=src:. python tests/vectors/make_handshake.py

ML-KEM encapsulation cannot be seeded, so a new run writes a new ciphertext and secret; both are in the file, and a reader needs
nothing else. Keys and nonces are fixed and worthless.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from labxchange.identity.invitation import Invitation
from labxchange.wire.control.handshake import Initiator, Responder
from labxchange.wire.control.records import Sealer
from tests.unit.wire.party import CERTIFICATE, KINDS, Party, encapsulate

SEEDS = {"x25519_i": bytes(range(32)), "mlkem_i": bytes(range(64)), "x25519_r": bytes(range(32, 64))}
NONCES = {"nonce_i": b"\xa1" * 32, "nonce_r": b"\xb2" * 32}
INVITATION = {"id": b"\xc3" * 16, "secret": b"\xd4" * 16}


def machines(secret: bytes, ciphertext: bytes) -> tuple[Initiator, Responder]:
    """Both machines over the fixed inputs."""
    a, b = Party(1), Party(2)
    invitation = Invitation(inviter=b.key, addresses=["data.example.org:4433"], expires=0, **INVITATION)
    initiator = Initiator(
        a.identity,
        card=a.card,
        kinds=KINDS,
        responder_key=b.key,
        certificate_digest=CERTIFICATE,
        nonce=NONCES["nonce_i"],
        x25519=X25519PrivateKey.from_private_bytes(SEEDS["x25519_i"]),
        mlkem=MLKEM768PrivateKey.from_seed_bytes(SEEDS["mlkem_i"]),
        invitation=invitation,
    )
    responder = Responder(
        b.identity,
        card=b.card,
        kinds=KINDS,
        certificate_digest=CERTIFICATE,
        nonce=NONCES["nonce_r"],
        x25519=X25519PrivateKey.from_private_bytes(SEEDS["x25519_r"]),
        encapsulate=lambda _: (secret, ciphertext),
    )
    return initiator, responder


def vector(secret: bytes, ciphertext: bytes) -> dict[str, Any]:
    """Everything, in hex."""
    initiator, responder = machines(secret, ciphertext)
    m1 = initiator.first()
    m2 = responder.receive_m1(m1)
    m3 = initiator.receive_m2(m2)
    peer = responder.receive_m3(m3)
    keys = responder.keys
    answer = responder.accept()
    sealer = Sealer(keys.control("I", 4))
    values = {
        **SEEDS,
        **NONCES,
        "identity_seed_i": b"\x01" * 32,
        "identity_seed_r": b"\x02" * 32,
        "card_i": Party(1).card,
        "card_r": Party(2).card,
        "certificate_digest": CERTIFICATE,
        "invitation_id": INVITATION["id"],
        "invitation_secret": INVITATION["secret"],
        "mlkem_ciphertext": ciphertext,
        "mlkem_secret": secret,
        "m1": m1,
        "m2": m2,
        "m3": m3,
        "th0": responder._th0,
        "s0": responder._s0,
        "th1": peer.th1,
        "th2": peer.th2,
        "invitation_proof": peer.proof,
        "k_lane": keys.lane,
        "k_ctrl_r_stream_0": keys.control("R", 0),
        "k_ctrl_i_stream_4": keys.control("I", 4),
        "m4_plain": answer,
        "m4": Sealer(keys.control("R", 0)).message(answer),
        "stream_4_message": b"hello",
        "stream_4_records": sealer.message(b"hello") + sealer.end(),
    }
    return {"kinds": KINDS, **{name: value.hex() for name, value in values.items()}}


if __name__ == "__main__":
    key = MLKEM768PrivateKey.from_seed_bytes(SEEDS["mlkem_i"]).public_key().public_bytes_raw()
    text = json.dumps(vector(*encapsulate(key)), indent=1) + "\n"
    Path(__file__).with_name("handshake.json").write_text(text)
