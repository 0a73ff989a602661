"""What the machine that a node runs on can see and do: its outputs, its files, its socket.

A real node process and the real command line meet a contact with a hostile name who offers hostile titles. No secret is in
anything that is printed, logged, recorded or shown of a process; nothing printed steers a terminal or runs in a spreadsheet; the
local API is a socket of its user alone, and no malformed call ends it.
"""

from __future__ import annotations

import asyncio
import base64
import csv
import io
import json
import os
import re
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest

from labxchange.audit.export import safe_cell
from labxchange.errors import LabxchangeError
from labxchange.identity.invitation import parse_invitation
from labxchange.identity.keys import Identity
from labxchange.identity.sealing import load, unseal
from labxchange.node import keys
from labxchange.node.client import Client
from labxchange.node.home import Home
from labxchange.node.starting import answers
from labxchange.node.verbs import NAMES, Verbs
from tests.support.nodes import make_node, wait_for

T = TypeVar("T")
PASSPHRASE = "Tr0ub4dor-and-3-staples"
BACKUP_PASSPHRASE = "another-Long-secret-9"
EVIL_NAME = "=cmd|' /C calc'!A0 \x1b[31m\u202eBo\x07"
EVIL_TITLE = "\x1b]0;owned\x07@SUM(1+1)\u2028\x9b31m[bold red]x[/]"
EVIL_NOTE = "+1\n\r\t-2\x1b[2J\u2066"
STEERING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff]")


