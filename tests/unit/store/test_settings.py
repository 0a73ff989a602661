"""Named values: what is not there, and what is there and cannot be read."""

from __future__ import annotations

from pathlib import Path

import pytest

from labxchange.errors import IntegrityError
from labxchange.store import settings
from labxchange.store.database import Database


def test_a_value_that_is_not_there_is_no_damage_and_an_empty_number_is(tmp_path: Path) -> None:
    """An epoch of the trail that lost its digits must not look like a trail that has none yet."""
    database = Database(tmp_path / "node.db")
    with database.begin() as tx:
        assert (settings.number(tx, "port"), settings.text(tx, "addresses")) == (0, "")
        settings.put(tx, "port", b"4711")
        settings.put(tx, "addresses", b"one two")
        assert (settings.number(tx, "port"), settings.text(tx, "addresses")) == (4711, "one two")
        for value in (b"", b"47\x011", b"\xff"):
            settings.put(tx, "port", value)
            with pytest.raises(IntegrityError) as caught:
                settings.number(tx, "port")
            assert caught.value.code == "database-damaged"
        settings.put(tx, "addresses", b"\xff")
        with pytest.raises(IntegrityError):
            settings.text(tx, "addresses")
    database.close()
