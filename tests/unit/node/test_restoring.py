"""A node comes back from its backup once, whole, and never over another."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from labxchange.errors import InputError, LabxchangeError, RefusedError
from labxchange.identity.sealing import Argon
from labxchange.net.sockets import SocketNetwork
from labxchange.node import restoring
from labxchange.node.home import Home
from labxchange.node.node import Node
from labxchange.node.restoring import restore_backup

CHEAP = Argon(memory_kib=1024, passes=1, lanes=1)


def _node(home: Home) -> Node:
    return Node(home, SocketNetwork(), host="127.0.0.1", argon=CHEAP)


@pytest.fixture
def backup(tmp_path: Path) -> Path:
    import asyncio

    async def make() -> None:
        node = _node(Home(tmp_path / "first"))
        await node.open()
        try:
            await node.key_create(name="Ana", organisation="CRO", passphrase="a passphrase")
            await node.node_backup(path=str(tmp_path / "backup.db"))
        finally:
            await node.close()

    asyncio.run(make())
    return tmp_path / "backup.db"


def test_it_opens_a_new_epoch(backup: Path, tmp_path: Path) -> None:
    import asyncio

    home = Home(tmp_path / "second")
    before = backup.read_bytes()
    restored = restore_backup(backup, home)
    assert (restored.name, restored.organisation, restored.home) == ("Ana", "CRO", str(home.root))
    assert backup.read_bytes() == before
    assert {path.name for path in home.root.iterdir()} == {"node.db", "identity.json"}
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in home.root.iterdir())
    assert b"backup-identity" not in home.database.read_bytes()

    async def use() -> list[str]:
        node = _node(home)
        await node.open()
        try:
            assert (await node.key_show()).locked
            await node.unlock(passphrase="a passphrase")
            return [entry.event for entry in await node.audit_list(limit=10)]
        finally:
            await node.close()

    assert "trail.restored" in asyncio.run(use())


@pytest.mark.parametrize("name", ["node.db", "identity.json"])
def test_nothing_is_replaced(name: str, backup: Path, tmp_path: Path) -> None:
    home = Home(tmp_path / "second")
    home.create()
    (home.root / name).write_text("mine")
    with pytest.raises(RefusedError) as caught:
        restore_backup(backup, home)
    assert caught.value.code == "node-exists"
    assert (home.root / name).read_text() == "mine"


def _damage(path: Path, how: str) -> None:
    if how == "not a database":
        path.write_text("{}")
    elif how == "cut short":
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    elif how == "no identity in it":
        with sqlite3.connect(path) as database:
            database.execute("DELETE FROM settings WHERE name = 'backup-identity'")
        database.close()
    elif how == "another database":
        path.unlink()
        with sqlite3.connect(path) as database:
            database.execute("CREATE TABLE other (x)")
        database.close()
    else:
        with sqlite3.connect(path) as database:
            database.execute("UPDATE settings SET value = x'7b7d' WHERE name = 'backup-identity'")
        database.close()


@pytest.mark.parametrize("how", ["not a database", "cut short", "no identity in it", "another database", "identity damaged"])
def test_a_damaged_backup_leaves_nothing_behind(how: str, backup: Path, tmp_path: Path) -> None:
    _damage(backup, how)
    home = Home(tmp_path / "second")
    with pytest.raises(LabxchangeError) as caught:
        restore_backup(backup, home)
    assert caught.value.code in ("backup-unreadable", "database-damaged", "key-file-damaged")
    assert not home.root.exists() or not list(home.root.iterdir())


def test_a_failure_before_the_end_can_be_repeated(backup: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = Home(tmp_path / "second")

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(restoring, "_sync", fail)
        with pytest.raises(LabxchangeError) as caught:
            restore_backup(backup, home)
    assert caught.value.code == "disk-full"
    assert not list(home.root.iterdir())
    assert restore_backup(backup, home).name == "Ana"


def test_a_backup_of_the_key_alone_is_named(tmp_path: Path) -> None:
    key = tmp_path / "key.json"
    key.write_text('{"labxchange key backup": 1}')
    with pytest.raises(InputError, match="not a backup") as caught:
        restore_backup(key, Home(tmp_path / "second"))
    assert "key restore" in caught.value.hint