class Scene:
    """Ada's node is a process; Bo's is in this one, with a name that his own software would not have taken."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.home = Home(root / "ada")
        self.outputs: list[tuple[str, bytes]] = []
        self.commands: list[bytes] = []
        self.secrets: dict[str, bytes] = {}
        self.invitations: list[str] = []
        self.errors: list[LabxchangeError] = []
        self.notices: list[str] = []
        self.pid = 0

    def environment(self) -> dict[str, str]:
        return os.environ | {"LABXCHANGE_HOME": str(self.home.root), "NO_COLOR": "1"}

    def command(self, *words: str, ok: bool = True) -> str:
        """Run the command line; keep what it said."""
        run = subprocess.run(
            [_program(), *words],
            env=self.environment(),
            capture_output=True,
            timeout=60,
            stdin=subprocess.DEVNULL,
        )
        assert not ok or run.returncode == 0, (words, run.stderr.decode(errors="replace"))
        name = " ".join(words[:3])
        self.outputs += [(f"{name}: stdout", run.stdout), (f"{name}: stderr", run.stderr)]
        return run.stdout.decode()

    async def expect(self, work: Awaitable[Any]) -> LabxchangeError:
        try:
            await work
        except LabxchangeError as error:
            self.errors.append(error)
            return error
        raise AssertionError("an error was expected")

    async def build(self, monkeypatch: pytest.MonkeyPatch) -> None:
        ada = Client(self.home)
        await ada.call(Verbs.key_create, name="Ada", organisation="Ada Ltd", passphrase=PASSPHRASE)
        self.pid = (await ada.call(Verbs.status)).pid
        watching = asyncio.ensure_future(self._watch())
        self.commands.append(Path(f"/proc/{self.pid}/cmdline").read_bytes() + Path(f"/proc/{self.pid}/environ").read_bytes())
        await ada.call(
            Verbs.key_backup, path=str(self.root / "key.backup"), backup_passphrase=BACKUP_PASSPHRASE, passphrase=PASSPHRASE
        )
        await self.expect(
            ada.call(Verbs.key_backup, path=str(self.root / "k2"), backup_passphrase=BACKUP_PASSPHRASE, passphrase="wrong one")
        )
        monkeypatch.setattr(keys, "_checked", lambda profile: profile)
        bo = make_node(self.root, "bo")
        await bo.open()
        await bo.key_create(name=EVIL_NAME, organisation=EVIL_NAME, credential_file=str(self.root / "bo.credential"))
        made = await ada.call(Verbs.contact_invite)
        self.invitations.append(made.text)
        await bo.contact_accept(text=made.text)
        await self.expect(ada.call(Verbs.contact_accept, text=made.text))
        await self.expect(ada.call(Verbs.contact_accept, text=made.text[:-6]))
        mine = await bo.contact_invite()
        self.invitations.append(mine.text)

        async def known() -> Any:
            return await ada.call(Verbs.contact_list)

        row = (await wait_for(known))[0]
        await ada.call(Verbs.contact_verify, contact=row.key, words=list((await bo.key_show()).words))
        await bo.contact_verify(contact="Ada", words=list((await ada.call(Verbs.key_show)).words))
        data = self.root / "data"
        data.mkdir()
        (data / "=HYPERLINK(1).csv").write_bytes(b"1,2\n")
        monkeypatch.setattr("labxchange.node.shares._title", lambda text: text)
        made_share = await bo.share_create(
            paths=[str(data)],
            to=["Ada"],
            title=EVIL_TITLE,
            note=EVIL_NOTE,
            purpose=EVIL_NOTE,
            study="=1",
            site="@2",
            category="-3",
        )
        await bo.share_hashed(share=made_share.share)

        async def offered() -> bool:
            return bool(await ada.call(Verbs.inbox_list))

        await wait_for(offered)
        started = await ada.call(Verbs.receive, share=made_share.share)

        async def done() -> bool:
            return (await ada.call(Verbs.transfer_show, transfer=started.transfer)).state == "completed"

        await wait_for(done)
        other = await ada.call(Verbs.share_create, paths=[str(data)], to=[row.key], title="=Mine")
        await ada.call(Verbs.share_hashed, share=other.share)

        async def asks() -> bool:
            return any(item.share == other.share for item in await bo.inbox_list())

        await wait_for(asks)
        await bo.request_extension(share=other.share, until=other.created + 60 * 86_400_000, reason=EVIL_NOTE)
        await bo.share_revoke(share=made_share.share, reason=EVIL_NOTE)
        await asyncio.sleep(0.5)
        for words in (
            ["contact", "list"],
            ["inbox"],
            ["transfer", "list"],
            ["share", "status"],
            ["share", "status", other.share],
            ["receipt", "show", started.transfer],
            ["audit", "list"],
            ["key", "show"],
            ["node", "status"],
            ["doctor"],
        ):
            self.command(*words, ok=words != ["doctor"])
        for words in (["contact", "list"], ["inbox"], ["audit", "list"]):
            self.command(*words, "--json")
        for form in ("csv", "jsonl", "bundle"):
            self.command("audit", "export", str(self.root / f"trail.{form}"), "--form", form)
        self.command("contact", "verify", "nobody \x1b[31m", "--words", "a b c d e f", ok=False)
        self.command("receive", EVIL_TITLE, ok=False)
        # A second life, unlocked by a person again.
        self.command("node", "stop")
        await wait_for(lambda: not answers(self.home))
        await ada.close()
        await self.expect(ada.call(Verbs.inbox_list))
        await self.expect(ada.call(Verbs.unlock, passphrase=PASSPHRASE[:-1] + "x"))
        await self.expect(ada.call(Verbs.unlock, credential_file=str(self.root / "nothing")))
        await self.expect(ada.call(Verbs.unlock, credential_file=str(self.root / "bo.credential")))
        await ada.call(Verbs.unlock, passphrase=PASSPHRASE)
        self.pid = (await ada.call(Verbs.status)).pid
        await bo.close()
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
        await ada.close()
        self._know_secrets()

    async def _watch(self) -> None:
        client = Client(self.home)
        try:
            async for notice in client.notices():
                self.notices.append(repr(notice))
        finally:
            await client.close()

    def _know_secrets(self) -> None:
        sealed = load(self.home.identity.read_bytes())
        seed = unseal(sealed, passphrase=PASSPHRASE)
        identity = Identity(seed)
        self.secrets = {
            "seed": seed,
            "passphrase": PASSPHRASE.encode(),
            "backup passphrase": BACKUP_PASSPHRASE.encode(),
            "store key": identity.store_key,
            "scope key": identity.scope_key,
            "credential": (self.root / "bo.credential").read_bytes().strip(),
        }
        for number, text in enumerate(self.invitations):
            self.secrets[f"invitation secret {number}"] = parse_invitation(text).secret
            self.secrets[f"invitation text {number}"] = text.encode()

    def everything(self) -> Iterator[tuple[str, bytes]]:
        """All that this machine showed or kept."""
        yield from self.outputs
        for number, command in enumerate(self.commands):
            yield f"command line and environment {number}", command
        for error in self.errors:
            yield f"error {error.code}", f"{error!r} {error} {error.hint} {vars(error)}".encode()
        yield "notices", "".join(self.notices).encode()
        for path in sorted(self.root.rglob("*")):
            if path.is_file() and path.name != "bo.credential":
                yield str(path.relative_to(self.root)), path.read_bytes()


def _program() -> str:
    return str(Path(sys.executable).with_name("labxchange"))


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    runtime = tempfile.mkdtemp(prefix="lx")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_RUNTIME_DIR", runtime)
        patch.setenv("LABXCHANGE_LISTEN", "127.0.0.1")
        found = Scene(tmp_path_factory.mktemp("local"))
        try:
            asyncio.run(found.build(patch))
            yield found
        finally:
            stop = Client(found.home, start=False)
            if answers(found.home):
                asyncio.run(_stop(stop))
            shutil.rmtree(runtime)


async def _stop(client: Client) -> None:
    try:
        await client.stop_node()
        await wait_for(lambda: not answers(client.home))
    finally:
        await client.close()


def forms(secret: bytes) -> Iterator[bytes]:
    """A secret as it could be written."""
    yield secret
    yield secret.hex().encode()
    yield secret.hex().upper().encode()
    yield base64.b64encode(secret).rstrip(b"=")
    yield base64.urlsafe_b64encode(secret).rstrip(b"=")
    yield base64.b32encode(secret).rstrip(b"=").lower()
    yield repr(secret)[2:-1].encode()


def test_no_secret_is_in_any_output_or_file(scene: Scene) -> None:
    looked = 0
    for place, data in scene.everything():
        looked += 1
        for name, secret in scene.secrets.items():
            for form in forms(secret):
                assert form not in data, f"{name} stands in {place}"
    assert looked > 40
    assert (scene.home.log).exists()


def test_values_that_hold_secrets_do_not_print_them(scene: Scene) -> None:
    invitation = parse_invitation(scene.invitations[0])
    identity = Identity(scene.secrets["seed"])
    sealed = load(scene.home.identity.read_bytes())
    shown = " ".join(form(item) for item in (invitation, identity, sealed) for form in (repr, str, "{}".format))
    for name, secret in scene.secrets.items():
        for form in forms(secret):
            assert form.decode(errors="replace") not in shown, name


def test_nothing_printed_steers_a_terminal(scene: Scene) -> None:
    for place, data in scene.outputs:
        text = data.decode()
        found = STEERING.search(text)
        assert found is None, f"{place}: {found!r} in {text[max(0, found.start() - 40) : found.start() + 20]!r}" if found else ""
        if place.endswith("stdout") and text.startswith(("{", "[")):
            json.loads(text)


def test_no_cell_of_the_table_is_a_formula(scene: Scene) -> None:
    text = (scene.root / "trail.csv").read_text(encoding="utf-8-sig")
    assert STEERING.search(text.replace("\r\n", "\n")) is None
    rows = list(csv.reader(io.StringIO(text)))
    assert len(rows) > 10
    for row in rows:
        for cell in row:
            assert not cell.startswith(("=", "+", "-", "@", "\t", "\r")), cell
    for cell in ("=1", "+1", "-1", "@x", "\t=1", "\r=1", "|x", "%x"):
        assert not safe_cell(cell).startswith(("=", "+", "-", "@", "\t", "\r"))
    lines = (scene.root / "trail.jsonl").read_text().splitlines()
    assert all(STEERING.search(line) is None for line in lines)


def test_the_node_listens_on_no_tcp_port(scene: Scene) -> None:
    sockets = set()
    for descriptor in Path(f"/proc/{scene.pid}/fd").iterdir():
        target = os.readlink(descriptor)
        if target.startswith("socket:["):
            sockets.add(target[8:-1])
    assert sockets
    for table in ("tcp", "tcp6"):
        lines = Path(f"/proc/{scene.pid}/net/{table}").read_text().splitlines()[1:]
        assert not sockets & {line.split()[9] for line in lines}, table
    udp = {line.split()[9] for line in Path(f"/proc/{scene.pid}/net/udp").read_text().splitlines()[1:]}
    assert sockets & udp


def test_the_socket_and_the_home_are_its_users_alone(scene: Scene) -> None:
    path = scene.home.socket
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(scene.home.root.stat().st_mode) == 0o700
    for file in scene.home.root.iterdir():
        if file.is_file():
            assert stat.S_IMODE(file.stat().st_mode) & 0o077 == 0, f"{file.name} is open to others"


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
def test_another_user_is_refused(scene: Scene) -> None:
    script = """
