"""People, keys and connections of whole nodes, on the simulated network: who meets, who is told what, who finds whom again."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from labxchange.errors import InputError, NodeLocked, RefusedError, UnavailableError
from labxchange.node.values import ContactInfo
from labxchange.settings import RETRY_LAST_S
from labxchange.store import statements
from tests.support.nodes import befriend, ended, make_node, offered, share, until, wait_for
from tests.support.world import (
    Machine,
    World,
    check_exchange,
    check_released,
    many_files,
    now,
    settle,
    simulate,
    underway,
    write_files,
)


async def contact(machine: Machine, name: str) -> ContactInfo:
    """What a node shows of a contact."""
    return next(item for item in await machine.node.contact_list() if item.name == name)


async def words(machine: Machine) -> list[str]:
    return list((await machine.node.key_show()).words)


def test_unverified_contacts_are_told_a_number_and_nothing_more(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        ada, bo = await world.pair(verify=False)
        assert (await contact(ada, "Bo")).state == (await contact(bo, "Ada")).state == "unverified"
        files = write_files(tmp_path / "data", {"secret name.txt": b"secret"})
        made = await ada.node.share_create(paths=[str(tmp_path / "data")], to=["Bo"], title="Secret title")
        await wait_for(lambda: bo.node.serving.waiting_from(ada.node.core.me), what="the number")
        assert bo.node.serving.waiting_from(ada.node.core.me) == (await contact(bo, "Ada")).offers == 1
        assert await bo.node.inbox_list() == []
        with bo.node.core.database.begin() as tx:
            kinds = [kind for kind in ("share", "listing", "grant", "offer") if statements.of_kind(tx, kind)]
        assert kinds == []

        await bo.node.contact_verify(contact="Ada", words=await words(ada))
        began = now()
        await wait_for(lambda: now() > began + 100, timeout_s=200)
        assert await bo.node.inbox_list() == [], "the sender has not verified Bo"
        await ada.node.contact_verify(contact="Bo", words=await words(bo))
        await offered(bo.node, made)
        started = await bo.node.receive(share="Secret title")
        done = await ended(bo.node, started.transfer)
        assert done.state == "completed"
        check_released(Path(done.destination), files)
        await settle(ada, bo)
        await check_exchange(ada, bo)

    simulate(story, tmp_path)


def test_what_an_unverified_sender_offers_is_not_taken(tmp_path: Path) -> None:
    """Ada has verified Bo, Bo has not verified Ada: her offer waits at her side until he has."""

    async def story(world: World) -> None:
        ada, bo = await world.pair(verify=False)
        await ada.node.contact_verify(contact="Bo", words=await words(bo))
        write_files(tmp_path / "data", {"a": b"1"})
        made = await ada.node.share_create(paths=[str(tmp_path / "data")], to=["Bo"], title="Trial")
        began = now()
        await wait_for(lambda: now() > began + 200, timeout_s=300)
        assert await bo.node.inbox_list() == []
        assert (await ada.node.share_status(share="Trial")).recipients[0].state == "waiting for them"
        await bo.node.contact_verify(contact="Ada", words=await words(ada))
        await offered(bo.node, made)

    simulate(story, tmp_path)


def test_wrong_words_verify_nobody(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        ada, bo = await world.pair(verify=False)
        right, other = await words(bo), await words(ada)
        for typed, code in (
            (other, "words-differ"),
            (right[:5], "words-count"),
            ([*right[:5], "zzzz"], "word-unknown"),
            ([*right[:5], right[0]], "words-differ"),
        ):
            if typed == right:
                continue
            with pytest.raises(InputError) as wrong:
                await ada.node.contact_verify(contact="Bo", words=typed)
            assert wrong.value.code == code
        assert (await contact(ada, "Bo")).state == "unverified"
        denied = await ada.node.audit_list(event="contact.verified")
        assert {entry.result_code for entry in denied} == {"words-differ"}

    simulate(story, tmp_path)


def test_an_invitation_is_for_one_and_a_second_use_is_shown(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        ada, bo, eve = (world.machine(name) for name in ("Ada", "Bo", "Eve"))
        for machine in (ada, bo, eve):
            await machine.boot()
        made = await ada.node.contact_invite()
        await bo.node.contact_accept(text=made.text)
        with pytest.raises(RefusedError) as used:
            await eve.node.contact_accept(text=made.text)
        assert used.value.code == "invitation-used"
        assert [item.name for item in await ada.node.contact_list()] == ["Bo"]
        assert "intercepted" in (await contact(ada, "Bo")).alert
        assert await eve.node.contact_list() == []
        assert len(await ada.node.audit_list(event="invitation.reused")) == 1
        again = await bo.node.contact_accept(text=made.text)
        assert again.name == "Ada", "the one who used it meets nobody new"

        late = await ada.node.contact_invite()
        for _ in range(8):  # days pass; a jump of several at once would not be believed
            eve.clock_ms += 22 * 3_600_000
            assert eve.node.core.clock.now() == eve.wall()
        with pytest.raises(InputError) as expired:
            await eve.node.contact_accept(text=late.text)
        assert expired.value.code == "invitation-expired"
        with pytest.raises(InputError) as own:
            await ada.node.contact_accept(text=late.text)
        assert own.value.code == "invitation-own"
        with pytest.raises(InputError) as cut:
            await eve.node.contact_accept(text=late.text[:-4])
        assert cut.value.code == "invitation-malformed"

    simulate(story, tmp_path)


def test_an_invitation_made_for_a_known_key_verifies_the_invitee_and_nobody_else(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        ada, bo, eve = (world.machine(name) for name in ("Ada", "Bo", "Eve"))
        for machine in (ada, bo, eve):
            await machine.boot()
        made = await ada.node.contact_invite(made_for=(await bo.node.key_show()).fingerprint)
        with pytest.raises(RefusedError) as other:
            await eve.node.contact_accept(text=made.text)
        assert other.value.code == "invitation-for-another"
        await bo.node.contact_accept(text=made.text)
        assert (await contact(ada, "Bo")).state == "verified"
        assert (await contact(bo, "Ada")).state == "unverified"

    simulate(story, tmp_path)


def test_a_new_key_under_a_known_name_is_blocked_and_both_are_alerted(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        ada, bo = await world.pair()
        await bo.stop()
        other = world.machine("Bo 2")
        other.folder = tmp_path / "elsewhere"
        other.folder.mkdir()
        other.name = "Bo"
        await other.boot()
        made = await ada.node.contact_invite()
        with pytest.raises(RefusedError) as refused:
            await other.node.contact_accept(text=made.text)
        assert refused.value.code == "contact-key-changed"
        shown = await ada.node.contact_list()
        assert sorted(item.state for item in shown) == ["blocked", "verified"]
        assert all(item.alert for item in shown)
        assert len(await ada.node.audit_list(event="contact.key-changed")) == 1
        write_files(tmp_path / "data", {"a": b"1"})
        with pytest.raises(InputError) as ambiguous:
            await ada.node.share_create(paths=[str(tmp_path / "data")], to=["Bo"], title="Trial")
        assert ambiguous.value.code == "contact-ambiguous"
        blocked = next(item for item in shown if item.state == "blocked")
        with pytest.raises(InputError) as no:
            await ada.node.share_create(paths=[str(tmp_path / "data")], to=[blocked.key], title="Trial")
        assert no.value.code == "contact-blocked"
        with pytest.raises(InputError) as click:
            await ada.node.contact_verify(contact=blocked.key, words=await words(other))
        assert click.value.code == "contact-blocked"
        await bo.boot()
        made_share = await share(ada.node, bo.node, tmp_path / "data", title="Trial")
        assert made_share.recipients[0].key == bo.node.core.me

    simulate(story, tmp_path)


def test_both_dial_at_once(tmp_path: Path) -> None:
    """Each has something for the other; whatever connections there are, everything arrives once."""

    async def story(world: World) -> None:
        ada, bo = await world.pair()
        await ada.stop()
        await bo.stop()
        await asyncio.gather(ada.boot(), bo.boot())
        one = write_files(tmp_path / "one", many_files(10, 30_000, seed=1))
        other = write_files(tmp_path / "other", many_files(10, 30_000, seed=2))
        made = await asyncio.gather(
            ada.node.share_create(paths=[str(tmp_path / "one")], to=["Bo"], title="one"),
            bo.node.share_create(paths=[str(tmp_path / "other")], to=["Ada"], title="other"),
        )
        await asyncio.gather(offered(bo.node, made[0]), offered(ada.node, made[1]))
        started = await asyncio.gather(bo.node.receive(share="one"), ada.node.receive(share="other"))
        done = await asyncio.gather(ended(bo.node, started[0].transfer), ended(ada.node, started[1].transfer))
        assert [item.state for item in done] == ["completed", "completed"]
        assert check_released(Path(done[0].destination), one) == check_released(Path(done[1].destination), other) == 10
        await settle(ada, bo)
        await check_exchange(ada, bo)

    simulate(story, tmp_path, delay_s=0.1)


@pytest.mark.parametrize("who", ["Ada", "Bo"])
def test_a_share_is_served_over_a_connection_that_either_opened(tmp_path: Path, who: str) -> None:
    """Only the named one can be called: the other sits behind something that lets nothing in that it did not ask for."""

    async def story(world: World) -> None:
        ada, bo = world.machine("Ada"), world.machine("Bo")
        await ada.boot()
        await bo.boot()
        reachable = world.machines[who]
        hidden = bo if reachable is ada else ada
        listening = (hidden.host.address, hidden.node.port)
        dropped: list[bytes] = []

        def tap(data: bytes, source: tuple[str, int], destination: tuple[str, int]) -> list[bytes]:
            if destination == listening:
                dropped.append(data)
                return []
            return [data]

        world.network.tap = tap
        await befriend(reachable.node, hidden.node)
        files = write_files(tmp_path / "data", many_files(10, 30_000))
        await share(ada.node, bo.node, tmp_path / "data", title="Trial")
        started = await bo.node.receive(share="Trial")
        done = await ended(bo.node, started.transfer)
        assert done.state == "completed"
        assert check_released(Path(done.destination), files) == 10
        channel = hidden.node.peers.connected(reachable.node.core.me)
        assert channel is not None
        assert channel.dialled
        await settle(ada, bo)
        await check_exchange(ada, bo)

    simulate(story, tmp_path)


@pytest.mark.parametrize("who", ["Ada", "Bo"])
def test_an_address_change_in_the_middle_of_a_transfer(tmp_path: Path, who: str) -> None:
    async def story(world: World) -> None:
        ada, bo, files, started = await underway(world, tmp_path / "data", files=60)
        world.network.move(world.machines[who].host, "10.9.9.9")
        began = now()
        done = await ended(bo.node, started.transfer, timeout_s=200)
        assert done.state == "completed"
        assert now() - began < RETRY_LAST_S + 40
        assert check_released(Path(done.destination), files) == 60
        await settle(ada, bo)
        await check_exchange(ada, bo)

    simulate(story, tmp_path, delay_s=0.1)


def test_a_new_address_is_told_at_the_next_start(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        ada, bo = await world.pair()
        await ada.stop()
        world.network.move(ada.host, "10.9.9.9")
        await ada.boot()
        write_files(tmp_path / "data", {"a": b"1"})
        await share(ada.node, bo.node, tmp_path / "data", title="Trial")
        shown = await contact(bo, "Ada")
        assert shown.addresses == (f"10.9.9.9:{ada.node.port}",)
        changed = await bo.node.audit_list(event="contact.address-changed")
        assert changed[0].fields["new"] == f"10.9.9.9:{ada.node.port}"
        bo.node.peers.drop(ada.node.core.me, "test")
        channel = await bo.node.peers.channel(ada.node.core.me)
        assert channel.dialled

    simulate(story, tmp_path)


@pytest.mark.parametrize("who", ["Ada", "Bo"])
@pytest.mark.parametrize("seconds", [5, 40, 300])
def test_sleep_in_the_middle_of_a_transfer(tmp_path: Path, who: str, seconds: int) -> None:
    async def story(world: World) -> None:
        ada, bo, files, started = await underway(world, tmp_path / "data", files=60)
        host = world.machines[who].host
        host.asleep = True
        began = now()
        if seconds > 15:
            await until(bo.node, started.transfer, "waiting", timeout_s=30)
        await wait_for(lambda: now() >= began + seconds, timeout_s=400)
        host.asleep = False
        done = await ended(bo.node, started.transfer, timeout_s=200)
        assert done.state == "completed"
        assert done.done_bytes > started.done_bytes
        assert check_released(Path(done.destination), files) == 60
        await settle(ada, bo)
        await check_exchange(ada, bo)

    simulate(story, tmp_path, delay_s=0.1)


def test_a_locked_node_shows_whose_it_is_and_nothing_else(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        ada, bo = await world.pair()
        write_files(tmp_path / "data", {"a": b"1"})
        await share(ada.node, bo.node, tmp_path / "data", title="Trial")
        me = await bo.node.key_show()
        await bo.stop()
        await bo.boot(unlock=False)
        node = bo.node
        shown = await node.key_show()
        assert (shown.key, shown.locked) == (me.key, True)
        assert (await node.status()).locked
        for work in (
            node.inbox_list(),
            node.receive(share="Trial"),
            node.share_list(),
            node.transfer_list(),
            node.contact_invite(),
            node.audit_list(),
            node.audit_export(path=str(tmp_path / "x")),
            node.share_create(paths=[str(tmp_path / "data")], to=["Ada"], title="x"),
            node.contact_verify(contact="Ada", words=["a"] * 6),
            node.contact_block(contact="Ada"),
            node.key_backup(path=str(tmp_path / "y"), backup_passphrase="x" * 10),
            node.node_backup(path=str(tmp_path / "z")),
            node.clock_reset(reason="x"),
        ):
            with pytest.raises(NodeLocked):
                await work
        with pytest.raises(UnavailableError):
            await ada.node.peers.endpoint.dial(f"{bo.host.address}:47100", bytes.fromhex(me.key), timeout_s=5)
        with pytest.raises(InputError):
            await node.unlock(passphrase="wrong passphrase")
        await node.unlock()
        assert not (await node.status()).locked
        failed = await node.audit_list(event="identity.unlock-failed")
        assert len(failed) == 1
        started = await node.receive(share="Trial")
        assert (await ended(node, started.transfer, timeout_s=90)).state == "completed"
        await settle(ada, bo)
        await check_exchange(ada, bo)

    simulate(story, tmp_path)


def test_two_nodes_cannot_run_on_one_home(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        ada = world.machine("Ada")
        await ada.boot()
        with pytest.raises(UnavailableError) as taken:
            make_node(tmp_path, "Ada", network=ada.host)
        assert taken.value.code == "node-already-running"
        assert (await ada.node.key_show()).name == "Ada"

    simulate(story, tmp_path)
