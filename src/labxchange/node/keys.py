"""The person's own keys: create, unlock, back up, restore; the sealed file and the card.

The seed is in memory only while something is sealed or unsealed; the derived keys stay in this process. Passphrases arrive over
the local socket and go nowhere else.
"""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import msgspec

from labxchange.audit.entry import Entry
from labxchange.audit.events import Event
from labxchange.errors import InputError, LabxchangeError
from labxchange.files.keyfile import read_secret, write_secret
from labxchange.identity.card import Card, parse_card
from labxchange.identity.fingerprint import fingerprint, words
from labxchange.identity.keys import SEED_BYTES, Identity
from labxchange.identity.sealing import CREDENTIAL_BYTES, Argon, Sealed, load, seal, unseal
from labxchange.identity.statement import sign
from labxchange.node.core import Core
from labxchange.node.values import Me
from labxchange.store import settings, shares
from labxchange.store.damage import reading

_KEYRING_SERVICE = "labxchange"
_NEW_IDENTITY = "new-identity"


class Profile(msgspec.Struct, frozen=True, kw_only=True):
    """What a card says about a person."""

    name: str
    organisation: str
    role: str = ""
    country: str = ""


class Keys:
    """Creates, seals and opens the identity of one node."""

    def __init__(self, core: Core, *, argon: Argon | None = None) -> None:
        self._core = core
        self._argon = argon
        self._turn = asyncio.Lock()

    # --- how the node unlocks itself ----------------------------------------------------------------------------------
    def _remember(self, credential_file: str, *, keyring: bool) -> None:
        write_secret(self._core.home.unlock, json.dumps({"credential_file": credential_file, "keyring": keyring}).encode())

    def _remembered(self) -> tuple[bytes, str]:
        """The credential found without a person, and where it came from; empty when there is none."""
        try:
            found = json.loads(read_secret(self._core.home.unlock))
        except (LabxchangeError, ValueError):
            return b"", ""
        if found.get("credential_file"):
            return _credential(read_secret(Path(found["credential_file"]))), "credential"
        if found.get("keyring"):
            return _from_keyring(self._core.me), "keyring"
        return b"", ""

    # --- life ---------------------------------------------------------------------------------------------------------
    async def create(
        self, profile: Profile, *, passphrase: str, credential_file: str, keyring: bool, seed: bytes = b"", backup: bool = False
    ) -> None:
        """Make a new identity (or take up ``seed`` of a backup) and seal it.

        Raises:
            InputError: ``identity-exists``, ``name-needed``, and those of ``sealing.seal``.
        """
        async with self._turn:
            await self._create(
                profile, passphrase=passphrase, credential_file=credential_file, keyring=keyring, seed=seed, backup=backup
            )

    async def _create(
        self, profile: Profile, *, passphrase: str, credential_file: str, keyring: bool, seed: bytes, backup: bool
    ) -> None:
        if self.load() is not None:
            raise InputError(
                "identity-exists",
                "This machine already has an identity, and a second one would replace it.",
                hint="Use another folder for it by setting LABXCHANGE_HOME.",
            )
        profile = _checked(profile)
        seed = seed or self._core.random_bytes(SEED_BYTES)
        identity = Identity(seed)
        me = identity.public.hex()  # in a thread: a keyring may ask the person, and the node goes on meanwhile
        credential = await asyncio.to_thread(self._new_credential, credential_file, keyring=keyring, me=me)
        sealed = await asyncio.to_thread(
            seal, seed, passphrase=passphrase, credential=credential, random_bytes=self._core.random_bytes, argon=self._argon
        )
        if credential:
            self._remember(str(Path(credential_file).resolve()) if credential_file else "", keyring=keyring)
        self._core.know(identity.public)
        assert self._core.trail is not None
        self._core.trail.unlock(identity)
        self._core.identity = identity
        self._core.authenticated = "keyring" if keyring else "credential" if credential_file else "passphrase"
        self._core.card = sign(self._card(identity, profile, addresses=[]), identity)
        who = self._core.who()
        first = (
            [Entry(event=Event.TRAIL_RESTORED, object_type="trail", who=who, new="no earlier trail is held")] if backup else []
        )
        event = Event.IDENTITY_RESTORED if backup else Event.IDENTITY_CREATED
        entry = Entry(event=event, object_type="identity", object_id=self._core.me, who=who, new=fingerprint(identity.public))
        try:
            with self._core.act(*first, entry) as tx:
                settings.put(tx, "card", self._core.card.envelope)
                settings.put(tx, _NEW_IDENTITY, sealed.dump())
        except BaseException:
            self._core.forget()
            raise
        self._write_new()
        self._core.notices.publish("node")

    def _write_new(self) -> None:
        """A new identity is durable together with its records; its own file follows, also after a crash in between."""
        with self._core.database.begin() as tx:
            sealed = settings.get(tx, _NEW_IDENTITY)
        if sealed is not None:
            write_secret(self._core.home.identity, sealed)
            with self._core.database.begin() as tx:
                settings.drop(tx, _NEW_IDENTITY)

    def _card(self, identity: Identity, profile: Profile, *, addresses: list[str]) -> Card:
        return Card(
            issuer=identity.public.hex(),
            issued=self._core.clock.now(),
            trail_key=identity.trail_public.hex(),
            cosign_key=identity.cosign_public.hex(),
            name=profile.name,
            organisation=profile.organisation,
            role=profile.role,
            country=profile.country,
            addresses=addresses,
        )

    def readdress(self, addresses: list[str]) -> bool:
        """Sign a newer card when the addresses have changed."""
        card, identity = self._core.require_card().body, self._core.require()
        if card.addresses == addresses:
            return False
        issued = max(self._core.clock.now(), card.issued + 1)
        self._core.card = sign(msgspec.structs.replace(card, issued=issued, addresses=addresses), identity)
        change = Entry(
            event=Event.CONFIG_CHANGED,
            object_type="card",
            who=self._core.who(actor="program"),
            old=", ".join(card.addresses),
            new=", ".join(addresses),
        )
        with self._core.act(change) as tx:
            settings.put(tx, "card", self._core.card.envelope)
        return True

    def _new_credential(self, path: str, *, keyring: bool, me: str) -> bytes:
        if path:
            file = Path(path).expanduser()
            if file.exists():
                return _credential(read_secret(file))
            credential = self._core.random_bytes(CREDENTIAL_BYTES)
            write_secret(file, credential.hex().encode() + b"\n")
            return credential
        if keyring:
            credential = self._core.random_bytes(CREDENTIAL_BYTES)
            _to_keyring(me, credential)
            return credential
        return b""

    def load(self) -> Sealed | None:
        """The sealed identity, when there is one; the node then knows whose it is."""
        self._write_new()
        if not self._core.home.identity.exists():
            return None
        sealed = load(read_secret(self._core.home.identity))
        if not self._core.public:
            self._core.know(bytes.fromhex(sealed.public))
        return sealed

    async def unlock(self, *, passphrase: str = "", credential_file: str = "") -> bool:
        """Open the keys: by passphrase, by a credential file, or by what the node remembers. False when they were open.

        Raises:
            InputError: ``no-identity``, ``no-unlock-method``, ``passphrase-wrong``, ``credential-wrong``.
            IntegrityError: ``key-file-damaged``.
        """
        async with self._turn:
            return await self._unlock(passphrase=passphrase, credential_file=credential_file)

    async def _unlock(self, *, passphrase: str, credential_file: str) -> bool:
        sealed = self.load()
        if sealed is None:
            self._core.require()
        assert sealed is not None
        if self._core.identity is not None:
            return False
        seed, how = await self._unseal(sealed, passphrase=passphrase, credential_file=credential_file)
        with self._core.database.begin() as tx:
            envelope = settings.get(tx, "card")
            restored = settings.get(tx, "restored")
        if envelope is None:
            raise InputError(
                "node-incomplete",
                "The keys are here, but the node's records are not.",
                hint="Restore with `labxchange node restore`.",
            )
        with reading("The card of this node"):
            card = parse_card(envelope)
        identity = Identity(seed)
        assert self._core.trail is not None
        self._core.trail.unlock(identity)
        self._core.identity, self._core.authenticated, self._core.card = identity, how, card
        try:
            if restored is not None:
                self._begin_epoch()
            self._core.record(Entry(event=Event.IDENTITY_UNLOCKED, object_type="identity", who=self._core.who()))
        except BaseException:
            self.lock()  # nothing is done with keys whose unlocking is not in the trail
            raise
        self._core.notices.publish("node")
        return True

    async def _unseal(self, sealed: Sealed, *, passphrase: str, credential_file: str) -> tuple[bytes, str]:
        credential, how = b"", "passphrase"
        if credential_file:
            credential, how = _credential(read_secret(Path(credential_file).expanduser())), "credential"
        elif not passphrase:
            credential, how = await asyncio.to_thread(self._remembered)
            if not credential:
                raise InputError(
                    "no-unlock-method", "The node needs the passphrase.", hint="Run `labxchange node unlock` in a terminal."
                )
        try:
            seed = await asyncio.to_thread(unseal, sealed, passphrase=passphrase, credential=credential)
        except InputError as error:
            self._core.record(
                Entry(event=Event.IDENTITY_UNLOCK_FAILED, object_type="identity", result="denied", result_code=error.code)
            )
            raise
        return seed, how

    async def reauthenticate(self, passphrase: str) -> None:
        """A fresh unlock before an act that needs one; keys stay as they are.

        Raises:
            InputError: ``passphrase-wrong``, ``no-unlock-method``.
        """
        self._core.require()
        sealed = self.load()
        assert sealed is not None
        await self._unseal(sealed, passphrase=passphrase, credential_file="")

    def _begin_epoch(self) -> None:
        """After `node restore`: a new epoch that names what the backup held."""
        trail = self._core.trail
        assert trail is not None
        with self._core.database.begin() as tx:
            held = trail.newest_checkpoint(tx)
            trail.open_epoch(tx)
        entry = Entry(event=Event.TRAIL_RESTORED, object_type="trail", who=self._core.who(), old=held)
        with self._core.act(entry, Entry(event=Event.SYSTEM_STARTED, object_type="node")) as tx:
            settings.drop(tx, "restored")
            shares.mark_restored(tx)

    def lock(self) -> None:
        """Forget the keys."""
        self._core.identity = None
        self._core.authenticated = ""
        if self._core.trail is not None:
            self._core.trail.lock()

    async def backup(self, target: str, *, backup_passphrase: str, passphrase: str) -> None:
        """Write the seed and the card, sealed under ``backup_passphrase``, to a new file.

        Raises:
            InputError: ``file-exists``, and those of ``unlock``.
        """
        sealed = self.load()
        card = self._core.require_card()
        assert sealed is not None
        path = Path(target).expanduser()
        if path.exists():
            raise InputError("file-exists", f"There is already a file {str(path)!r}.", hint="Choose another name.")
        seed, _ = await self._unseal(sealed, passphrase=passphrase, credential_file="")
        copy = await asyncio.to_thread(
            seal, seed, passphrase=backup_passphrase, random_bytes=self._core.random_bytes, argon=self._argon
        )
        body = card.body
        profile = {"name": body.name, "organisation": body.organisation, "role": body.role, "country": body.country}
        text = {"labxchange key backup": 1, "profile": profile, "sealed": json.loads(copy.dump())}
        entry = Entry(event=Event.IDENTITY_BACKED_UP, object_type="identity", object_id=self._core.me, who=self._core.who())
        self._core.record(entry)
        write_secret(path, json.dumps(text, indent=1).encode())

    async def restore(self, source: str, *, backup_passphrase: str, passphrase: str, credential_file: str, keyring: bool) -> None:
        """Take up the identity of a `key backup` on a machine that has none; its trail starts a new epoch.

        Raises:
            InputError: ``backup-unreadable``, ``passphrase-wrong``, ``identity-exists``.
        """
        try:
            text = json.loads(read_secret(Path(source).expanduser()))
            profile = msgspec.convert(text["profile"], Profile)
            sealed = load(json.dumps(text["sealed"]).encode())
        except (ValueError, KeyError, TypeError, msgspec.ValidationError):
            raise InputError("backup-unreadable", "This file is not a key backup, or it is damaged.") from None
        seed = await asyncio.to_thread(unseal, sealed, passphrase=backup_passphrase)
        await self.create(
            profile, passphrase=passphrase, credential_file=credential_file, keyring=keyring, seed=seed, backup=True
        )

    def show(self) -> Me:
        """One's own identity; works on a locked node.

        Raises:
            InputError: ``no-identity``.
        """
        self.load()
        if not self._core.public:
            self._core.require()
        with self._core.database.begin() as tx:
            envelope = settings.get(tx, "card")
        assert envelope is not None
        with reading("The card of this node"):
            card = parse_card(envelope).body
        return Me(
            name=card.name,
            organisation=card.organisation,
            role=card.role,
            country=card.country,
            key=card.issuer,
            fingerprint=fingerprint(self._core.public),
            words=words(self._core.public),
            addresses=tuple(card.addresses),
            locked=self._core.identity is None,
        )


