"""Ids that somebody else uses: whoever takes the id of another's share or grant takes nothing from them.

An id is random and chosen by who shares, but recipients of a share learn it. Mallory was given Carol's share, so he may offer Bo
another one under the same id and title before Carol's offer arrives, and even name his grant as hers.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from labxchange.errors import InputError
from labxchange.node.node import Node
from labxchange.node.values import ShareInfo
from tests.support.nodes import befriend, ended, offered, share, wait_for
from tests.support.world import Machine, World, simulate, write_files

TRUE, FALSE = {"adsl.csv": b"1,2\n" * 900}, {"adsl.csv": b"9,9\n" * 700}


async def meet(world: World) -> tuple[Machine, Machine, Machine]:
    """Bo, and Carol and Mallory whom he verified; both may share with him."""
    bo, carol, mallory = (world.machine(name) for name in ("Bo", "Carol", "Mallory"))
    for machine in (bo, carol, mallory):
        await machine.boot()
    for machine in (carol, mallory):
        await befriend(bo.node, machine.node)
    await befriend(carol.node, mallory.node)
    return bo, carol, mallory


def take_ids(node: Node, monkeypatch: pytest.MonkeyPatch, *, share: str, version: int, grant: str) -> None:
    """What ``node`` shares next bears these ids."""
    genuine: Callable[[int], bytes] = node.core.random_bytes
    issue = node.grants.issue

    def given(_count: int) -> bytes:
        node.core.random_bytes = genuine
        return bytes.fromhex(grant)

    def issuing(*args: object, **kwargs: object) -> None:
        node.core.random_bytes = given
        issue(*args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(node.shares, "_next", lambda _: (share, version))
    monkeypatch.setattr(node.grants, "issue", issuing)


async def both_offered(world: World, monkeypatch: pytest.MonkeyPatch) -> tuple[Machine, Machine, Machine, ShareInfo]:
    bo, carol, mallory = await meet(world)
    true, false = world.folder / "true", world.folder / "false"
    write_files(true, TRUE)
    write_files(false, FALSE)
    await share(carol.node, mallory.node, true, title="ADaM")
    world.cut_wire(bo, carol)
    made = await carol.node.share_create(paths=[str(true)], to=["Bo"], share="ADaM")
    take_ids(mallory.node, monkeypatch, share=made.share, version=made.version, grant=made.recipients[0].grant)
    taken = await share(mallory.node, bo.node, false, title="ADaM")
    assert (taken.share, taken.version) == (made.share, made.version)
    assert taken.recipients[0].grant == made.recipients[0].grant
    assert [item.sender for item in await bo.node.inbox_list()] == ["Mallory"]
    world.mend_wire(bo, carol)
    return bo, carol, mallory, made


async def of_both(bo: Node, made: ShareInfo) -> bool:
    await offered(bo, made)
    return len({item.sender for item in await bo.inbox_list()}) == 2


def test_a_taken_share_id_keeps_nobody_from_sharing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(world: World) -> None:
        bo, carol, mallory, made = await both_offered(world, monkeypatch)
        await wait_for(lambda: of_both(bo.node, made), what="both offers")
        with pytest.raises(InputError, match="several shares") as raised:
            await bo.node.receive(share=made.share)
        assert raised.value.code == "offer-ambiguous"
        assert "--from" in raised.value.hint
        with pytest.raises(InputError) as raised:
            await bo.node.request_extension(share="ADaM", until=made.recipients[0].not_after + 1000)
        assert raised.value.code == "offer-ambiguous"
        first = await bo.node.receive(share=made.share, sender="Carol", destination=str(tmp_path / "from-carol"))
        second = await bo.node.receive(share="ADaM", sender="Mallory", destination=str(tmp_path / "from-mallory"))
        for transfer, sender, files in ((first, carol, TRUE), (second, mallory, FALSE)):
            assert transfer.peer_key == sender.node.core.me
            info = await ended(bo.node, transfer.transfer, timeout_s=600)
            assert (info.state, info.bytes) == ("completed", sum(map(len, files.values())))
            folder = Path(info.destination)
            assert {path.name: path.read_bytes() for path in folder.iterdir()} == files
            assert (await bo.node.receipt_show(transfer=transfer.transfer)).sender == sender.name
            status = await sender.node.share_status(share=f"{made.share}/{made.version}")
            assert [(item.name, item.state) for item in status.recipients if item.name == "Bo"] == [("Bo", "verified")]

    simulate(story, tmp_path)


def test_who_ends_a_grant_of_the_same_id_ends_only_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(world: World) -> None:
        bo, carol, mallory, made = await both_offered(world, monkeypatch)
        await wait_for(lambda: of_both(bo.node, made), what="both offers")
        started = await bo.node.receive(share=made.share, sender="Carol")
        await bo.node.transfer_pause(transfer=started.transfer)
        await mallory.node.share_revoke(share=made.share, reason="to do harm")

        async def revoked() -> bool:
            return {(item.sender, item.state) for item in await bo.node.inbox_list()} == {
                ("Mallory", "revoked"),
                ("Carol", "in progress"),
            }

        await wait_for(revoked, what="Mallory's revocation and nothing else")
        await bo.node.transfer_resume(transfer=started.transfer)
        assert (await ended(bo.node, started.transfer, timeout_s=600)).state == "completed"
        later = made.recipients[0].not_after + 86_400_000
        await bo.node.request_extension(share=made.share, sender="Carol", until=later, reason="more")

        async def asked() -> bool:
            status = await carol.node.share_status(share=f"{made.share}/{made.version}")
            return [item.asked_until for item in status.recipients] == [later]

        await wait_for(asked, what="the request")
        assert all(item.asked_until == 0 for item in (await mallory.node.share_status(share=made.share)).recipients)

    simulate(story, tmp_path)


def test_a_share_of_ones_own_is_not_offered_by_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(world: World) -> None:
        _, carol, mallory = await meet(world)
        write_files(tmp_path / "true", TRUE)
        made = await share(carol.node, mallory.node, tmp_path / "true", title="ADaM")
        take_ids(mallory.node, monkeypatch, share=made.share, version=2, grant=made.recipients[0].grant)
        await mallory.node.share_create(paths=[str(tmp_path / "true")], to=["Carol"])

        async def refused() -> bool:
            told = await carol.node.audit_list(event="security.protocol-violation")
            return any(entry.result_code == "share-foreign" for entry in told)

        await wait_for(refused, what="the refusal")
        assert not await carol.node.inbox_list()
        assert [item.version for item in await carol.node.share_list()] == [1]

    simulate(story, tmp_path)
