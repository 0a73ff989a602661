"""The mutual, hybrid post-quantum handshake inside a QUIC channel, as two machines (``docs/spec/handshake.md``).

Rules kept here: nothing about a node is said before the caller showed that it knows the node's identity key (the tag of m1);
each box key seals exactly one message; every secret, signature and MAC covers all that went before, the TLS certificate
included; the dialler accepts no other key than the one it dialled; a node refuses its own key. A machine that failed once
answers nothing more.

Time and randomness are arguments: the caller makes the nonces and the one-use keys. Whether a proven peer is welcome is the
caller's decision (``Responder.accept`` / ``refuse``). Lengths on the stream, sealed records and deadlines are ``session``'s.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Mapping
from enum import StrEnum
from hashlib import sha256, sha384

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from labxchange.encoding import frame, unframe
from labxchange.errors import InputError, IntegrityError, LabxchangeError, PeerError, RefusedError
from labxchange.identity.card import Card, parse_card
from labxchange.identity.invitation import Invitation, invitation_proof
from labxchange.identity.keys import Identity, derive, verify
from labxchange.identity.statement import Signed

ALPN = "labxchange/1"
VERSION = 1
SUITE = "mlkem768-x25519-aes256gcm-sha384"
NONCE_BYTES = 32
MESSAGE_MAX_BYTES = 16_384
"""No handshake message is longer."""

_CARD_MAX_BYTES = 12_288
_PROOF_BYTES = 32
_INVITATION_ID_BYTES = 16
_KINDS_MAX = 64
_OFFERS_MAX = 16
_LABEL = "labxchange hs v1"
_ZERO_NONCE = bytes(12)

Encapsulate = Callable[[bytes], tuple[bytes, bytes]]
"""Raw ML-KEM-768 encapsulation key -> (shared secret, ciphertext); raises ValueError for a key that is none."""


class State(StrEnum):
    """Where a machine stands."""

    START = "start"
    AWAIT_M1 = "await-m1"
    AWAIT_M2 = "await-m2"
    AWAIT_M3 = "await-m3"
    DECIDING = "deciding"
    AWAIT_M4 = "await-m4"
    READY = "ready"
    REFUSED = "refused"
    FAILED = "failed"


TRANSITIONS: Mapping[tuple[State, str], State] = {
    (State.START, "send m1"): State.AWAIT_M2,
    (State.AWAIT_M2, "receive m2, send m3"): State.AWAIT_M4,
    (State.AWAIT_M4, "receive ready"): State.READY,
    (State.AWAIT_M4, "receive refusal"): State.REFUSED,
    (State.AWAIT_M1, "receive m1, send m2"): State.AWAIT_M3,
    (State.AWAIT_M3, "receive m3"): State.DECIDING,
    (State.DECIDING, "accept"): State.READY,
    (State.DECIDING, "refuse"): State.REFUSED,
}
"""All that may happen; anything else fails the machine, for good."""


class Keys:
    """The key schedule after th2: control keys by writer and stream, and the lanes' root key. Has no printable form."""

    def __init__(self, s2: bytes) -> None:
        self._s2 = s2
        self.lane = derive(s2, 48, "labxchange lanes v1")

    def control(self, writer: str, stream_id: int) -> bytes:
        """Key (32 bytes) and iv (12 bytes) of what ``writer``, "I" or "R", says on a stream."""
        return derive(self._s2, 44, "labxchange ctrl v1", writer, stream_id)

    def __repr__(self) -> str:
        return "Keys(...)"


class Peer(msgspec.Struct, frozen=True, kw_only=True):
    """Who was proven to be at the other end, and what the dialler brought.

    ``proof`` is the HMAC over the invitation's secret, not yet checked: only the inviter's store knows the secret.
    """

    key: bytes
    card: Signed[Card]
    kinds: dict[str, int]
    th1: bytes
    th2: bytes
    invitation_id: bytes
    proof: bytes


