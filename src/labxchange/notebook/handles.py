"""What the Python API returns: handles whose ``repr`` and HTML show the state of now.

A handle keeps an id and asks the node whenever it is looked at; it holds no data and no secret. As the last line of a cell it
shows itself live; in the cell that made it, where it is shown already, not once more.
"""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msgspec.structs import asdict

from labxchange import times
from labxchange.dataset.names import escape
from labxchange.errors import UnavailableError
from labxchange.files.newfile import new_file
from labxchange.node.client import Client, run, start
from labxchange.node.values import ReceivedInfo, ShareInfo, TransferInfo
from labxchange.node.verbs import Verbs
from labxchange.notebook import cards, cells, displays
from labxchange.notebook.cards import OVER
from labxchange.notebook.loading import load
from labxchange.notebook.shown import ShownReceipt, ShownReport, shown
from labxchange.notebook.text import second, size, table, when

if TYPE_CHECKING:
    import pandas


_TURN_S = 0.3


class Share:
    """One's own share version."""

    def __init__(self, client: Client, info: ShareInfo, *, shown_in: int | None = None) -> None:
        self._client = client
        self._name = f"{info.share}/{info.version}"
        self._shown_in = shown_in

    @property
    def id(self) -> str:
        """The share's id and version, as every command takes them."""
        return self._name

    @property
    def status(self) -> ShareInfo:
        """Its state now, with 'did they get it?' for each recipient."""
        return run(self._client.call(Verbs.share_status, share=self._name))

    def wait_hashed(self) -> Share:
        """Wait until every file is hashed and the manifest is signed."""
        run(self._client.call(Verbs.share_hashed, share=self._name))
        return self

    def revoke(self, *, contact: str = "", reason: str = "") -> Share:
        """End the grants at once, for one contact or for all."""
        run(self._client.call(Verbs.share_revoke, share=self._name, contact=contact, reason=reason))
        return self

    def extend(self, *, until: int, contact: str = "", reason: str = "") -> Share:
        """Move the end of the grants; ``until`` in UTC milliseconds."""
        run(self._client.call(Verbs.share_extend, share=self._name, until=until, contact=contact, reason=reason))
        return self

    def __repr__(self) -> str:
        info = self.status
        head = f"share “{escape(info.title)}” version {info.version}: {info.state}, {info.files} files, {size(info.bytes)}"
        rows = [(item.name, item.state, size(item.done_bytes), when(item.not_after)) for item in info.recipients]
        return head + "\n" + table(("recipient", "state", "arrived", "until"), rows, empty="no recipients")

    def _repr_html_(self) -> str:
        return cards.share_card(self.status, as_of=second(times.now_ms()))

    def _ipython_display_(self) -> None:
        """As the result of a cell: the card of now, recipients named, because somebody asked for it."""
        if self._shown_in is None or self._shown_in != cells.cell():
            raise NotImplementedError  # IPython goes on with the other forms


class Receipt(ShownReceipt, frozen=True, kw_only=True):
    """A receipt that can be saved."""

    _client: Client

    def save(self, path: str | Path) -> Path:
        """Write the transfer's best receipt as a page to read, print and keep, into a new file.

        `labxchange receipt verify` checks the page.

        Raises:
            InputError: ``file-exists``, ``not-permitted``.
        """
        target = Path(path).expanduser().absolute()
        made = run(self._client.call(Verbs.receipt_page, transfer=self.transfer))
        with new_file(target) as out:
            out.write(made.page.encode())
        return target

    def __repr__(self) -> str:
        signed = "signed, countersigned" if self.acknowledged else "signed"
        head = f"receipt of “{escape(self.title)}”: {self.level}, {self.verdict}, {signed}"
        found = [f"  | {escape(line)}" for line in self.findings.split("\n") if self.findings]
        return "\n".join([head, *found])