def _checked(profile: Profile) -> Profile:
    cleaned = {name: " ".join(value.split()) for name, value in msgspec.structs.asdict(profile).items()}
    if not cleaned["name"] or not cleaned["organisation"]:
        raise InputError("name-needed", "An identity needs your name and your organisation.")
    for value in cleaned.values():
        if len(value) > 200 or not value.isprintable():
            raise InputError("name-malformed", "A name is longer than 200 characters or holds control characters.")
    return Profile(**cleaned)


def _credential(raw: bytes) -> bytes:
    try:
        credential = bytes.fromhex(raw.decode().strip())
    except ValueError:
        credential = b""
    if len(credential) != CREDENTIAL_BYTES:
        raise InputError("credential-malformed", "This file does not hold a labxchange credential.")
    return credential


def _keyring_missing(error: Exception) -> InputError:
    return InputError(
        "keyring-unavailable",
        f"This machine has no usable keyring ({type(error).__name__}).",
        hint="Use a passphrase, or `--credential-file` on a server.",
    )


def _from_keyring(me: str) -> bytes:
    try:
        import keyring  # an optional dependency, and slow to load

        return _credential((keyring.get_password(_KEYRING_SERVICE, me) or "").encode())
    except InputError:
        raise
    except Exception as error:  # keyring backends raise anything
        raise _keyring_missing(error) from None


def _to_keyring(me: str, credential: bytes) -> None:
    try:
        import keyring

        keyring.set_password(_KEYRING_SERVICE, me, credential.hex())
    except Exception as error:
        raise _keyring_missing(error) from None