def _fail(why: str) -> PeerError:
    return PeerError("handshake-failed", f"The handshake with the other node failed: {why}.")


def _encode_kinds(kinds: Mapping[str, int]) -> bytes:
    return frame(*(part for name in sorted(kinds) for part in (name, kinds[name])))


def _split(data: bytes, *, limit: int) -> list[bytes]:
    parts: list[bytes] = []
    position = 0
    while position < len(data):
        end = position + 4 + int.from_bytes(data[position : position + 4], "big")
        if len(parts) == limit or end > len(data) or position + 4 > len(data):
            raise _fail("a list is malformed")
        parts.append(data[position + 4 : end])
        position = end
    return parts


def _decode_kinds(data: bytes) -> dict[str, int]:
    parts = _split(data, limit=2 * _KINDS_MAX)
    names, numbers = parts[0::2], parts[1::2]
    well_formed = (
        len(parts) % 2 == 0
        and names == sorted(set(names))
        and all(0 < len(name) <= 64 and name.isascii() for name in names)
        and all(len(number) == 8 and 0 < int.from_bytes(number, "big") < 65_536 for number in numbers)
    )
    if not well_formed:
        raise _fail("its list of statement kinds is malformed")
    return {name.decode(): int.from_bytes(number, "big") for name, number in zip(names, numbers, strict=True)}


def dial_tag(called: bytes, fields: bytes) -> bytes:
    """Shows that the dialler knows the identity key ``called``: 16 bytes over the fields of m1 before it."""
    key = sha256(frame("labxchange dial v1", called)).digest()
    return hmac.digest(key, fields, "sha256")[:16]


class _Machine:
    def __init__(self, state: State, identity: Identity, *, card: bytes, kinds: Mapping[str, int]) -> None:
        if len(card) > _CARD_MAX_BYTES:
            raise InputError("card-too-long", "The contact card is too long to be sent in the handshake.")
        self.state = state
        self._identity = identity
        self._card = card
        self._kinds = _encode_kinds(kinds)
        self._th0 = self._th1 = self._s0 = b""
        self._peer: Peer | None = None
        self._keys: Keys | None = None

    @property
    def peer(self) -> Peer:
        """The proven peer; only once its proof was checked."""
        if self._peer is None:
            raise RuntimeError("the peer is not proven yet")
        return self._peer

    @property
    def keys(self) -> Keys:
        """The key schedule; only once th2 exists."""
        if self._keys is None:
            raise RuntimeError("there are no keys yet")
        return self._keys

    def _advance(self, step: str) -> None:
        following = TRANSITIONS.get((self.state, step))
        if following is None:
            self.state = State.FAILED
            raise _fail("a message came out of order")
        self.state = following

    def _agree(self, m1: bytes, head: bytes, *, certificate_digest: bytes, secrets: bytes) -> None:
        self._th0 = sha384(frame(_LABEL, ALPN, certificate_digest, m1, head)).digest()
        self._s0 = hmac.digest(self._th0, secrets, "sha384")

    def _box(self, writer: str) -> AESGCM:
        return AESGCM(derive(self._s0, 32, _LABEL, f"box {writer}"))

    def _seal(self, writer: str, body: bytes, *, aad: bytes, transcript: bytes) -> tuple[bytes, bytes, bytes]:
        signature = self._identity.sign(transcript)
        mac = hmac.digest(derive(self._s0, 48, _LABEL, f"mac {writer}"), transcript, "sha384")
        return self._box(writer).encrypt(_ZERO_NONCE, frame(body, signature, mac), aad), signature, mac

    def _unseal(self, writer: str, box: bytes, *, aad: bytes) -> tuple[bytes, bytes, bytes]:
        try:
            inner = self._box(writer).decrypt(_ZERO_NONCE, box, aad)
        except InvalidTag:
            raise _fail("a sealed message does not open") from None
        body, signature, mac = unframe(inner, 3, max_part=MESSAGE_MAX_BYTES)
        return body, signature, mac

    def _check(self, writer: str, card: bytes, *, transcript: bytes, signature: bytes, mac: bytes) -> Signed[Card]:
        if not hmac.compare_digest(mac, hmac.digest(derive(self._s0, 48, _LABEL, f"mac {writer}"), transcript, "sha384")):
            raise _fail("a message's MAC is wrong")
        if len(card) > _CARD_MAX_BYTES:
            raise _fail("its contact card is too long")
        try:
            signed = parse_card(card)
        except IntegrityError as error:
            raise _fail(f"its contact card is not valid ({error.code})") from None
        if not verify(bytes.fromhex(signed.body.issuer), signature, transcript):
            raise _fail("a message's signature is wrong")
        return signed

    def _finish(self, th2: bytes) -> None:
        self._keys = Keys(hmac.digest(th2, self._s0, "sha384"))