class Transfer:
    """A transfer, of either direction."""

    def __init__(self, client: Client, info: TransferInfo, *, shown_in: int | None = None) -> None:
        self._client = client
        self.id = info.transfer
        self._shown_in = shown_in

    @property
    def status(self) -> TransferInfo:
        """Its state now."""
        return run(self._client.call(Verbs.transfer_show, transfer=self.id))

    def wait(self) -> Transfer:
        """Wait until it is over; an interrupt stops the wait, never the transfer."""
        run(self._wait())
        return self

    async def _wait(self) -> None:
        notices = self._client.notices()
        try:
            while (await self._client.call(Verbs.transfer_show, transfer=self.id)).state not in OVER:
                async for notice in notices:
                    if notice.kind == "transfer":
                        break
                else:
                    raise UnavailableError("node-stopped", "The node stopped.", hint="Start it; the transfer goes on by itself.")
        finally:
            await notices.aclose()  # type: ignore[attr-defined]
        if self._shown_in is not None:
            await displays.settle(self._client, self.id)

    def __await__(self) -> Generator[Any, None, Transfer]:
        """``await received`` waits as ``wait`` does, without holding up the kernel."""
        yield from self._turn_by_turn().__await__()
        return self

    async def _turn_by_turn(self) -> None:
        """An interrupt of ipykernel cancels the cell's task and does not wake its loop: so the loop wakes by itself."""
        waiting = asyncio.wrap_future(start(self._wait()))
        try:
            while not waiting.done():
                await asyncio.wait([waiting], timeout=_TURN_S)
            waiting.result()
        finally:
            waiting.cancel()

    def load(self, file: str) -> pandas.DataFrame:
        """A table of what was received, read from bytes that are hashed again; waits for the transfer's end first.

        ``attrs`` of the result holds labels, formats and, under ``labxchange``, where it came from: share, version, path,
        SHA-256, transfer and receipt.

        Raises:
            InputError: ``file-unknown``, ``file-not-verified``; ``table-unknown``, ``table-damaged``.
            IntegrityError: ``file-changed``: the file is not what was verified.
        """
        self.wait()
        return load(run(self._client.call(Verbs.received_file, transfer=self.id, file=file)))

    def verify(self) -> ShownReport:
        """Read every file again and compare it with the sender's manifest; an entry of the trail says that it was done."""
        self.wait()
        again: ReceivedInfo = run(self._client.call(Verbs.dataset_verify, transfer=self.id))
        return shown(again.report, ShownReport)

    def limit(
        self, *, rate: int | None = None, priority: str | None = None, lanes: int | None = None, reason: str = ""
    ) -> Transfer:
        """Change rate (bytes a second, 0: no limit), priority or lanes, also while it runs; what is None stays."""
        changed = self._client.call(
            Verbs.transfer_limit, transfer=self.id, rate=rate, priority=priority, lanes=lanes, reason=reason
        )
        run(changed)
        return self

    def pause(self) -> Transfer:
        run(self._client.call(Verbs.transfer_pause, transfer=self.id))
        return self

    def resume(self) -> Transfer:
        run(self._client.call(Verbs.transfer_resume, transfer=self.id))
        return self

    def cancel(self) -> Transfer:
        run(self._client.call(Verbs.transfer_cancel, transfer=self.id))
        return self

    @property
    def folder(self) -> Path:
        """Where the files are."""
        return Path(self.status.destination)

    @property
    def report(self) -> ShownReport:
        """The verification report: what matched, what did not, which checks ran and which did not."""
        received: ReceivedInfo = run(self._client.call(Verbs.transfer_report, transfer=self.id))
        return shown(received.report, ShownReport)

    def accept(self, findings: str = "") -> Transfer:
        """Wait until it is over, then sign that what arrived is accepted."""
        self.wait()
        run(self._client.call(Verbs.transfer_accept, transfer=self.id, findings=findings))
        return self

    def reject(self, findings: str) -> Transfer:
        """Wait until it is over, then sign that what arrived is rejected, and why."""
        self.wait()
        run(self._client.call(Verbs.transfer_reject, transfer=self.id, findings=findings))
        return self

    @property
    def receipt(self) -> Receipt:
        """The best signed receipt: delivered, intact, accepted or rejected."""
        info = run(self._client.call(Verbs.receipt_show, transfer=self.id))
        return Receipt(**asdict(info), _client=self._client)

    def __repr__(self) -> str:
        info = self.status
        arrow = "from" if info.direction == "in" else "to"
        reason = f" ({info.reason})" if info.reason else ""
        done = f"{info.done_files}/{info.files} files, {size(info.done_bytes)} of {size(info.bytes)}"
        return f"transfer of “{escape(info.title)}” {arrow} {escape(info.peer)}: {info.state}{reason}, {done}"

    def _repr_html_(self) -> str:
        info = self.status
        return cards.transfer_kept(info) if info.state in OVER else cards.transfer_card(info)

    def _ipython_display_(self) -> None:
        """As the result of a cell: live."""
        if self._shown_in is None or self._shown_in != cells.cell():
            self._shown_in = displays.attach(self._client, self.status)
        if self._shown_in is None:
            raise NotImplementedError  # no notebook: IPython goes on with the other forms
