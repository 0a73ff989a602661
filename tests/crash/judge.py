"""What must hold of a disk after a power loss: a node is opened on it, without a network, and compared with what was vouched for.

Nothing acknowledged is lost: answers to the face, heads of the trail, statements sent or taken, cosigned heads, the journal. The
journal's word is true: its chunks and files are on the disk, bit by bit. No file that has its name is anything but whole and
right. The trail verifies. And the node works: it opens, unlocks itself, and where there is no identity yet one can be made.
"""

from __future__ import annotations

import os
import stat
from hashlib import sha256
from pathlib import Path
from typing import Any

from sqlalchemy import select

from labxchange.audit.verifier import Verdict, verify
from labxchange.errors import LabxchangeError
from labxchange.merkle import Frontier
from labxchange.net.network import Datagrams, Listening, OnBatch, UdpAddress
from labxchange.node.home import Home
from labxchange.node.node import Node
from labxchange.node.restoring import restore_backup
from labxchange.store import shares, tables, transfers
from labxchange.store.transfers import TransferRow
from tests.crash.scenario import ALREADY, Story
from tests.support.nodes import make_node


class Lost(AssertionError):
    """Something that had been vouched for is not there, or something that is there is wrong."""


def _must(holds: object, what: str) -> None:
    if not holds:
        raise Lost(what)


class _Port:
    def __init__(self, address: UdpAddress) -> None:
        self.address = address

    def send(self, datagrams: Datagrams) -> None:
        pass

    def close(self) -> None:
        pass


class NoNetwork:
    """Ports that nobody hears (``net.network.Network``)."""

    async def resolve(self, host: str, port: int) -> list[UdpAddress]:
        return [(host, port)]

    def open_udp(self, host: str, port: int, on_batch: OnBatch) -> _Port:
        return _Port((host, port or 47100))

    def open_group(self, host: str, port: int, on_batch: OnBatch, *, workers: int) -> Listening:
        return Listening(self.open_udp(host, port, on_batch), {})


async def judge(story: Story, marks: list[dict[str, Any]]) -> None:
    """Raises Lost."""
    _check_files(story, marks)
    try:
        node = make_node(story.root, story.name, network=NoNetwork())
        await node.open()
    except LabxchangeError as error:
        raise Lost(f"the node does not open: {error} ({error.code})") from error
    try:
        await _Judge(story, node, marks).run()
    finally:
        await node.close()


def _answers(marks: list[dict[str, Any]], verb: str) -> list[dict[str, Any]]:
    return [mark for mark in marks if mark.get("verb") == verb and "answer" in mark]


def _check_files(story: Story, marks: list[dict[str, Any]]) -> None:
    """Files that a person asked for: there once that was said, and whole when they are there."""
    told = {mark["given"]["path"] for mark in marks if "digest" in mark}
    for path, digest in story.digests().items():
        there = os.path.exists(path)
        _must(there or path not in told, f"{path} was written and is gone")
        _must(not there or sha256(Path(path).read_bytes()).hexdigest() == digest, f"{path} is not whole")
    for answer in (item for item in story.answers if item["verb"] == "restore"):
        _check_restored(answer, done=bool(_answers(marks, "restore")), backed_up=answer["given"]["path"] in told)


def _check_restored(answer: dict[str, Any], *, done: bool, backed_up: bool) -> None:
    """A restored home is whole, or it can be restored (again)."""
    home = Home(Path(answer["given"]["home"]))
    if not home.database.exists():
        _must(not done, "the restored node is gone")
        if not backed_up:
            return
        try:
            restore_backup(Path(answer["given"]["path"]), home)
        except LabxchangeError as error:
            raise Lost(f"after a crash the backup cannot be restored again: {error} ({error.code})") from error
    try:
        node = Node(home, NoNetwork())
        known = node.keys.load() is not None
        node.core.database.close()
    except LabxchangeError as error:
        raise Lost(f"the restored node does not open: {error} ({error.code})") from error
    _must(known, "the restored node has no identity")


