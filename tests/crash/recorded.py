"""A node whose system calls are recorded: ``strace ... python -m tests.crash.recorded FOLDER NAME [normal]``.

It takes calls on its standard input and answers on its standard output, one JSON line each. All that it vouches for - to the
face that calls, or to the contact it is connected with - is first written to ``/dev/null``, where the recording sees it:
answers, heads of the trail, journal rows, statements that were sent or taken, heads that were cosigned. Before each sync it
writes from which place in the source it comes. ``normal`` weakens the database to ``synchronous=NORMAL``, to show that the test
notices.
"""

from __future__ import annotations

import asyncio
import json
import os
import sqlite3
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec
from sqlalchemy import Connection

from labxchange.audit.entry import Entry
from labxchange.errors import LabxchangeError
from labxchange.files import quarantine
from labxchange.files.folders import make_folders
from labxchange.identity.statement import peek_kind
from labxchange.net.channel import Stream
from labxchange.node import journal
from labxchange.node import node as nodes
from labxchange.node.core import Core
from labxchange.node.home import Home
from labxchange.node.node import Node
from labxchange.node.restoring import restore_backup
from labxchange.node.taking import Taking
from labxchange.node.witnessing import Witnessing
from labxchange.store import database
from tests.support.nodes import make_node

SOURCE = Path(nodes.__file__).parents[1]
_KEPT = ("share", "listing", "manifest", "grant", "offer", "accept", "progress", "cut", "receipt", "receipt-ack", "revocation")
_null = os.open(os.devnull, os.O_WRONLY)


def mark(what: dict[str, Any]) -> None:
    os.write(_null, json.dumps(what).encode())


def main() -> None:
    folder, name, *more = sys.argv[1:]
    _name_sites()
    _watch_node()
    if "normal" in more:
        _weaken()
    asyncio.run(_serve(Path(folder), name))


# --- which sync is it ----------------------------------------------------------------------------------------------------
def _name_sites() -> None:
    for owner, name in ((os, "fsync"), (os, "fdatasync"), (quarantine, "sync_file_system")):
        setattr(owner, name, _naming(getattr(owner, name)))


def _naming(function: Callable[[int], Any]) -> Callable[[int], Any]:
    def call(descriptor: int) -> Any:
        frame = sys._getframe(1)
        while frame.f_back is not None and frame.f_code.co_name == "_synced":
            frame = frame.f_back
        file = Path(frame.f_code.co_filename)
        mark({"site": f"{file.relative_to(SOURCE)}:{frame.f_code.co_name}:{frame.f_lineno}"})
        return function(descriptor)

    return call


def _weaken() -> None:
    configure = database._configure

    def weak(raw: sqlite3.Connection, record: object) -> None:
        configure(raw, record)
        raw.execute("PRAGMA synchronous=NORMAL").fetchall()

    database._configure = weak


# --- what is vouched for -------------------------------------------------------------------------------------------------
def _digest(envelope: bytes) -> str:
    return sha256(envelope).hexdigest()


def _watch_node() -> None:
    act = Core.act

    @contextmanager
    def acted(self: Core, *entries: Entry) -> Iterator[Connection]:
        with act(self, *entries) as tx:
            yield tx
        assert self.trail is not None
        mark({"head": [self.trail.size, self.trail._frontier.root().hex()]})

    Core.act = acted  # type: ignore[method-assign]
    commit = journal.TransferJournal.commit

    def journalled(self: Any, **what: Any) -> None:
        commit(self, **what)
        mark({name: [list(pair) for pair in what[name]] for name in ("arrived", "released")} | {"transfer": self._row.transfer})

    journal.TransferJournal.commit = journalled  # type: ignore[method-assign]
    remember = Witnessing._remember

    def remembered(self: Witnessing, row: Any, checkpoint: Any, note: str, judgement: object) -> None:
        remember(self, row, checkpoint, note, judgement)
        mark({"witnessed": note})

    Witnessing._remember = remembered  # type: ignore[method-assign]
    _watch_conversation()


def _watch_conversation() -> None:
    take, send = Taking.take, Stream.send
    taken: list[str] = []

    def took(self: Taking, key: str, envelope: bytes) -> list[bytes]:
        replies = take(self, key, envelope)
        if peek_kind(envelope) in _KEPT:
            taken.append(_digest(envelope))
        return replies

    async def sent(self: Stream, data: bytes, *, end: bool = False) -> None:
        tag, *fields = msgspec.msgpack.decode(data)
        told = list(fields[0]) if tag in ("deliver", "taken") else fields[:1] if tag in ("accepting", "started") else []
        kept = [_digest(item) for item in told if item and peek_kind(item) in _KEPT]
        if tag == "taken":
            kept += taken
            taken.clear()
        if kept:
            mark({"statements": kept})
        if tag == "witness":
            mark({"checkpoint": fields[0]})
        await send(self, data, end=end)

    Taking.take = took  # type: ignore[method-assign]
    Stream.send = sent  # type: ignore[method-assign]


# --- calls ---------------------------------------------------------------------------------------------------------------
async def _serve(folder: Path, name: str) -> None:
    node: Node | None = None
    reader = asyncio.StreamReader(limit=1 << 22)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        asked = json.loads(line)
        verb = asked.pop("verb")
        answer: dict[str, Any]
        try:
            if verb == "start":
                node = make_node(folder, name)
                await node.open()
                result: Any = None
            elif verb == "stop":
                assert node is not None
                await node.close()
                result = None
            elif verb == "put":
                path = Path(asked["path"])
                make_folders(path.parent)
                result = path.write_bytes(bytes.fromhex(asked["data"]))
            elif verb == "restore":
                result = restore_backup(Path(asked["path"]), Home(Path(asked["home"])))
            else:
                result = await getattr(node, verb)(**asked)
            answer = {"answer": msgspec.to_builtins(result), "verb": verb, "given": asked}
            if verb in ("audit_export", "node_backup", "key_backup"):
                answer["digest"] = _digest(Path(asked["path"]).read_bytes())
        except LabxchangeError as error:
            answer = {"error": error.code, "verb": verb, "message": error.message}
        mark(answer)
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
