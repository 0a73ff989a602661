"""Opening the database: one node at a time, damage and a full disk named so, backups beside work, migrations as the tables."""

from __future__ import annotations

import json
import os
import sqlite3
import threading
from pathlib import Path

import pytest
from sqlalchemy import inspect
from sqlalchemy.exc import OperationalError

from labxchange.errors import IntegrityError, UnavailableError
from labxchange.store import settings
from labxchange.store.database import Database, _translate
from labxchange.store.tables import metadata


def put(database: Database, name: str, value: bytes) -> None:
    with database.begin() as tx:
        settings.put(tx, name, value)


def get(database: Database, name: str) -> bytes | None:
    with database.begin() as tx:
        return settings.get(tx, name)


def test_what_is_committed_is_there_again(tmp_path: Path) -> None:
    database = Database(tmp_path / "node.db")
    put(database, "a", b"1")
    database.close()
    again = Database(tmp_path / "node.db")
    assert get(again, "a") == b"1"
    again.close()
    assert (tmp_path / "node.db").stat().st_mode & 0o777 == 0o600
    assert not (tmp_path / "node.lock").exists()


def test_a_block_that_fails_leaves_nothing_and_an_inner_block_joins(tmp_path: Path) -> None:
    database = Database(tmp_path / "node.db")
    with pytest.raises(RuntimeError), database.begin() as tx:  # noqa: PT012
        settings.put(tx, "outer", b"1")
        put(database, "inner", b"1")
        assert database.busy
        raise RuntimeError
    assert not database.busy
    assert get(database, "outer") is get(database, "inner") is None
    database.close()


def test_a_second_node_is_refused_and_told_who_holds_it(tmp_path: Path) -> None:
    first = Database(tmp_path / "node.db", now_text="2026-11-21 22:05:01 UTC")
    assert json.loads((tmp_path / "node.lock").read_text())["pid"] == os.getpid()
    with pytest.raises(UnavailableError) as caught:
        Database(tmp_path / "node.db")
    assert caught.value.code == "node-already-running"
    assert f"process {os.getpid()} " in caught.value.message
    assert "2026-11-21 22:05:01 UTC" in caught.value.message
    put(first, "a", b"1")
    first.close()
    Database(tmp_path / "node.db").close()


def test_a_lock_file_alone_holds_nothing(tmp_path: Path) -> None:
    (tmp_path / "node.lock").write_text("what a crash left")
    Database(tmp_path / "node.db").close()


@pytest.mark.parametrize("damage", ["no database", "a torn page"])
def test_a_damaged_file_is_named_as_such(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "node.db"
    database = Database(path)
    for number in range(50):
        put(database, f"name {number}", bytes(1000))
    database.close()
    raw = bytearray(path.read_bytes())
    if damage == "no database":
        raw[:100] = b"x" * 100
    else:
        raw[4096:] = bytes(len(raw) - 4096)
    path.write_bytes(raw)
    with pytest.raises(IntegrityError) as caught:
        Database(path)
    assert caught.value.code == "database-damaged"
    assert path.read_bytes() == bytes(raw), "the evidence is left alone"


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ("database or disk is full", "disk-full"),
        ("disk I/O error", "disk-full"),
        ("database is locked", "node-already-running"),
        ("database disk image is malformed", "database-damaged"),
    ],
)
def test_errors_of_sqlite_say_what_to_do(tmp_path: Path, words: str, code: str) -> None:
    error = _translate(OperationalError("", None, sqlite3.OperationalError(words)), tmp_path / "node.lock")
    assert error.code == code
    assert error.hint


def test_a_full_disk_undoes_the_block(tmp_path: Path) -> None:
    database = Database(tmp_path / "node.db")
    put(database, "a", b"1")
    with database.begin() as tx:
        pages = int(tx.exec_driver_sql("PRAGMA page_count").scalar_one())
        tx.exec_driver_sql(f"PRAGMA max_page_count={pages}")
    with pytest.raises(UnavailableError) as caught:
        put(database, "b", bytes(1 << 20))
    assert caught.value.code == "disk-full"
    assert (get(database, "a"), get(database, "b")) == (b"1", None)
    database.close()


def test_a_backup_is_whole_while_the_node_works(tmp_path: Path) -> None:
    database = Database(tmp_path / "node.db")
    put(database, "big", bytes(8 << 20))
    thread = threading.Thread(target=lambda: database.backup(tmp_path / "copy.db", settings={"more": b"2"}))
    thread.start()
    written = 0
    while thread.is_alive() and written < 200:
        written += 1
        put(database, "n", str(written).encode())
    thread.join()
    put(database, "late", b"1")
    database.close()
    copy = sqlite3.connect(tmp_path / "copy.db")
    found = dict(copy.execute("SELECT name, value FROM settings").fetchall())
    assert copy.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    copy.close()
    assert found["big"] == bytes(8 << 20)
    assert found["more"] == b"2"
    assert "late" not in found


def test_a_backup_holds_nothing_that_was_undone(tmp_path: Path) -> None:
    database = Database(tmp_path / "node.db")
    put(database, "a", b"1")
    thread = threading.Thread(target=lambda: database.backup(tmp_path / "copy.db", settings={}))
    with pytest.raises(RuntimeError), database.begin() as tx:  # noqa: PT012
        settings.put(tx, "undone", b"1")
        thread.start()
        thread.join(0.2)
        raise RuntimeError
    thread.join()
    copy = sqlite3.connect(tmp_path / "copy.db")
    assert [row[0] for row in copy.execute("SELECT name FROM settings").fetchall()] == ["a"]
    copy.close()
    database.close()
    with pytest.raises(UnavailableError) as caught:
        database.backup(tmp_path / "late.db", settings={})
    assert caught.value.code == "node-stopping"


def test_a_backup_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    database = Database(tmp_path / "node.db")
    with pytest.raises(UnavailableError) as caught:
        database.backup(tmp_path / "no such folder" / "copy.db", settings={})
    assert caught.value.code == "disk-error"
    database.close()


def test_the_migrations_make_the_tables(tmp_path: Path) -> None:
    database = Database(tmp_path / "node.db")
    with database.begin() as tx:
        made = inspect(tx)
        names = set(made.get_table_names()) - {"alembic_version"}
        assert names == set(metadata.tables)
        for name, table in metadata.tables.items():
            columns = {item["name"]: (str(item["type"]), item["nullable"]) for item in made.get_columns(name)}
            told = {item.name: (str(item.type.compile(tx.dialect)), bool(item.nullable)) for item in table.columns}
            assert columns == told, name
            assert made.get_pk_constraint(name)["constrained_columns"] == [item.name for item in table.primary_key], name
            indexes = {item["name"]: tuple(item["column_names"]) for item in made.get_indexes(name)}
            assert indexes == {item.name: tuple(column.name for column in item.columns) for item in table.indexes}, name
    database.close()