class Initiator(_Machine):
    """The side that dialled: ``first`` -> m1; ``receive_m2`` -> m3; ``receive_answer`` ends it.

    Args:
        responder_key: the identity key that is dialled; no other is accepted.
        certificate_digest: SHA-256 of the DER of the server certificate as seen in TLS.
        nonce, x25519, mlkem: fresh and used for this handshake only.
    """

    def __init__(
        self,
        identity: Identity,
        *,
        card: bytes,
        kinds: Mapping[str, int],
        responder_key: bytes,
        certificate_digest: bytes,
        nonce: bytes,
        x25519: X25519PrivateKey,
        mlkem: MLKEM768PrivateKey,
        invitation: Invitation | None = None,
    ) -> None:
        super().__init__(State.START, identity, card=card, kinds=kinds)
        if responder_key == identity.public:
            raise InputError("own-key", "This is the key of your own node: it cannot be dialled.")
        if invitation is not None and invitation.inviter != responder_key:
            raise InputError("invitation-other-key", "The invitation is from another node than the one dialled.")
        self._responder_key = responder_key
        self._certificate_digest = certificate_digest
        self._nonce = nonce
        self._x25519 = x25519
        self._mlkem = mlkem
        self._invitation = invitation
        self._m1 = b""

    def first(self) -> bytes:
        """m1."""
        self._advance("send m1")
        fields = frame(
            frame(VERSION),
            frame(SUITE),
            self._nonce,
            self._x25519.public_key().public_bytes_raw(),
            self._mlkem.public_key().public_bytes_raw(),
        )
        self._m1 = fields + frame(dial_tag(self._responder_key, fields))
        return self._m1

    def receive_m2(self, m2: bytes) -> bytes:
        """Check m2 and answer with m3; raises PeerError ``handshake-failed`` or ``wrong-peer``."""
        self._advance("receive m2, send m3")
        try:
            return self._answer(m2)
        except LabxchangeError:
            self.state = State.FAILED
            raise

    def _answer(self, m2: bytes) -> bytes:
        head, box = unframe(m2, 2, max_part=MESSAGE_MAX_BYTES)
        version, suite, nonce, x25519, ciphertext = unframe(head, 5, max_part=2048)
        if version != VERSION.to_bytes(8, "big") or suite != SUITE.encode() or len(nonce) != NONCE_BYTES:
            raise _fail("it chose a version or suite that was not offered")
        try:
            secrets = self._mlkem.decapsulate(ciphertext) + self._x25519.exchange(X25519PublicKey.from_public_bytes(x25519))
        except ValueError:
            raise _fail("its key shares are not valid") from None
        self._agree(self._m1, head, certificate_digest=self._certificate_digest, secrets=secrets)
        body, signature, mac = self._unseal("R", box, aad=self._th0)
        card, kinds = unframe(body, 2, max_part=MESSAGE_MAX_BYTES)
        transcript = frame("labxchange hs responder v1", self._th0, body)
        signed = self._check("R", card, transcript=transcript, signature=signature, mac=mac)
        if signed.body.issuer != self._responder_key.hex():
            raise PeerError("wrong-peer", "The node that answered is not the one that was dialled.")
        self._th1 = sha384(frame("labxchange th1 v1", self._th0, body, signature, mac)).digest()
        return self._m3(signed, _decode_kinds(kinds))

    def _m3(self, responder: Signed[Card], kinds: dict[str, int]) -> bytes:
        invitation_id = proof = b""
        if self._invitation is not None:
            invitation_id = self._invitation.id
            proof = invitation_proof(self._invitation.secret, th1=self._th1, card=self._card)
        body = frame(self._card, self._kinds, invitation_id, proof)
        transcript = frame("labxchange hs initiator v1", self._th1, body, self._responder_key)
        m3, signature, mac = self._seal("I", body, aad=self._th1, transcript=transcript)
        th2 = sha384(frame("labxchange th2 v1", self._th1, body, signature, mac)).digest()
        self._finish(th2)
        self._peer = Peer(
            key=self._responder_key,
            card=responder,
            kinds=kinds,
            th1=self._th1,
            th2=th2,
            invitation_id=invitation_id,
            proof=proof,
        )
        return m3

    def receive_answer(self, answer: bytes) -> None:
        """Read m4, opened by the caller with the responder's key of stream 0.

        Raises:
            RefusedError: the responder's code.
            PeerError: ``handshake-failed``.
        """
        try:
            word, code = (part.decode() for part in unframe(answer, 2, max_part=64))
        except (PeerError, UnicodeDecodeError):
            word = code = ""
        well_formed = code == "" if word == "ready" else code.replace("-", "").isalnum() and code.isascii()
        if word not in ("ready", "refused") or not well_formed:
            self.state = State.FAILED
            raise _fail("its answer is malformed")
        if word == "refused":
            self._advance("receive refusal")
            raise RefusedError(code, f"The other node refused the connection ({code}).")
        self._advance("receive ready")