class _Judge:
    """One node on one disk."""

    def __init__(self, story: Story, node: Node, marks: list[dict[str, Any]]) -> None:
        self._story = story
        self._node = node
        self._marks = marks

    async def run(self) -> None:
        made = _answers(self._marks, "key_create")
        if not self._node.core.public:
            _must(not made, "the identity is gone")
            path = str(self._story.root / f"{self._story.name}.credential")
            await self._node.key_create(name=self._story.name, organisation="again", credential_file=path)
            return
        _must(self._node.core.identity is not None, "the node cannot unlock itself any more")
        _must(not made or self._node.core.me == made[0]["answer"]["key"], "the identity is another one")
        for share in [row for row in self._node.shares.all() if row.state == "hashing"]:
            try:
                await self._node.hashing.hashed(share.share, share.version)
            except Exception as error:
                raise Lost(f"hashing does not go on: {error}") from error
        self._check_heads()
        self._check_rows()
        self._check_journals()
        self._check_answers()
        await self._check_trail()

    def _check_heads(self) -> None:
        trail = self._node.core.trail
        assert trail is not None
        with self._node.core.database.begin() as tx:
            held, fetch = trail.stored_size(tx), trail.nodes(tx)
            for size, root in [mark["head"] for mark in self._marks if "head" in mark][-5:]:
                _must(size <= held, f"an acknowledged entry is lost: {held} of {size}")
                _must(Frontier.load(size, fetch).root().hex() == root, f"the trail is not the acknowledged one at {size}")

    def _check_rows(self) -> None:
        with self._node.core.database.begin() as tx:
            statements = {sha256(item).hexdigest() for item in tx.execute(select(tables.statements.c.envelope)).scalars()}
            checkpoints = set(tx.execute(select(tables.trail_checkpoints.c.note)).scalars())
            witnessed = set(tx.execute(select(tables.witnessed.c.note)).scalars())
        for mark in self._marks:
            _must(statements.issuperset(mark.get("statements", ())), "a statement that was sent or taken is lost")
            _must(mark.get("checkpoint", "") in checkpoints | {""}, "a checkpoint that a contact saw is lost")
        seen = [mark["witnessed"] for mark in self._marks if "witnessed" in mark][-1:]
        _must(witnessed.issuperset(seen), "a head that was cosigned is forgotten")

    def _check_journals(self) -> None:
        with self._node.core.database.begin() as tx:
            for row in transfers.incoming(tx):
                arrived, released = (
                    {n for first, last in found for n in range(first, last + 1)}
                    for found in (transfers.arrived_chunks(tx, row.transfer), transfers.released_files(tx, row.transfer))
                )
                for mark in self._marks:
                    if mark.get("transfer") == row.transfer:
                        told = {n for first, last in mark.get("arrived", ()) for n in range(first, last + 1)}
                        _must(told <= arrived, "the journal forgot a chunk")
                        told = {n for first, last in mark.get("released", ()) for n in range(first, last + 1)}
                        _must(told <= released, "the journal forgot a file")
                share = shares.share(tx, row.share, row.version, owner=row.owner(self._node.core.me))
                if share is not None and share.digests:
                    self._check_transfer(row, arrived, released)
        self._check_names()

    def _check_transfer(self, row: TransferRow, arrived: set[int], released: set[int]) -> None:
        with self._node.core.database.begin() as tx:
            share = shares.share(tx, row.share, row.version, owner=row.owner(self._node.core.me))
        assert share is not None
        loaded = self._node.catalog.load(share)
        folder = Path(row.destination.decode())
        source = self._story.received[str(folder.relative_to(self._story.root))]
        parts = folder / f".labxchange-{row.transfer}"
        for index, file in enumerate(loaded.files):
            if index in released and not file.is_folder:
                _must((folder / file.path).exists(), f"{file.path} was released and is gone")
                if file.path == ALREADY:
                    continue  # not ours: its time and mode stay
                _must(not (parts / f"{index}.part").exists(), f"{file.path} was released and its part came back")
                info = (folder / file.path).stat()
                _must(stat.S_IMODE(info.st_mode) == 0o644, f"{file.path} was released with mode {info.st_mode:o}")
                _must(info.st_mtime_ns // 1_000_000 == file.mtime_ms, f"{file.path} was released with another time")
        for chunk in arrived:
            place = loaded.line.chunk_at(chunk)
            file = loaded.files[place.file]
            part = parts / f"{place.file}.part"
            path = part if part.exists() else folder / file.path
            _must(path.exists(), f"a chunk that the journal holds is nowhere: {file.path}")
            with path.open("rb") as reading:
                reading.seek(place.file_offset)
                data = reading.read(place.length)
            expected = source[file.path][place.file_offset : place.file_offset + place.length]
            _must(data == expected, f"a chunk that the journal holds is not on the disk: {file.path} from {place.file_offset}")
        _must(row.state not in ("verified", "completed") or not parts.exists(), "the private folder came back")

    def _check_names(self) -> None:
        for place, source in self._story.received.items():
            folder = self._story.root / place
            for path in folder.rglob("*") if folder.exists() else ():
                inside = path.relative_to(folder)
                if str(inside) == ALREADY:
                    continue  # until it is released it is the writer's; then its chunk is compared
                if not path.is_dir() and not inside.parts[0].startswith(".labxchange-"):
                    _must(path.read_bytes() == source[str(inside)], f"{inside} has its name and is not what was shared")

    def _check_answers(self) -> None:
        contacts = {row.key: row.state for row in self._node.contacts.all()}
        for answer in _answers(self._marks, "contact_verify"):
            _must(contacts.get(answer["answer"]["key"]) == "verified", "a contact is not verified any more")
        with self._node.core.database.begin() as tx:
            states = {row.transfer: row.state for row in transfers.all_transfers(tx)}
        for answer in (*_answers(self._marks, "receive"), *_answers(self._marks, "transfer_show")):
            found = states.get(answer["answer"]["transfer"])
            _must(found is not None, "a transfer is gone")
            final = answer["answer"]["state"] in ("verified", "completed")
            order = ("verified", "completed")
            _must(not final or found in order[order.index(answer["answer"]["state"]) :], f"a finished transfer is {found} again")
        shared = {item.share: item for item in self._node.shares.all()}
        for answer in (*_answers(self._marks, "share_create"), *_answers(self._marks, "share_hashed")):
            info = shared.get(answer["answer"]["share"])
            _must(info is not None and info.recipients, "a share or its grant is gone")
            _must(answer["answer"]["root"] in ("", info.root if info else ""), "a manifest is gone")
        for answer in _answers(self._marks, "share_revoke"):
            info = shared[answer["answer"]["share"]]
            _must(info.recipients[0].state == "revoked", "a revocation is lost")

    async def _check_trail(self) -> None:
        path = self._story.root / "judged.labxtrail"
        me = await self._node.key_show()
        await self._node.audit_export(path=str(path))
        found = verify(path, trust=[me.fingerprint])
        _must(found.verdict in (Verdict.VALID, Verdict.UNANCHORED), f"the trail is {found.verdict}: {found.reasons[:2]}")
