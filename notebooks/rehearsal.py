"""Two people for an example notebook: each with a real node of their own, in a temporary home on this machine.

    stage = Rehearsal()
    with stage.ada:
        lx.share(...)

Inside ``with stage.ada`` the functions of ``lx`` speak to Ada's node. ``stage.close()`` stops both nodes and removes what they
kept; the end of the kernel does so too. In real life each of them has a machine, and none of this is needed.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from labxchange.errors import LabxchangeError
from labxchange.node.client import Client, run
from labxchange.node.home import Home
from labxchange.node.values import Me
from labxchange.node.verbs import Verbs

_PATIENCE_S = 30.0


class Person:
    """Somebody with a node; ``with person:`` makes it the one that ``lx`` speaks to."""

    def __init__(self, folder: Path, *, name: str, organisation: str, role: str) -> None:
        self.folder = folder
        self.client = Client(Home(folder / "home"))
        made = self.client.call(
            Verbs.key_create, name=name, organisation=organisation, role=role, credential_file=str(folder / "credential")
        )
        self.me: Me = run(made)
        self._before: list[str | None] = []

    def __enter__(self) -> Person:
        self._before.append(os.environ.get("LABXCHANGE_HOME"))
        os.environ["LABXCHANGE_HOME"] = str(self.client.home.root)
        return self

    def __exit__(self, *_: object) -> None:
        before = self._before.pop()
        if before is None:
            del os.environ["LABXCHANGE_HOME"]
        else:
            os.environ["LABXCHANGE_HOME"] = before

    def __repr__(self) -> str:
        return f"{self.me.name}, {self.me.role} at {self.me.organisation}"


class Rehearsal:
    """Ada, who sends, and Ben, who receives; unless told otherwise each has verified the other by six words."""

    def __init__(self, *, acquainted: bool = True) -> None:
        os.environ.setdefault("LABXCHANGE_LISTEN", "127.0.0.1")
        self.folder = Path(tempfile.mkdtemp(prefix="labxchange-notebook-"))
        atexit.register(self.close)
        self.ada = Person(self._home("ada"), name="Ada Lindqvist", organisation="Northwind Pharma", role="data manager")
        self.ben = Person(self._home("ben"), name="Ben Okafor", organisation="Meridian CRO", role="biostatistician")
        if acquainted:
            self.meet()

    def _home(self, name: str) -> Path:
        made = self.folder / name
        made.mkdir()
        return made

    def meet(self) -> None:
        """Ada invites Ben; on the telephone they read each other six words, and each types what they heard."""
        invitation = run(self.ada.client.call(Verbs.contact_invite))
        run(self.ben.client.call(Verbs.contact_accept, text=invitation.text))
        run(self.ada.client.call(Verbs.contact_verify, contact=self.ben.me.name, words=list(self.ben.me.words)))
        run(self.ben.client.call(Verbs.contact_verify, contact=self.ada.me.name, words=list(self.ada.me.words)))

    def offered(self, title: str, version: int = 1) -> None:
        """Wait until Ben's node has the offer: a moment, on this machine."""
        for _ in self._moments("the offer"):
            items = run(self.ben.client.call(Verbs.inbox_list))
            if any((item.title, item.version) == (title, version) for item in items):
                return

    def countersigned(self, title: str) -> None:
        """Wait until Ada's node has countersigned the receipts for what Ben received under this title."""
        ask = self.ben.client.call
        for _ in self._moments("the countersignature"):
            rows = [row for row in run(ask(Verbs.transfer_list)) if row.title == title]
            if rows and all(row.state == "completed" for row in rows):
                receipts = [run(ask(Verbs.receipt_show, transfer=row.transfer)) for row in rows]
                if all(receipt.acknowledged for receipt in receipts):
                    return

    @staticmethod
    def _moments(what: str) -> Iterator[None]:
        deadline = time.monotonic() + _PATIENCE_S
        while time.monotonic() < deadline:
            yield
            time.sleep(0.1)
        raise TimeoutError(f"{what} did not come within {_PATIENCE_S:.0f} s")

    def close(self) -> None:
        """Stop both nodes and remove their homes."""
        for person in (self.ada, self.ben):
            with contextlib.suppress(LabxchangeError):
                run(Client(person.client.home, start=False).stop_node())
        for _ in range(50):
            if not list(self.folder.glob("*/home/node.lock")):
                break
            time.sleep(0.1)
        shutil.rmtree(self.folder, ignore_errors=True)
        atexit.unregister(self.close)
