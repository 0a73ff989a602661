"""States that a kill leaves behind at one exact place, each found by the campaigns once; every one heals."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from labxchange.errors import InputError, UnavailableError
from labxchange.files.keyfile import write_secret
from labxchange.files.quarantine import Outcome, Quarantine, Release
from labxchange.node import keys
from labxchange.node.home import Home
from labxchange.node.node import Node
from labxchange.node.restoring import restore_backup
from labxchange.store.hash_cache import HashCache
from tests.crash.judge import NoNetwork
from tests.support.nodes import make_node, start

ITEM = Release(3, "a/b.txt", 4, 1_700_000_000_123)


class Killed(BaseException):
    """The process is gone at this place."""


def _killed_after_writing(path: Path, data: bytes) -> None:
    write_secret(path, data)
    raise Killed


def test_a_file_that_has_its_name_but_not_its_journal_row(tmp_path: Path) -> None:
    """Killed between the rename and the journal: the file is found at its name, checked there, and is released again."""
    buffer = memoryview(bytearray(3))
    with Quarantine(tmp_path, "t") as quarantine:
        quarantine.write(3, 0, b"data")
        assert not quarantine.in_place(ITEM)
        assert b"".join(bytes(view) for view in quarantine.contents(ITEM, buffer)) == b"data"
        quarantine.flush([3])
        quarantine.release([ITEM])
    os.utime(tmp_path / "a/b.txt", (1, 1))
    (tmp_path / "a/b.txt").chmod(0o600)
    with Quarantine(tmp_path, "t") as quarantine:
        assert quarantine.in_place(ITEM)
        assert b"".join(bytes(view) for view in quarantine.contents(ITEM, buffer)) == b"data"
        assert [item.outcome for item in quarantine.release([ITEM])] == [Outcome.ALREADY_RELEASED]
    info = (tmp_path / "a/b.txt").stat()
    assert (info.st_mtime_ns // 1_000_000, info.st_mode & 0o777) == (ITEM.mtime_ms, 0o644)


def test_a_link_whose_part_was_not_removed_yet(tmp_path: Path) -> None:
    """Where the system cannot rename without replacing: killed between link and unlink."""
    with Quarantine(tmp_path, "t") as quarantine:
        quarantine.write(3, 0, b"data")
        quarantine.flush([3])
    (tmp_path / "a").mkdir()
    os.link(tmp_path / ".labxchange-t" / "3.part", tmp_path / "a/b.txt")
    with Quarantine(tmp_path, "t") as quarantine:
        assert b"".join(bytes(view) for view in quarantine.contents(ITEM, memoryview(bytearray(8)))) == b"data"
        assert [item.outcome for item in quarantine.release([ITEM])] == [Outcome.RELEASED]
    assert not (tmp_path / ".labxchange-t" / "3.part").exists()


def test_an_identity_whose_file_was_not_written_yet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed while the identity is made: before its records it is not there, with them it is, and the file follows."""

    async def story() -> None:
        node = make_node(tmp_path, "Ada", network=NoNetwork())
        await node.open()
        write = keys.write_secret

        def fails_late(path: Path, data: bytes) -> None:
            if path.name == "identity.json":
                raise UnavailableError("disk-full", "full")
            write(path, data)

        with monkeypatch.context() as patched:
            patched.setattr(keys, "write_secret", fails_late)
            with pytest.raises(UnavailableError):
                await node.key_create(name="Ada", organisation="A", credential_file=str(tmp_path / "credential"))
        made = node.core.me
        node.core.database.close()
        for task in node._tasks:
            task.cancel()
        again = make_node(tmp_path, "Ada", network=NoNetwork())
        assert (await start(again)).key == made
        with pytest.raises(InputError) as caught:
            await again.key_create(name="Ada", organisation="A", passphrase="correct horse battery")
        assert caught.value.code == "identity-exists"
        await again.close()

    asyncio.run(story())


def test_a_restore_that_was_killed_at_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The key file is there and the database has not its name yet: the same backup can be restored again."""

    async def story() -> None:
        node = make_node(tmp_path, "Ada", network=NoNetwork())
        me = await start(node)
        await node.node_backup(path=str(tmp_path / "backup"))
        await node.close()
        home = Home(tmp_path / "new")
        with monkeypatch.context() as patched:
            patched.setattr("labxchange.node.restoring.write_secret", _killed_after_writing)
            patched.setattr("labxchange.node.restoring._undo", lambda *_: None)
            with pytest.raises(Killed):
                restore_backup(tmp_path / "backup", home)
        assert home.identity.exists()
        assert not home.database.exists()
        restore_backup(tmp_path / "backup", home)
        restored = Node(home, NoNetwork())
        await restored.open()
        assert restored.core.me == me.key
        await restored.close()

    asyncio.run(story())


@pytest.mark.parametrize("place", [0, 100, 4096, 8192])
def test_a_damaged_hash_cache_is_an_empty_one(tmp_path: Path, place: int) -> None:
    path, key = tmp_path / "cache.db", (1, 2, 3, 4, 5)
    cache = HashCache(path)
    cache.put(key, (b"s" * 32, b"c" * 32))
    cache.close()
    data = bytearray(path.read_bytes())
    data[place : place + 100] = b"\xff" * len(data[place : place + 100])
    path.write_bytes(data)
    cache = HashCache(path)
    assert cache.get(key) in (None, (b"s" * 32, b"c" * 32))
    cache.put(key, (b"t" * 32, b"c" * 32))
    cache.close()
    cache = HashCache(path)
    assert cache.get(key) == (b"t" * 32, b"c" * 32)
    cache.close()
