"""What a sender left out is said in the share, and what was received can be read as what was verified."""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path

import pytest

from labxchange.errors import InputError
from labxchange.node.values import WithheldInfo
from tests.support.nodes import ended, wait_for
from tests.support.world import World, check_exchange, settle, simulate, write_files

LEFT = WithheldInfo(file="adsl.csv", columns=("ARM", "TRT\u202e01P"), rows=168)


def test_both_sides_and_both_trails_know_what_was_withheld(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        ada, bo = await world.pair()
        write_files(tmp_path / "data", {"adsl.csv": b"USUBJID\n1\n"})
        path = str(tmp_path / "data" / "adsl.csv")
        made = await ada.node.share_create(paths=[path], to=["Bo"], title="Blinded", withheld=[LEFT])
        assert made.withheld[0].rows == 168

        async def offered() -> bool:
            return bool(await bo.node.inbox_list())

        await wait_for(offered)
        (item,) = await bo.node.inbox_list()
        (told,) = item.withheld
        assert (told.file, told.rows) == ("adsl.csv", 168)
        assert told.columns[0] == "ARM"
        assert "\u202e" not in told.columns[1], "a peer's text is shown escaped"
        (entry,) = await ada.node.audit_list(event="share.exposed-subset")
        assert json.loads(entry.fields["details"]) == {"columns": 2, "rows": 168}
        await bo.node.receive(share="Blinded")
        await settle(ada, bo)
        await check_exchange(ada, bo)

    simulate(story, tmp_path)


def test_a_received_file_is_named_with_the_digest_that_was_verified(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        ada, bo = await world.pair()
        files = write_files(tmp_path / "data", {"a/one.csv": b"1", "b/one.csv": b"2", "two.csv": b"22"})
        await ada.node.share_create(paths=[str(tmp_path / "data")], to=["Bo"], title="Trial")

        async def offered() -> bool:
            return bool(await bo.node.inbox_list())

        await wait_for(offered)
        started = await bo.node.receive(share="Trial")
        with pytest.raises(InputError) as early:
            await bo.node.received_file(transfer=started.transfer, file="two.csv")
        assert early.value.code == "file-not-verified"
        done = await ended(bo.node, started.transfer)
        found = await bo.node.received_file(transfer=done.transfer, file="two.csv")
        assert found.sha256 == sha256(files["two.csv"]).hexdigest()
        assert Path(found.place).read_bytes() == b"22"
        assert found.receipt
        assert (await bo.node.received_file(transfer=done.transfer, file="a/one.csv")).path == "a/one.csv"
        for name, code in (("one.csv", "file-ambiguous"), ("three.csv", "file-unknown"), ("../two.csv", "file-unknown")):
            with pytest.raises(InputError) as refused:
                await bo.node.received_file(transfer=done.transfer, file=name)
            assert refused.value.code == code
        with pytest.raises(InputError) as foreign:
            await ada.node.received_file(transfer=done.transfer, file="two.csv")
        assert foreign.value.code == "transfer-unknown"

    simulate(story, tmp_path)
