"""Ids, keys and addresses are matched whole: a line break at the end is not part of any."""

from __future__ import annotations

import msgspec
import pytest

from labxchange.identity.card import Address
from labxchange.identity.statement import Digest, Key, MaybeDigest, ShortId
from labxchange.sharing.exchange import Code

GOOD = [
    (Key, "a" * 64),
    (Digest, "0" * 64),
    (MaybeDigest, ""),
    (MaybeDigest, "f" * 64),
    (ShortId, "b" * 32),
    (Address, "data.example.org:47100"),
    (Address, "[2001:db8::1]:443"),
    (Code, "grant-revoked"),
]


@pytest.mark.parametrize(("kind", "text"), GOOD)
def test_a_pattern_takes_the_whole_text(kind: object, text: str) -> None:
    assert msgspec.convert(text, kind) == text
    for wrong in (text + "\n", "\n" + text, text + " ", text + "\x00"):
        with pytest.raises(msgspec.ValidationError):
            msgspec.convert(wrong, kind)