class Responder(_Machine):
    """The side that listens: ``receive_m1`` -> m2; ``receive_m3`` -> the proven peer; ``accept`` or ``refuse`` -> m4.

    Args:
        certificate_digest: SHA-256 of the DER of the server certificate as sent in TLS.
        nonce, x25519: fresh and used for this handshake only.
        encapsulate: ML-KEM-768 (public key -> secret, ciphertext); ValueError for a bad key. It draws random bits.
    """

    def __init__(
        self,
        identity: Identity,
        *,
        card: bytes,
        kinds: Mapping[str, int],
        certificate_digest: bytes,
        nonce: bytes,
        x25519: X25519PrivateKey,
        encapsulate: Encapsulate,
    ) -> None:
        super().__init__(State.AWAIT_M1, identity, card=card, kinds=kinds)
        self._certificate_digest = certificate_digest
        self._nonce = nonce
        self._x25519 = x25519
        self._encapsulate = encapsulate

    def receive_m1(self, m1: bytes) -> bytes:
        """Check the tag first, then answer with m2; any PeerError means: close without a word."""
        self._advance("receive m1, send m2")
        try:
            return self._answer(m1)
        except LabxchangeError:
            self.state = State.FAILED
            raise

    def _answer(self, m1: bytes) -> bytes:
        *fields, tag = unframe(m1, 6, max_part=2048)
        if not hmac.compare_digest(tag, dial_tag(self._identity.public, m1[: -len(frame(tag))])):
            raise PeerError("wrong-tag", "A caller does not know which node it calls.")
        versions, suites = (_split(part, limit=_OFFERS_MAX) for part in fields[:2])
        nonce, x25519, encapsulation_key = fields[2:]
        if VERSION.to_bytes(8, "big") not in versions or SUITE.encode() not in suites or len(nonce) != NONCE_BYTES:
            raise _fail("it offers no version or suite that is known here")
        try:
            exchanged = self._x25519.exchange(X25519PublicKey.from_public_bytes(x25519))
            shared, ciphertext = self._encapsulate(encapsulation_key)
        except ValueError:
            raise _fail("its key shares are not valid") from None
        head = frame(VERSION, SUITE, self._nonce, self._x25519.public_key().public_bytes_raw(), ciphertext)
        self._agree(m1, head, certificate_digest=self._certificate_digest, secrets=shared + exchanged)
        body = frame(self._card, self._kinds)
        transcript = frame("labxchange hs responder v1", self._th0, body)
        box, signature, mac = self._seal("R", body, aad=self._th0, transcript=transcript)
        self._th1 = sha384(frame("labxchange th1 v1", self._th0, body, signature, mac)).digest()
        return frame(head, box)

    def receive_m3(self, m3: bytes) -> Peer:
        """Check m3 and name the peer, whose welcome the caller decides; a PeerError means: close without a word."""
        self._advance("receive m3")
        try:
            return self._prove(m3)
        except LabxchangeError:
            self.state = State.FAILED
            raise

    def _prove(self, m3: bytes) -> Peer:
        body, signature, mac = self._unseal("I", m3, aad=self._th1)
        card, kinds, invitation_id, proof = unframe(body, 4, max_part=MESSAGE_MAX_BYTES)
        transcript = frame("labxchange hs initiator v1", self._th1, body, self._identity.public)
        signed = self._check("I", card, transcript=transcript, signature=signature, mac=mac)
        if (len(invitation_id), len(proof)) not in ((0, 0), (_INVITATION_ID_BYTES, _PROOF_BYTES)):
            raise _fail("its invitation is malformed")
        if signed.body.issuer == self._identity.public.hex():
            raise _fail("it has this node's own key")
        th2 = sha384(frame("labxchange th2 v1", self._th1, body, signature, mac)).digest()
        self._finish(th2)
        self._peer = Peer(
            key=bytes.fromhex(signed.body.issuer),
            card=signed,
            kinds=_decode_kinds(kinds),
            th1=self._th1,
            th2=th2,
            invitation_id=invitation_id,
            proof=proof,
        )
        return self._peer

    def accept(self) -> bytes:
        """The peer is welcome: the plain text of m4."""
        self._advance("accept")
        return frame("ready", "")

    def refuse(self, code: str) -> bytes:
        """The peer is not welcome: the plain text of m4, with the reason's code."""
        self._advance("refuse")
        return frame("refused", code)


