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
from labxchange.store import settings, shares
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


@pytest.mark.parametrize("damage", ["no database", "a torn page", "a word that is no text"])
def test_a_damaged_file_is_named_as_such(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "node.db"
    database = Database(path)
    for number in range(50):
        put(database, f"name {number}", bytes(1000))
    database.close()
    raw = bytearray(path.read_bytes())
    if damage == "no database":
        raw[:100] = b"x" * 100
    elif damage == "a word that is no text":
        raw = bytearray(bytes(raw).replace(b"CREATE TABLE", b"CR\xe5ATE TABLE"))
    else:
        raw[4096:] = bytes(len(raw) - 4096)
    path.write_bytes(raw)
    with pytest.raises(IntegrityError) as caught:
        Database(path)
    assert caught.value.code == "database-damaged"
    assert path.read_bytes() == bytes(raw), "the evidence is left alone"
    with pytest.raises(IntegrityError):
        Database(path)  # nothing of the first try holds the file


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


def test_what_a_first_home_holds_is_there_after_the_migration(tmp_path: Path) -> None:
    """Owners came into the keys of shares and grants: what was kept under the old keys is kept under the new ones."""
    path = tmp_path / "node.db"
    Database(path).close()
    raw = sqlite3.connect(path)
    raw.executescript(
        "DROP TABLE shares; DROP TABLE grants; DROP TABLE grant_recipients; ALTER TABLE transfers DROP COLUMN reused_bytes; "
        "DROP TABLE transfer_limits; "
        "UPDATE alembic_version SET version_num = '0001'"
    )
    raw.executescript(
        """
        CREATE TABLE shares (share VARCHAR NOT NULL, version INTEGER NOT NULL, owner VARCHAR NOT NULL, state VARCHAR NOT NULL,
            title VARCHAR NOT NULL, statement VARCHAR NOT NULL, listing VARCHAR NOT NULL, manifest VARCHAR NOT NULL,
            digests VARCHAR NOT NULL, source BLOB NOT NULL, stored_ms INTEGER NOT NULL, PRIMARY KEY (share, version));
        CREATE TABLE grants ("grant" VARCHAR NOT NULL PRIMARY KEY, owner VARCHAR NOT NULL, share VARCHAR NOT NULL,
            version INTEGER NOT NULL, statement VARCHAR NOT NULL, offer VARCHAR NOT NULL, revocation VARCHAR NOT NULL,
            not_after INTEGER NOT NULL, ended INTEGER NOT NULL, asked_until INTEGER NOT NULL);
        CREATE INDEX grants_share ON grants (share, version);
        CREATE TABLE grant_recipients ("grant" VARCHAR NOT NULL, recipient VARCHAR NOT NULL, PRIMARY KEY ("grant", recipient));
        INSERT INTO shares VALUES ('s1', 1, 'me', 'available', 't', 'st', 'li', 'ma', 'di', x'01', 7);
        INSERT INTO shares VALUES ('s1', 2, 'me', 'retracted', 't', 'st2', 'li2', '', '', x'', 8);
        INSERT INTO grants VALUES ('g1', 'me', 's1', 1, 'gs', 'of', 'rev', 99, 1, 0);
        INSERT INTO grants VALUES ('g2', 'ada', 's2', 1, 'gs2', 'of2', '', 98, 0, 97);
        INSERT INTO grant_recipients VALUES ('g1', 'bo'), ('g2', 'me');
        """
    )
    raw.close()
    database = Database(path)
    with database.begin() as tx:
        kept = shares.all_shares(tx)
        assert [(row.owner, row.share, row.version, row.state, row.listing) for row in kept] == [
            ("me", "s1", 1, "available", "li"),
            ("me", "s1", 2, "retracted", "li2"),
        ]
        assert (kept[0].manifest, kept[0].digests, kept[0].source, kept[0].stored_ms) == ("ma", "di", b"\x01", 7)
        given = shares.grant(tx, "g1", owner="me")
        assert given is not None
        assert (given.revocation, given.not_after, given.ended, shares.recipients(tx, given)) == ("rev", 99, 1, ["bo"])
        assert given.restored == 0
        assert shares.grant(tx, "g1", owner="ada") is None
        assert [(row.grant, row.asked_until) for row in shares.grants_foreign(tx, "me")] == [("g2", 97)]
        assert [row.grant for row in shares.grants_for(tx, "me", "s2", 1, owner="ada")] == ["g2"]
        names = set(inspect(tx).get_table_names())
        assert not {name for name in names if name.endswith("_before")}
    database.close()
