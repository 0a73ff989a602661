"""Invitations: they survive mail, nothing that was cut or changed passes, and the secret is never shown."""

from __future__ import annotations

import random

import pytest

from labxchange.errors import InputError
from labxchange.identity.invitation import Invitation, invitation_proof, parse_invitation

INVITATION = Invitation(
    inviter=bytes(range(32)),
    addresses=["data.example.org:47100", "[2001:db8::1]:47100"],
    id=b"\x01" * 16,
    secret=b"\x02" * 16,
    expires=1_800_000_000_000,
)


def test_it_comes_back_as_it_was() -> None:
    text = INVITATION.text()
    assert text.startswith("labxchange-invitation-")
    assert set(text) <= set("abcdefghijklmnopqrstuvwxyz234567-")
    assert parse_invitation(text) == INVITATION


def test_mail_may_break_and_shout_it() -> None:
    text = INVITATION.text()
    broken = "\r\n > ".join(text[start : start + 40] for start in range(0, len(text), 40)).replace(" > ", "  ")
    assert parse_invitation(f"\n {broken}\n") == INVITATION
    assert parse_invitation(text.upper()) == INVITATION


def test_what_was_cut_or_changed_is_refused() -> None:
    text = INVITATION.text()
    seed = 9
    chance = random.Random(seed)
    for length in range(len(text)):
        with pytest.raises(InputError):
            parse_invitation(text[:length])
    for _ in range(300):
        position = chance.randrange(len("labxchange-invitation-"), len(text) - 1)
        other = chance.choice([letter for letter in "abcdefghijklmnopqrstuvwxyz234567" if letter != text[position]])
        with pytest.raises(InputError) as caught:
            parse_invitation(text[:position] + other + text[position + 1 :])
        assert caught.value.code == "invitation-malformed", f"seed {seed}"


PREFIX = "labxchange-invitation-"


@pytest.mark.parametrize("text", ["", "hello", PREFIX, PREFIX + "é", PREFIX + "a" * 5000])
def test_what_is_none_is_refused(text: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_invitation(text)
    assert caught.value.code == "invitation-malformed"


@pytest.mark.parametrize("address", ["host:0", "host:00000", "host:65536", "host:99999", "host", "a b:1", "::1:5"])
def test_an_address_that_nobody_can_dial_is_refused(address: str) -> None:
    with pytest.raises(InputError):
        parse_invitation(Invitation(inviter=bytes(32), addresses=[address], id=bytes(16), secret=bytes(16), expires=1).text())


def test_the_secret_is_not_shown_and_the_proof_is_bound() -> None:
    assert (b"\x02" * 16).hex() not in repr(INVITATION)
    proof = invitation_proof(INVITATION.secret, th1=b"t" * 48, card=b"card")
    assert len(proof) == 32
    assert proof == invitation_proof(INVITATION.secret, th1=b"t" * 48, card=b"card")
    assert proof != invitation_proof(bytes(16), th1=b"t" * 48, card=b"card")
    assert proof != invitation_proof(INVITATION.secret, th1=b"u" * 48, card=b"card")
    assert proof != invitation_proof(INVITATION.secret, th1=b"t" * 48, card=b"carb")