class RekeyOffer:
    """Fresh key agreement for the lanes, asked by the side that dialled; ``message`` -> ``finish`` with the answer."""

    def __init__(self, *, x25519: X25519PrivateKey, mlkem: MLKEM768PrivateKey) -> None:
        self._x25519 = x25519
        self._mlkem = mlkem

    def message(self) -> bytes:
        """F(x25519, ek)."""
        return frame(self._x25519.public_key().public_bytes_raw(), self._mlkem.public_key().public_bytes_raw())

    def finish(self, lane: bytes, answer: bytes) -> bytes:
        """The new K_lane from the old one and the answer; raises PeerError."""
        x25519, ciphertext = unframe(answer, 2, max_part=2048)
        try:
            secrets = self._mlkem.decapsulate(ciphertext) + self._x25519.exchange(X25519PublicKey.from_public_bytes(x25519))
        except ValueError:
            raise PeerError("malformed-message", "The other node's new key shares are not valid.") from None
        return hmac.digest(lane, secrets, "sha384")


def answer_rekey(lane: bytes, offer: bytes, *, x25519: X25519PrivateKey, encapsulate: Encapsulate) -> tuple[bytes, bytes]:
    """(new K_lane, answer F(x25519, ct)) to a rekey offer; raises PeerError."""
    theirs, encapsulation_key = unframe(offer, 2, max_part=2048)
    try:
        exchanged = x25519.exchange(X25519PublicKey.from_public_bytes(theirs))
        shared, ciphertext = encapsulate(encapsulation_key)
    except ValueError:
        raise PeerError("malformed-message", "The other node's new key shares are not valid.") from None
    answer = frame(x25519.public_key().public_bytes_raw(), ciphertext)
    return hmac.digest(lane, shared + exchanged, "sha384"), answer
