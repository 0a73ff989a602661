"""Checkpoints and cosignatures: C2SP signed-note, tlog-checkpoint and tlog-cosignature (v1, Ed25519), byte for byte.

A checkpoint is three lines - origin, size, root - without extension lines, signed by the trail key under the origin as key
name. A counterparty adds a ``cosignature/v1`` line, which says: at this time, this was the largest tree I had seen of this
origin, and it was consistent with what I saw before. Rules: texts are canonical (one spelling of each number and each base64);
signatures of unknown keys are carried and ignored; a known key whose signature fails makes the note worthless.
Whether to cosign is ``witness``'s rule; keys and time are arguments.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from hashlib import sha256

import msgspec

from labxchange.encoding import JSON_MAX_INTEGER, b64decode, b64encode
from labxchange.errors import IntegrityError
from labxchange.identity.keys import verify
from labxchange.merkle import EMPTY_ROOT, HASH_BYTES

SIGNED_NOTE = 0x01
"""Signature type of a plain Ed25519 note signature (signed-note, "Signature types")."""
COSIGNATURE = 0x04
"""Signature type of a timestamped Ed25519 cosignature (tlog-cosignature)."""
NOTE_MAX_BYTES = 16_384
NOTE_MAX_SIGNATURES = 64

_ORIGIN = re.compile(r"labxchange/([A-Z2-7]{7}(?:-[A-Z2-7]{7}){7})/([1-9][0-9]{0,15})")
_COSIGNER = re.compile(r"labxchange/([A-Z2-7]{7}(?:-[A-Z2-7]{7}){7})/cosign")
_NUMBER = re.compile(r"0|[1-9][0-9]{0,15}")

Sign = Callable[[bytes], bytes]


class Origin(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, order=True):
    """Whose trail, and which epoch of it: a number that only grows, e.g. the UTC milliseconds at which the epoch began."""

    fingerprint: str
    epoch: int

    def __str__(self) -> str:
        return f"labxchange/{self.fingerprint}/{self.epoch}"


class Checkpoint(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The head of a tree at one size."""

    origin: str
    size: int
    root: bytes

    def body(self) -> str:
        """The note text: what is signed (tlog-checkpoint, "Note text")."""
        return f"{self.origin}\n{self.size}\n{b64encode(self.root)}\n"


