"""Trails witnessed between whole nodes: growth is cosigned, rollback and fork stop the work, a restored backup says so."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from labxchange.audit.checkpoint import parse_note, verify_note
from labxchange.audit.verifier import Evidence, Verdict, verify
from labxchange.errors import InputError
from labxchange.identity.fingerprint import fingerprint
from labxchange.node.home import Home
from labxchange.node.restoring import restore_backup
from labxchange.store import people
from tests.support.nodes import ended, offered, share, until, wait_for
from tests.support.world import (
    EPOCH_MS,
    Machine,
    World,
    check_exchange,
    check_released,
    check_trails,
    now,
    settle,
    simulate,
    write_files,
)


async def exchange(world: World, title: str, *, count: int = 1) -> None:
    """Ada shares something small with Bo, and he receives it."""
    ada, bo = world.machines["Ada"], world.machines["Bo"]
    folder = world.folder / f"data {title}"
    files = write_files(folder, {f"{title} {number}": b"data" for number in range(count)})
    made = await share(ada.node, bo.node, folder, title=title)
    started = await bo.node.receive(share=made.share)
    done = await ended(bo.node, started.transfer, timeout_s=200)
    assert done.state == "completed", done
    check_released(Path(done.destination), files)
    await settle(ada, bo)


def turn_back(machine: Machine, kept: Path) -> None:
    """The owner puts an older copy of the home in the place of the present one (the node is off)."""
    shutil.rmtree(machine.home)
    shutil.copytree(kept, machine.home)


async def stopped(machine: Machine, name: str, state: str) -> None:
    """The contact's trail shows ``state`` here."""

    async def there() -> bool:
        return any(item.name == name and item.trail == state for item in await machine.node.contact_list())

    await wait_for(there, what=f"{machine.name} to find the trail of {name} {state}", timeout_s=100)


@pytest.mark.parametrize("fork", [False, True])
def test_a_trail_that_was_turned_back_stops_the_work_until_a_person_decides(tmp_path: Path, fork: bool) -> None:
    """Rolled back: smaller than what was seen. Forked: grown again, otherwise than what was seen."""
    state = "diverged" if fork else "rolled-back"

    async def story(world: World) -> None:
        ada, bo = await world.pair()
        await exchange(world, "first")
        await ada.stop()
        kept = tmp_path / "kept"
        shutil.copytree(ada.home, kept)
        await ada.boot()
        await exchange(world, "second")
        await ada.stop()
        turn_back(ada, kept)
        if fork:
            world.cut_wire(ada, bo)
            await ada.boot()
            for _ in range(40):
                await ada.node.contact_invite()
            world.mend_wire(ada, bo)
        else:
            await ada.boot()
        write_files(tmp_path / "third", {"third": b"3"})
        made = await ada.node.share_create(paths=[str(tmp_path / "third")], to=["Bo"], title="third")
        await stopped(bo, "Ada", state)
        began = now()
        await wait_for(lambda: now() > began + 150, timeout_s=200)
        assert all(item.title != "third" for item in await bo.node.inbox_list())
        alerts = (await bo.node.status()).alerts
        assert any("trail" in alert for alert in alerts)
        event = "trail.diverged" if fork else "trail.rolled-back"
        told = await bo.node.audit_list(event=event)
        assert len(told) >= 1
        assert told[-1].result == "denied"
        with bo.node.core.database.begin() as tx:
            assert people.witnessed_of(tx, ada.node.core.me), "what was seen is kept"
        (found,) = (await bo.node.contact_show(contact="Ada")).evidence
        assert found.kind == state
        for note in (found.first, found.second):
            assert verify_note(parse_note(note), ada.node.core.require().trail_public).origin
        assert found.first != found.second
        await ada.node.audit_export(path=str(tmp_path / "ada.labxtrail"))
        trust = [fingerprint(machine.node.core.public) for machine in (ada, bo)]
        verdict = verify(tmp_path / "ada.labxtrail", trust=trust, evidence=Evidence(notes=(found.first,))).verdict
        assert verdict is Verdict.DIVERGED

        await bo.node.contact_accept_trail(contact="Ada", reason="she told me what happened")
        await offered(bo.node, made)
        started = await bo.node.receive(share="third")
        done = await ended(bo.node, started.transfer, timeout_s=200)
        assert done.state == "completed"
        assert any(
            entry.fields.get("reason_text") == "she told me what happened" for entry in await bo.node.audit_list(event=event)
        )
        again = (await bo.node.contact_show(contact="Ada")).evidence
        assert [item.kind for item in again] == [state, "accepted"]
        assert all(item.utc > EPOCH_MS for item in again)
        assert (again[1].first, again[1].second) == (found.first, "")
        with pytest.raises(InputError) as nothing:
            await bo.node.contact_accept_trail(contact="Ada", reason="again")
        assert nothing.value.code == "trail-not-stopped"

    simulate(story, tmp_path)


def test_what_a_contact_has_for_a_stopped_trail_is_not_taken(tmp_path: Path) -> None:
    """Bo found Ada's trail turned back: he neither takes from her nor serves her until he has decided."""

    async def story(world: World) -> None:
        ada, bo = await world.pair()
        await exchange(world, "first")
        await ada.stop()
        kept = tmp_path / "kept"
        shutil.copytree(ada.home, kept)
        await ada.boot()
        await exchange(world, "second")
        await ada.stop()
        turn_back(ada, kept)
        write_files(tmp_path / "for ada", {"x": b"1"})
        await bo.node.share_create(paths=[str(tmp_path / "for ada")], to=["Ada"], title="for Ada")
        await ada.boot()
        await stopped(bo, "Ada", "rolled-back")
        items = await ada.node.inbox_list()
        if items:
            started = await ada.node.receive(share="for Ada")
            waiting = await until(ada.node, started.transfer, "waiting")
            began = now()
            await wait_for(lambda: now() > began + 100, timeout_s=150)
            waiting = await ada.node.transfer_show(transfer=started.transfer)
            assert (waiting.state, waiting.reason) == ("waiting", "trail-stopped")

    simulate(story, tmp_path)


