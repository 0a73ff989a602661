"""Notes and cosignatures: C2SP's format exactly, against a note of Go's ``note`` package, and every bit of one."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labxchange.audit import checkpoint as cp
from labxchange.errors import IntegrityError
from labxchange.identity.keys import verify
from labxchange.merkle import EMPTY_ROOT
from tests.unit.audit.world import CRO, SPONSOR, STRANGER, sample

TRAIL = sample(12)
NOTE = TRAIL.notes[10]
LINE = TRAIL.cosignatures[10][0]
NAME = cp.cosigner_name(CRO.fingerprint)


def test_key_id_and_signature_agree_with_go() -> None:
    """The example of golang.org/x/mod/sumdb/note: verifier key, text and signature line."""
    verifier_key = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
    text = "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n"
    line = "— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n"
    name, wanted, encoded = verifier_key.split("+", 2)
    raw = base64.b64decode(encoded)
    assert raw[0] == cp.SIGNED_NOTE
    assert cp.key_id(name, cp.SIGNED_NOTE, raw[1:]).hex() == wanted
    parsed = cp.parse_signature_line(line)
    assert (parsed.name, parsed.key_id.hex()) == (name, wanted)
    assert verify(raw[1:], parsed.signature, text.encode())


def test_a_note_is_three_lines_and_signatures() -> None:
    lines = NOTE.text.split("\n")
    assert lines[:2] == [TRAIL.origin, "10"]
    assert base64.b64decode(lines[2]) == NOTE.checkpoint.root
    assert lines[3] == ""
    assert lines[4].startswith(f"— {TRAIL.origin} ")
    assert cp.verify_note(NOTE, SPONSOR.identity.trail_public) == NOTE.checkpoint
    assert cp.parse_origin(TRAIL.origin) == cp.Origin(fingerprint=SPONSOR.fingerprint, epoch=1)


def test_a_note_may_carry_cosignatures_and_strangers() -> None:
    stranger = cp.cosign(
        NOTE.checkpoint,
        name="witness.example/w1",
        sign=STRANGER.identity.sign_cosign,
        public=STRANGER.identity.cosign_public,
        time_s=1,
    )
    note = cp.parse_note(NOTE.text + LINE + stranger)
    assert len(note.signatures) == 3
    assert cp.verify_note(note, SPONSOR.identity.trail_public) == NOTE.checkpoint
    assert [cp.cosigner_fingerprint(line) for line in note.signatures] == ["", CRO.fingerprint, ""]
    time_s = cp.verify_cosignature(note.checkpoint, note.signatures[1], name=NAME, public=CRO.identity.cosign_public)
    assert time_s == int.from_bytes(note.signatures[1].signature[:8], "big") > 1_700_000_000


def test_wrong_keys_do_not_verify() -> None:
    with pytest.raises(IntegrityError):
        cp.verify_note(NOTE, CRO.identity.trail_public)
    line = cp.parse_signature_line(LINE)
    for name, public in ((NAME, CRO.identity.trail_public), ("other", CRO.identity.cosign_public)):
        with pytest.raises(IntegrityError):
            cp.verify_cosignature(NOTE.checkpoint, line, name=name, public=public)
    with pytest.raises(IntegrityError):
        cp.verify_cosignature(TRAIL.notes[5].checkpoint, line, name=NAME, public=CRO.identity.cosign_public)


def test_a_plain_signature_is_no_cosignature_and_the_other_way_round() -> None:
    plain = SPONSOR.identity.sign_trail(NOTE.checkpoint.body().encode())
    line = cp.SignatureLine(
        name=NAME, key_id=cp.key_id(NAME, cp.COSIGNATURE, SPONSOR.identity.trail_public), signature=bytes(8) + plain
    )
    with pytest.raises(IntegrityError):
        cp.verify_cosignature(NOTE.checkpoint, line, name=NAME, public=SPONSOR.identity.trail_public)


def test_one_bad_signature_of_a_known_key_spoils_the_note() -> None:
    other = cp.sign_note(TRAIL.notes[5].checkpoint, sign=SPONSOR.identity.sign_trail, public=SPONSOR.identity.trail_public).split(
        "\n\n"
    )[1]
    with pytest.raises(IntegrityError):
        cp.verify_note(cp.parse_note(NOTE.text + other), SPONSOR.identity.trail_public)


@pytest.mark.parametrize("text", [NOTE.text, NOTE.text + LINE])
def test_every_bit_of_a_checkpoint_matters(text: str) -> None:
    """Each flipped bit is refused, or leaves the signed content and every known signature as they were."""
    data = text.encode()
    for bit in range(len(data) * 8):
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << bit % 8
        try:
            note = cp.parse_note(damaged.decode())
            cp.verify_note(note, SPONSOR.identity.trail_public)
            for line in note.signatures[1:]:
                cp.verify_cosignature(note.checkpoint, line, name=NAME, public=CRO.identity.cosign_public)
        except (UnicodeDecodeError, IntegrityError):
            continue
        pytest.fail(f"bit {bit} of a checkpoint was not noticed")


@pytest.mark.parametrize(
    "text",
    [
        "", "\n\n", "a\nb\nc\n\n", NOTE.text[:-1], NOTE.text + "\n", NOTE.text.replace("\n10\n", "\n010\n"),
        NOTE.text.replace("\n10\n", "\n+10\n"), NOTE.text.replace("\n10\n", "\n-1\n"),
        NOTE.text.replace("\n10\n", f"\n{2**53}\n"), NOTE.text.replace("\n10\n", "\n٣\n"),
        NOTE.text.replace("\n\n", "\nextension\n\n"), NOTE.text.replace("—", "-"), NOTE.text.replace("— ", "—  "),
        NOTE.text.replace("/1\n", "/0\n"), NOTE.text.replace("/1\n", "/01\n"), NOTE.text.replace("labxchange/", "labx/"),
        NOTE.text.replace("\n", "\r\n"), NOTE.text + LINE * 64, "x" * 20_000, NOTE.text.replace("Acme", "\ud800") + "\ud800",
        NOTE.text.replace("\n10\n", "\n0\n"),
    ],
)  # fmt: skip
def test_a_malformed_note_is_refused(text: str) -> None:
    with pytest.raises(IntegrityError):
        cp.parse_note(text)


def test_the_empty_tree_has_its_own_root() -> None:
    point = cp.Checkpoint(origin=TRAIL.origin, size=0, root=EMPTY_ROOT)
    text = cp.sign_note(point, sign=SPONSOR.identity.sign_trail, public=SPONSOR.identity.trail_public)
    assert cp.parse_note(text).checkpoint == point


@given(st.text(max_size=200))
def test_any_text_parses_or_raises_ours(text: str) -> None:
    for read in (cp.parse_note, cp.parse_signature_line, cp.parse_origin):
        try:
            read(text)
        except IntegrityError:
            pass
