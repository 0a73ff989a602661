"""The seed at rest: it comes back under what sealed it, and under nothing else; a damaged file is named as such."""

from __future__ import annotations

import json
import random

import pytest

from labxchange.errors import InputError, IntegrityError
from labxchange.identity.keys import Identity
from labxchange.identity.sealing import Argon, Sealed, load, seal, unseal

SEED = bytes(range(32))
CREDENTIAL = b"\x07" * 32
PASSPHRASE = "correct horse battery"
CHEAP = Argon(memory_kib=64, passes=1, lanes=1)


def made(passphrase: str = PASSPHRASE, credential: bytes = CREDENTIAL) -> Sealed:
    chance = random.Random(3)
    return seal(SEED, passphrase=passphrase, credential=credential, random_bytes=chance.randbytes, argon=CHEAP)


def test_either_slot_opens() -> None:
    sealed = load(made().dump())
    assert unseal(sealed, passphrase=PASSPHRASE) == unseal(sealed, credential=CREDENTIAL) == SEED
    assert sealed.public == Identity(SEED).public.hex()
    assert SEED.hex() not in sealed.dump().decode()


@pytest.mark.parametrize(
    ("given", "code"),
    [
        ({"passphrase": "correct horse batterx"}, "passphrase-wrong"),
        ({"passphrase": ""}, "passphrase-wrong"),
        ({"credential": b"\x08" * 32}, "credential-wrong"),
        ({"credential": b"short"}, "credential-wrong"),
    ],
)
def test_nothing_else_does(given: dict[str, str | bytes], code: str) -> None:
    with pytest.raises(InputError) as caught:
        unseal(made(), **given)  # type: ignore[arg-type]
    assert caught.value.code == code
    assert "correct horse" not in str(caught.value)


def test_what_is_needed_to_seal() -> None:
    for given, code in (({"passphrase": "short"}, "passphrase-too-short"), ({}, "no-unlock-method")):
        with pytest.raises(InputError) as caught:
            seal(SEED, random_bytes=random.Random(1).randbytes, argon=CHEAP, **given)  # type: ignore[arg-type]
        assert caught.value.code == code
    with pytest.raises(InputError) as missing:
        unseal(made(credential=b""), credential=CREDENTIAL)
    assert missing.value.code == "no-unlock-method"


def test_another_identity_cannot_be_put_in() -> None:
    other = seal(bytes(32), credential=CREDENTIAL, random_bytes=random.Random(4).randbytes, argon=CHEAP)
    mixed = json.loads(made().dump()) | {"seed": json.loads(other.dump())["seed"]}
    with pytest.raises(IntegrityError):
        unseal(load(json.dumps(mixed).encode()), credential=CREDENTIAL)
    renamed = json.loads(made().dump()) | {"public": other.public}
    with pytest.raises((InputError, IntegrityError)):
        unseal(load(json.dumps(renamed).encode()), credential=CREDENTIAL)


@pytest.mark.parametrize(
    "argon",
    [
        {"memory_kib": 1 << 30},
        {"passes": 1 << 30},
        {"lanes": 0},
        {"lanes": 1000},
        {"memory_kib": -1},
        {"passes": 0},
        {"passes": -1},
        {"memory_kib": 0},
    ],
)
def test_a_file_cannot_ask_for_all_memory_or_time(argon: dict[str, int]) -> None:
    raw = json.loads(made().dump())
    raw["slots"][0]["argon"] |= argon
    with pytest.raises((InputError, IntegrityError)):
        unseal(load(json.dumps(raw).encode()), passphrase=PASSPHRASE)


@pytest.mark.parametrize("data", [b"", b"{}", b"[]", b"\xff", b"null", b'{"format": "other"}'])
def test_what_is_no_sealed_identity(data: bytes) -> None:
    with pytest.raises(IntegrityError) as caught:
        load(data)
    assert caught.value.code == "key-file-damaged"


def test_no_damage_gives_another_seed_or_another_error() -> None:
    seed = 5
    chance, good = random.Random(seed), made(passphrase="").dump()
    for _ in range(500):
        data = bytearray(good)
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        try:
            found = unseal(load(bytes(data)), credential=CREDENTIAL)
        except (InputError, IntegrityError):
            continue
        assert found == SEED, f"seed {seed}"