def test_a_restored_backup_opens_a_new_epoch_and_says_what_is_missing(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        ada, bo = await world.pair()
        await exchange(world, "first")
        backup = tmp_path / "ada.backup"
        await ada.node.node_backup(path=str(backup))
        assert ada.node.core.trail is not None
        held, epoch = ada.node.core.trail.size, ada.node.core.trail.epoch
        await exchange(world, "second")
        lost = ada.node.core.trail.size - held
        assert lost > 0
        await ada.stop()
        shutil.rmtree(ada.home)
        restore_backup(backup, Home(ada.home))
        await ada.boot(unlock=False)
        assert (await ada.node.status()).locked
        await ada.node.unlock(credential_file=str(ada.home.with_suffix(".credential")))
        assert ada.node.core.trail is not None
        assert ada.node.core.trail.epoch > epoch
        assert [item.title for item in await ada.node.share_list()] == ["first"]
        restored = await ada.node.audit_list(event="trail.restored")
        assert len(restored) == 1

        await exchange(world, "third")
        trail = next(item for item in await bo.node.contact_list() if item.name == "Ada").trail
        assert trail.startswith("restored, ")
        assert trail.endswith(" entries missing")
        assert 0 < int(trail.split()[1]) <= lost + 2
        told = await bo.node.audit_list(event="trail.rolled-back")
        assert [(entry.result_code, entry.fields["new"]) for entry in told] == [("restored", trail)]
        (found,) = await check_trails(ada, verdict=Verdict.INCOMPLETE, others=[bo])
        assert any("restored" in f"{reason.code} {reason.text}" for reason in found.reasons), found.reasons
        await check_trails(bo, others=[ada])

    simulate(story, tmp_path)


def test_a_key_restored_without_its_trail_begins_anew(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        ada, bo = await world.pair()
        await exchange(world, "first")
        me = await ada.node.key_show()
        await ada.node.key_backup(path=str(tmp_path / "ada.key"), backup_passphrase="paper in the safe")
        await ada.stop()
        shutil.rmtree(ada.home)
        ada.home.with_suffix(".credential").unlink()
        await ada.boot(unlock=False)
        with pytest.raises(InputError) as wrong:
            await ada.node.key_restore(
                path=str(tmp_path / "ada.key"), backup_passphrase="another one", passphrase="correct horse battery"
            )
        assert wrong.value.code == "passphrase-wrong"
        back = await ada.node.key_restore(
            path=str(tmp_path / "ada.key"), backup_passphrase="paper in the safe", passphrase="correct horse battery"
        )
        assert (back.key, back.name, back.words) == (me.key, me.name, me.words)
        assert await ada.node.contact_list() == []
        assert [entry.event for entry in await ada.node.audit_list(event="trail.restored")] == ["trail.restored"]
        made = await bo.node.contact_invite(made_for=me.fingerprint)
        await ada.node.contact_accept(text=made.text)
        await ada.node.contact_verify(contact="Bo", words=list((await bo.node.key_show()).words))

        async def told() -> bool:
            found = next(item for item in await bo.node.contact_list() if item.name == "Ada")
            return "missing" in found.trail

        await wait_for(told, what="Bo to be told", timeout_s=100)
        await exchange(world, "second")

    simulate(story, tmp_path)


def test_each_session_is_cosigned_by_both(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        ada, bo = await world.pair()
        await exchange(world, "first")
        for _ in range(3):
            before = [_cosigned(machine) for machine in (ada, bo)]
            await bo.stop()
            await bo.boot()
            write_files(tmp_path / "more", {"more": b"%f" % now()})
            await ada.node.share_create(paths=[str(tmp_path / "more")], to=["Bo"], title=f"at {now()}")

            def both(before: list[int] = before) -> bool:
                return all(_cosigned(machine) > size for machine, size in zip((ada, bo), before, strict=True))

            await wait_for(both, what="both to be cosigned", timeout_s=100)
        await settle(ada, bo)
        await check_exchange(ada, bo)

    simulate(story, tmp_path)


@pytest.mark.parametrize("first", ["Ada", "Bo"])
def test_who_verifies_first_is_cosigned_once_the_other_has_verified_too(tmp_path: Path, first: str) -> None:
    async def story(world: World) -> None:
        one, other = sorted(await world.pair(verify=False), key=lambda machine: machine.name != first)
        await one.node.contact_verify(contact=other.name, words=list((await other.node.key_show()).words))

        async def refused() -> bool:
            return any(entry.result_code == "contact-unverified" for entry in await one.node.audit_list())

        await wait_for(refused, what="the refusal", timeout_s=100)
        assert not _cosigned(one)
        await other.node.contact_verify(contact=one.name, words=list((await one.node.key_show()).words))
        await wait_for(lambda: _cosigned(one) and _cosigned(other), what="both to be cosigned", timeout_s=10)

    simulate(story, tmp_path)


def _cosigned(machine: Machine) -> int:
    trail = machine.node.core.trail
    assert trail is not None
    with machine.node.core.database.begin() as tx:
        return max((size for size, *_ in trail.cosigned(tx)), default=0)
