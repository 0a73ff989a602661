"""The stories that are recorded for the power-loss tests, and the recorder.

``record_recipient`` and ``record_sender`` run one whole node under strace against another one in this process: identity, contact,
shares of few and of many files, resume after a stop, receipts, exports, backups, restore. The result is a ``Story``: the calls,
the folder they happened in, and what the files that people see must hold.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from labxchange.node.node import Node
from tests.crash.disk import STRACE, Event, events
from tests.support.nodes import make_node, start, wait_for

ROOT = Path(__file__).parents[2]
ALREADY = "c/already.txt"
"""A file of the share that the recipient has already, written a moment ago and not synced by whoever wrote it."""
_PATIENCE_S = 60.0


@dataclass
class Story:
    """A recording and what is known of it."""

    name: str
    root: Path
    calls: list[Event]
    received: dict[str, dict[str, bytes]]
    """Destination (below the root) -> what belongs there."""
    answers: list[dict[str, Any]] = field(default_factory=list)

    def digests(self) -> dict[str, str]:
        """Files that a person asked for, by path: what they hold when they are whole."""
        return {item["given"]["path"]: item["digest"] for item in self.answers if "digest" in item}


def strace() -> str:
    """The path of strace; its absence is a failure, never a skip."""
    found = shutil.which("strace")
    assert found is not None, "strace is not installed; the crash tests need it: apt install strace"
    return found


class Recorded:
    """The recorded process."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.answers: list[dict[str, Any]] = []
        self.heard: list[dict[str, Any]] = []

    @classmethod
    async def begin(
        cls, log: Path, folder: Path, name: str, *, normal: bool = False, options: Sequence[str] = STRACE[2:]
    ) -> Recorded:
        """``options`` of strace: what it records, or makes fail."""
        command = [strace(), "-f", *options, "-o", str(log), sys.executable, "-m", "tests.crash.recorded", str(folder), name]
        environment = os.environ | {"PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}", "PYTHONDONTWRITEBYTECODE": "1"}
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(
            *command, *(["normal"] if normal else []), stdin=pipe, stdout=pipe, cwd=ROOT, env=environment, limit=1 << 22
        )
        return cls(process)

    async def call(self, verb: str, *, may_fail: bool = False, **given: Any) -> Any:
        """The answer; with ``may_fail`` the answer or the error, as it was given."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"verb": verb} | given).encode() + b"\n")
        line = await asyncio.wait_for(self._process.stdout.readline(), _PATIENCE_S)
        assert line, "the recorded process ended"
        answer: dict[str, Any] = json.loads(line)
        self.heard.append(answer)
        if may_fail:
            return answer
        assert "answer" in answer, answer
        self.answers.append(answer)
        return answer["answer"]

    async def end(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        await asyncio.wait_for(self._process.wait(), _PATIENCE_S)


def _fill(folder: Path, files: dict[str, bytes]) -> dict[str, bytes]:
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        os.utime(path, (1_700_000_000, 1_700_000_000))
    return files


def few(folder: Path, chance: random.Random) -> dict[str, bytes]:
    """So few files that each is flushed by itself; one of several chunks, one nested, none empty: that would be released, and the
    destination synced, before a chunk is vouched for."""
    large = chance.randbytes((1 << 20) + 70_000)
    already = {ALREADY: chance.randbytes(2500)}
    return _fill(folder, already | {"large.bin": large, "a/b/nested.txt": chance.randbytes(3000)})


def many(folder: Path, chance: random.Random) -> dict[str, bytes]:
    """So many, in so many folders, that they are flushed together; and an empty one, which goes before them."""
    files = {f"f{n}/g/{n:02d}.dat": chance.randbytes(chance.randint(1, 9000)) for n in range(14)}
    return _fill(folder, files | {"empty.txt": b""})


async def _meet(inviter: Callable[..., Any], invitee: Callable[..., Any]) -> None:
    """By an invitation and six words; each side is a function that calls a verb."""
    invitation = await inviter("contact_invite")
    await invitee("contact_accept", text=_of(invitation, "text"))
    one, other = await inviter("key_show"), await invitee("key_show")

    async def known() -> Any:
        return await inviter("contact_list")

    await wait_for(known, what="the contact", timeout_s=_PATIENCE_S)
    await inviter("contact_verify", contact=_of(other, "key"), words=list(_of(other, "words")))
    await invitee("contact_verify", contact=_of(one, "key"), words=list(_of(one, "words")))


def _of(value: Any, name: str) -> Any:
    return value[name] if isinstance(value, dict) else getattr(value, name)


def _verbs(node: Node) -> Callable[..., Any]:
    return lambda verb, **given: getattr(node, verb)(**given)


async def _there(ask: Callable[..., Any], title: str) -> None:
    async def offered() -> bool:
        return any(_of(item, "title") == title for item in await ask("inbox_list"))

    await wait_for(offered, what=f"the offer of {title}", timeout_s=_PATIENCE_S)


async def _over(ask: Callable[..., Any], transfer: str, state: str = "completed") -> None:
    async def done() -> bool:
        info = await ask("transfer_show", transfer=transfer)
        assert _of(info, "state") not in ("failed", "cut"), _of(info, "reason")
        return bool(_of(info, "state") == state)

    await wait_for(done, what=f"the transfer being {state}", timeout_s=_PATIENCE_S)


async def _new(recorded: Recorded, root: Path, name: str) -> None:
    await recorded.call("start")
    await recorded.call("key_create", name=name, organisation=f"{name} Ltd", credential_file=str(root / f"{name}.credential"))


async def _files_of_a_person(recorded: Recorded, root: Path) -> None:
    """What a person has written: exports, a backup of the keys, a backup of the node that is restored elsewhere."""
    await recorded.call("audit_export", path=str(root / "trail.labxtrail"))
    await recorded.call("node_backup", path=str(root / "node.backup"))
    await recorded.call("restore", path=str(root / "node.backup"), home=str(root / "restored"))


async def record_recipient(folder: Path, *, seed: str, normal: bool = False) -> Story:
    """Bo, who receives."""
    chance = random.Random(f"recipient {seed}")
    root = folder / "disk"
    root.mkdir()
    ada = make_node(folder, "Ada")
    await start(ada)
    received = {}
    bo = await Recorded.begin(folder / "calls", root, "Bo", normal=normal)
    try:
        await _new(bo, root, "Bo")
        await _meet(_verbs(ada), bo.call)
        for title, make in (("few", few), ("many", many)):
            destination = root / "received" / title
            received[f"received/{title}"] = make(folder / title, chance)
            await ada.share_create(paths=[str(folder / title)], to=["Bo"], title=title)
            await ada.share_hashed(share=title)
            await _there(bo.call, title)
            if title == "few":
                path, data = str(destination / ALREADY), received["received/few"][ALREADY].hex()
                await bo.call("put", path=path, data=data)
            begun = await bo.call("receive", share=title, destination=str(destination))
            await _over(bo.call, begun["transfer"])
        await _files_of_a_person(bo, root)
        await bo.call("stop")
    finally:
        await bo.end()
        await ada.close()
    return Story("Bo", root, events(folder / "calls"), received, bo.answers)


async def record_sender(folder: Path, *, seed: str, normal: bool = False) -> Story:
    """Ada, who shares, is stopped in between, and revokes."""
    chance = random.Random(f"sender {seed}")
    root = folder / "disk"
    root.mkdir()
    few(folder / "few", chance)
    many(folder / "many", chance)
    bo = make_node(folder, "Bo")
    await start(bo)
    ada = await Recorded.begin(folder / "calls", root, "Ada", normal=normal)
    try:
        await _new(ada, root, "Ada")
        await _meet(ada.call, _verbs(bo))
        await ada.call("share_create", paths=[str(folder / "few")], to=["Bo"], title="few", downloads=1)
        await ada.call("share_hashed", share="few")
        await _there(_verbs(bo), "few")
        begun = await bo.receive(share="few", destination=str(folder / "received"))
        await _over(_verbs(bo), begun.transfer)
        await _over(ada.call, begun.transfer)
        await ada.call("stop")
        await ada.call("start")
        await ada.call("share_create", paths=[str(folder / "many")], to=["Bo"], title="many")
        await ada.call("share_hashed", share="many")
        await ada.call("share_revoke", share="many", reason="wrong data")
        await _files_of_a_person(ada, root)
        await ada.call("stop")
    finally:
        await ada.end()
        await bo.close()
    return Story("Ada", root, events(folder / "calls"), {}, ada.answers)