class SignatureLine(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One signature line of a note: key name, 4-byte key id, and what follows them."""

    name: str
    key_id: bytes
    signature: bytes


class Note(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A parsed note; nothing in it is verified yet."""

    checkpoint: Checkpoint
    signatures: tuple[SignatureLine, ...]
    text: str


def cosigner_name(fingerprint: str) -> str:
    """The key name under which a party cosigns."""
    return f"labxchange/{fingerprint}/cosign"


def parse_origin(text: str) -> Origin:
    """Split an origin; raises IntegrityError ``malformed-checkpoint``."""
    match = _ORIGIN.fullmatch(text)
    if match is None or int(match[2]) > JSON_MAX_INTEGER:
        raise _malformed("its origin is not one of labxchange")
    return Origin(fingerprint=match[1], epoch=int(match[2]))


def key_id(name: str, kind: int, public: bytes) -> bytes:
    """SHA-256(name || 0x0A || type || public key)[:4] (signed-note, "Signatures")."""
    return sha256(name.encode() + b"\n" + bytes([kind]) + public).digest()[:4]


def sign_note(checkpoint: Checkpoint, *, sign: Sign, public: bytes) -> str:
    """The signed note of one's own checkpoint: body, blank line, signature under the origin's name."""
    body = checkpoint.body()
    signature = key_id(checkpoint.origin, SIGNED_NOTE, public) + sign(body.encode())
    return f"{body}\n{_line(checkpoint.origin, signature)}"


def cosign(checkpoint: Checkpoint, *, name: str, sign: Sign, public: bytes, time_s: int) -> str:
    """A ``cosignature/v1`` line, with its newline, over the checkpoint at ``time_s`` (UTC seconds)."""
    payload = time_s.to_bytes(8, "big") + sign(_cosigned(checkpoint, time_s))
    return _line(name, key_id(name, COSIGNATURE, public) + payload)


def parse_note(text: str) -> Note:
    """Read a note; raises IntegrityError ``malformed-checkpoint``."""
    try:
        too_long = len(text.encode()) > NOTE_MAX_BYTES
    except UnicodeEncodeError:
        raise _malformed("it is not UTF-8") from None
    if too_long or any(ord(letter) < 0x20 and letter != "\n" for letter in text):
        raise _malformed("it is too long or holds control characters")
    body, separator, tail = text.rpartition("\n\n")
    lines = body.split("\n")
    if not separator or len(lines) != 3 or not tail.endswith("\n"):
        raise _malformed("it has not exactly three lines and signatures")
    origin, size, root = lines
    parse_origin(origin)
    if not _NUMBER.fullmatch(size) or int(size) > JSON_MAX_INTEGER:
        raise _malformed("its size is not a number")
    checkpoint = Checkpoint(origin=origin, size=int(size), root=_base64(root))
    if len(checkpoint.root) != HASH_BYTES or (checkpoint.size == 0 and checkpoint.root != EMPTY_ROOT):
        raise _malformed("its root is not a hash")
    signatures = tuple(parse_signature_line(line + "\n") for line in tail[:-1].split("\n"))
    if len(signatures) > NOTE_MAX_SIGNATURES:
        raise _malformed("it has too many signatures")
    return Note(checkpoint=checkpoint, signatures=signatures, text=text)


def parse_signature_line(line: str) -> SignatureLine:
    """Read one signature line with its newline; raises IntegrityError ``malformed-checkpoint``."""
    dash, _, rest = line.partition(" ")
    name, _, encoded = rest.partition(" ")
    if dash != "—" or not line.endswith("\n") or not name or "+" in name or len(name.split()) != 1 or name.split()[0] != name:
        raise _malformed("a signature line is not of the form of a note")
    raw = _base64(encoded[:-1])
    if len(raw) < 5:
        raise _malformed("a signature is too short")
    return SignatureLine(name=name, key_id=raw[:4], signature=raw[4:])


def verify_note(note: Note, trail_public: bytes) -> Checkpoint:
    """The checkpoint, signed by this trail key; raises IntegrityError ``bad-signature``."""
    checkpoint = note.checkpoint
    expected = key_id(checkpoint.origin, SIGNED_NOTE, trail_public)
    ours = [line for line in note.signatures if line.name == checkpoint.origin and line.key_id == expected]
    if not ours or not all(verify(trail_public, line.signature, checkpoint.body().encode()) for line in ours):
        raise IntegrityError("bad-signature", "The signature of a checkpoint of an audit trail does not verify.")
    return checkpoint


def verify_cosignature(checkpoint: Checkpoint, line: SignatureLine, *, name: str, public: bytes) -> int:
    """The time (UTC seconds) of a cosignature by this key; raises IntegrityError ``bad-signature``."""
    fits = line.name == name and line.key_id == key_id(name, COSIGNATURE, public) and len(line.signature) == 72
    time_s = int.from_bytes(line.signature[:8], "big")
    if not fits or time_s >= 1 << 63 or not verify(public, line.signature[8:], _cosigned(checkpoint, time_s)):
        raise IntegrityError("bad-signature", "A cosignature of a checkpoint does not verify.")
    return time_s


def cosigner_fingerprint(line: SignatureLine) -> str:
    """The fingerprint in a cosigner's key name, or "" for a line that is no labxchange cosignature."""
    match = _COSIGNER.fullmatch(line.name)
    return match[1] if match else ""


def _cosigned(checkpoint: Checkpoint, time_s: int) -> bytes:
    return f"cosignature/v1\ntime {time_s}\n{checkpoint.body()}".encode()


def _line(name: str, raw: bytes) -> str:
    return f"— {name} {b64encode(raw)}\n"


def _base64(text: str) -> bytes:
    try:
        return b64decode(text)
    except IntegrityError:
        raise _malformed("a part of it is not base64") from None


def _malformed(why: str) -> IntegrityError:
    return IntegrityError("malformed-checkpoint", f"A checkpoint of an audit trail is malformed: {why}.")
