"""The invitation: lets two nodes meet once. It proves nobody's name and gives no access.

It carries the inviter's identity key and addresses, an id and a 128-bit secret; a checksum finds a text that was mangled on its
way. The secret never travels: the invitee proves it by an HMAC bound to the handshake. Whether it was used before is left to
the inviter's store.
"""

from __future__ import annotations

import base64
import binascii
import hmac
from hashlib import sha256
from typing import Annotated

import msgspec

from labxchange.encoding import frame, pack, unpack
from labxchange.errors import InputError, PeerError
from labxchange.identity.card import Address

_PREFIX = "labxchange-invitation-"
_CHECK_BYTES = 4
_MAX_TEXT = 4000

Bytes16 = Annotated[bytes, msgspec.Meta(min_length=16, max_length=16)]
Bytes32 = Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]


class Invitation(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, array_like=True):
    """What an invitation text holds; ``expires`` in UTC milliseconds."""

    inviter: Bytes32
    addresses: Annotated[list[Address], msgspec.Meta(min_length=1, max_length=8)]
    id: Bytes16
    secret: Bytes16
    expires: int

    def text(self) -> str:
        """The text to send: one word of letters and digits that survives mail and chat."""
        body = pack(self)
        check = sha256(b"labxchange invitation v1" + body).digest()[:_CHECK_BYTES]
        return _PREFIX + base64.b32encode(body + check).decode().rstrip("=").lower()

    def __repr__(self) -> str:
        return f"Invitation(id={self.id.hex()})"


def parse_invitation(text: str) -> Invitation:
    """Read an invitation text; blanks and line breaks inside are ignored.

    Raises:
        InputError: ``invitation-malformed``.
    """
    malformed = InputError(
        "invitation-malformed",
        "This is not a whole invitation: it was cut or changed on its way.",
        hint="Ask for the text again and paste all of it.",
    )
    word = "".join(text.split()).lower()
    if not word.startswith(_PREFIX) or len(word) > _MAX_TEXT:
        raise malformed
    letters = word.removeprefix(_PREFIX).upper()
    try:
        raw = base64.b32decode(letters + "=" * (-len(letters) % 8))
    except (binascii.Error, ValueError):
        raise malformed from None
    body, check = raw[:-_CHECK_BYTES], raw[-_CHECK_BYTES:]
    if sha256(b"labxchange invitation v1" + body).digest()[:_CHECK_BYTES] != check:
        raise malformed
    try:
        return unpack(body, Invitation, max_bytes=_MAX_TEXT)
    except PeerError:
        raise malformed from None


def invitation_proof(secret: bytes, *, th1: bytes, card: bytes) -> bytes:
    """What the invitee sends instead of the secret: HMAC-SHA-256 bound to the handshake and to the invitee's card."""
    return hmac.digest(secret, frame("invite", th1, card), "sha256")