import os, socket, sys
os.setgroups([]); os.setgid(65534); os.setuid(65534)
for path in sys.argv[1:]:
    try:
        if path.endswith(".sock"):
            socket.socket(socket.AF_UNIX).connect(path)
        else:
            open(path, "rb").read()
        print("open", path)
    except PermissionError:
        pass
"""
    private = [str(path) for path in scene.home.root.iterdir() if path.is_file()]
    # The folder above is opened for the test, so that the node's own modes are what refuses.
    for folder in (*scene.root.parents, scene.root, scene.home.socket.parent.parent):
        if folder != Path("/") and not folder.stat().st_mode & 0o001 and folder.is_relative_to(tempfile.gettempdir()):
            folder.chmod(folder.stat().st_mode | 0o011)
    run = subprocess.run(
        [sys.executable, "-I", "-c", script, str(scene.home.socket), *private], capture_output=True, timeout=30, text=True
    )
    assert (run.returncode, run.stdout) == (0, ""), run.stderr


def raw(home: Home, data: bytes) -> bytes:
    """Send bytes to the socket; what comes back until it closes or is silent for a moment."""
    with socket.socket(socket.AF_UNIX) as caller:
        caller.settimeout(3)
        caller.connect(str(home.socket))
        out = b""
        try:
            caller.sendall(data)
            caller.shutdown(socket.SHUT_WR)
            while part := caller.recv(65_536):
                out += part
        except (TimeoutError, ConnectionError):
            pass
        return out


def post(path: str, body: bytes, *, method: str = "POST", more: str = "") -> bytes:
    return (
        f"{method} {path} HTTP/1.1\r\nHost: node\r\nContent-Length: {len(body)}\r\n{more}Connection: close\r\n\r\n".encode()
        + body
    )


MALFORMED: list[Callable[[], tuple[bytes, bytes]]] = [
    # what is sent, and the status it must get (empty: closed or any refusal)
    lambda: (post("/verbs/status", b"{"), b"400"),
    lambda: (post("/verbs/status", b"[]"), b"400"),
    lambda: (post("/verbs/status", b"null"), b"400"),
    lambda: (post("/verbs/status", b'{"a":1}'), b"400"),
    lambda: (post("/verbs/status", b"\xff\xfe"), b"400"),
    lambda: (post("/verbs/contact_block", b'{"contact":1}'), b"400"),
    lambda: (post("/verbs/contact_block", b"{}"), b"400"),
    lambda: (post("/verbs/contact_verify", b'{"contact":"x","words":"abc"}'), b"400"),
    lambda: (post("/verbs/share_create", b'{"paths":[1],"to":[]}'), b"400"),
    lambda: (post("/verbs/share_create", b'{"paths":["\\u0000"],"to":["x"]}'), b"400"),
    lambda: (post("/verbs/share_create", b'{"paths":["/etc"],"to":["x"],"downloads":1e400}'), b"400"),
    lambda: (post("/verbs/audit_list", b'{"limit":-99999999999999999999999}'), b"400"),
    lambda: (post("/verbs/close", b"{}"), b"400"),
    lambda: (post("/verbs/core", b"{}"), b"400"),
    lambda: (post("/verbs/__init__", b"{}"), b"400"),
    lambda: (post("/verbs/serving", b"{}"), b"400"),
    lambda: (post("/verbs/../stop", b"{}", method="GET"), b"4"),
    lambda: (post("/verbs/status", b"{}", method="GET"), b"405"),
    lambda: (post("/stop", b"", method="GET"), b"405"),
    lambda: (post("/notices", b"{}"), b"405"),
    lambda: (post("/", b""), b"404"),
    lambda: (post("/verbs/status", b"[" * 900_000), b"400"),
    lambda: (post("/verbs/status", b'{"a":"' + b"x" * (1 << 20) + b'"}'), b"400"),
    lambda: (b"POST /verbs/status HTTP/1.1\r\nContent-Length: 99999999999\r\n\r\n{}", b""),
    lambda: (b"POST /verbs/status HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", b""),
    lambda: (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200), b""),
    lambda: (b"GET " + b"a" * 200_000 + b" HTTP/1.1\r\n\r\n", b""),
    lambda: (b"", b""),
    lambda: (bytes(range(256)) * 100, b""),
]


@pytest.mark.parametrize("number", range(len(MALFORMED)))
def test_a_malformed_call_is_refused_and_ends_nothing(scene: Scene, number: int) -> None:
    data, status = MALFORMED[number]()
    answer = raw(scene.home, data)
    first = answer.split(b"\r\n", 1)[0]
    assert b" 500" not in first, answer[:500]
    assert b" 200" not in first, answer[:500]
    if status:
        assert first.startswith(b"HTTP/1.1 " + status), answer[:500]
    good = raw(scene.home, post("/verbs/status", b"{}"))
    assert b" 200 " in good.split(b"\r\n", 1)[0]


def test_every_verb_refuses_what_it_does_not_know(scene: Scene) -> None:
    for name in NAMES:
        answer = raw(scene.home, post(f"/verbs/{name}", b'{"zzz":1}'))
        assert answer.startswith(b"HTTP/1.1 400"), (name, answer[:300])
    assert b"Traceback" not in scene.home.log.read_bytes()
