"""One seed, five keys: derived the same each time, each for its own use."""

from __future__ import annotations

import pytest

from labxchange.encoding import frame
from labxchange.identity.keys import Identity, derive, verify

SEED = bytes(range(32))


def test_the_seed_alone_gives_all_keys_back() -> None:
    one, again, other = Identity(SEED), Identity(SEED), Identity(bytes(32))
    for name in ("public", "trail_public", "cosign_public", "scope_key", "store_key"):
        assert getattr(one, name) == getattr(again, name) != getattr(other, name)
        assert len(getattr(one, name)) == 32
    assert len({one.public, one.trail_public, one.cosign_public, one.scope_key, one.store_key}) == 5


def test_derivation_is_pinned() -> None:
    """A change of it would lose every identity that exists."""
    assert derive(SEED, 8, "labxchange key v1", "identity") == derive(SEED, 32, "labxchange key v1", "identity")[:8]
    assert derive(SEED, 8, "a", "bc") != derive(SEED, 8, "ab", "c"), "parts are framed"
    assert frame("a", 1) == b"\x00\x00\x00\x01a\x00\x00\x00\x08\x00\x00\x00\x00\x00\x00\x00\x01"
    assert Identity(SEED).public.hex() == PUBLIC


PUBLIC = "996fb972982a575a6f269cb359db463b3b22722aa56d97ce2bfb6554cba96f7b"


def test_signatures_are_of_one_key_and_one_text() -> None:
    me = Identity(SEED)
    signed = {me.public: me.sign(b"x"), me.trail_public: me.sign_trail(b"x"), me.cosign_public: me.sign_cosign(b"x")}
    for key in signed:
        for owner, signature in signed.items():
            assert verify(key, signature, b"x") is (key == owner)
            assert not verify(key, signature, b"y")


@pytest.mark.parametrize("public", [b"", bytes(32), b"\xff" * 32, bytes(33)])
def test_malformed_keys_and_signatures_verify_nothing(public: bytes) -> None:
    assert verify(public, bytes(64), b"x") is False
    assert verify(Identity(SEED).public, Identity(SEED).sign(b"x")[:-1], b"x") is False


def test_an_identity_shows_nothing_and_needs_a_whole_seed() -> None:
    assert repr(Identity(SEED)) == "Identity(...)"
    with pytest.raises(ValueError, match="32 bytes"):
        Identity(SEED[:-1])


@pytest.mark.parametrize("sign_bit", [0, 0x80])
def test_a_key_that_anyone_can_sign_for_verifies_nothing(sign_bit: int) -> None:
    """Points of small order: one signature of zeros fits a share of all texts."""
    eighth = "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a"
    for text in ("00" * 32, "01" + "00" * 31, "ec" + "ff" * 30 + "7f", eighth):
        key = bytearray.fromhex(text)
        key[-1] |= sign_bit
        for signature in (bytes(64), b"\x01" + bytes(63)):
            assert not any(verify(bytes(key), signature, bytes([number])) for number in range(64))
