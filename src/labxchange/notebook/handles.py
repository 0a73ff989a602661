"""A transfer as the Python API returns it: a handle whose ``repr`` and HTML show the state of now.

It keeps an id and asks the node whenever it is looked at; it holds no data and no secret. As the last line of a cell it shows
itself live; in the cell that made it, where it is shown already, not once more.
"""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msgspec.structs import asdict

from labxchange.dataset.names import escape
from labxchange.errors import UnavailableError
from labxchange.node.client import Client, run, start
from labxchange.node.values import ReceivedInfo, TransferInfo
from labxchange.node.verbs import Verbs
from labxchange.notebook import cards, cells, displays
from labxchange.notebook.cards import OVER
from labxchange.notebook.loading import load
from labxchange.notebook.shown import Receipt, ShownReport, shown
from labxchange.notebook.text import size
from labxchange.notebook.waiting import Line

if TYPE_CHECKING:
    import pandas

_TURN_S = 0.3


class Transfer:
    """A transfer, of either direction; as the last line of a cell it shows itself live.

    It runs in the node, whatever becomes of the notebook. What needs the data (``load``, ``verify``, ``accept``, ``reject``)
    waits for its end, as ``await`` does; an interrupt stops the wait, never the transfer.

    Example:
        print(received)
    """

    def __init__(self, client: Client, info: TransferInfo, *, shown_in: int | None = None) -> None:
        self._client, self._id, self._shown_in = client, info.transfer, shown_in

    @property
    def id(self) -> str:
        """The transfer's id, 32 hexadecimal digits; commands take it, or its first six.

        Example:
            received.id
        """
        return self._id

    @property
    def status(self) -> TransferInfo:
        """Its state now: how far it is, how fast, over which path.

        Raises:
            NodeLocked: unlock the node first.

        Example:
            received.status.state, received.status.done_bytes
        """
        return run(self._client.call(Verbs.transfer_show, transfer=self.id))

    def wait(self) -> Transfer:
        """Wait until it is over: verified, failed, cut or cancelled.

        Raises:
            NodeLocked: unlock the node first.
            UnavailableError: ``node-stopped``.

        Example:
            received.wait().status.state
        """
        run(self._wait())
        return self

    async def _wait(self) -> None:
        notices, line = self._client.notices(), Line()
        try:
            while (info := await self._client.call(Verbs.transfer_show, transfer=self.id)).state not in OVER:
                line.show(info)
                async for notice in notices:
                    if notice.kind == "transfer":
                        break
                else:
                    raise UnavailableError("node-stopped", "The node stopped.", hint="Start it; the transfer goes on by itself.")
        finally:
            line.close()
            await notices.aclose()  # type: ignore[attr-defined]
        if self._shown_in is not None:
            await displays.settle(self._client, self.id)

    def __await__(self) -> Generator[Any, None, Transfer]:
        """``await received`` waits as ``wait`` does, without holding up the kernel."""
        yield from self._turn_by_turn().__await__()
        return self

    async def _turn_by_turn(self) -> None:
        # An interrupt of ipykernel cancels the cell's task and does not wake its loop; so the loop wakes by itself.
        waiting = asyncio.wrap_future(start(self._wait()))
        try:
            while not waiting.done():
                await asyncio.wait([waiting], timeout=_TURN_S)
            waiting.result()
        finally:
            waiting.cancel()

    def load(self, file: str) -> pandas.DataFrame:
        """A table of what was received, read from bytes that are hashed again: exactly what was verified, or an error.

        ``attrs`` of the DataFrame hold ``labels`` and ``formats`` of the columns and, under ``labxchange``, where it came from:
        share, version, path, SHA-256, transfer and receipt.

        Args:
            file: path in the dataset, or the name where only one file has it. CSV, XPT, sas7bdat, Parquet and Dataset-JSON.

        Raises:
            InputError: ``file-unknown``, ``file-ambiguous``, ``file-not-verified``; ``table-unknown``, ``table-damaged``.
            IntegrityError: ``file-changed``: the file was edited or damaged since it was verified.
            UnavailableError: ``file-missing``, ``disk-error``, ``out-of-descriptors``.
            NodeLocked: unlock the node first.

        Example:
            adsl = received.load("adsl.csv")
            adsl.attrs["labxchange"]["sha256"]
        """
        self.wait()
        return load(run(self._client.call(Verbs.received_file, transfer=self.id, file=file)))

    @property
    def folder(self) -> Path:
        """Where the files are.

        Example:
            sorted(path.name for path in received.folder.iterdir())
        """
        return Path(self.status.destination)

    @property
    def report(self) -> ShownReport:
        """The verification report of the transfer: what matched, what did not, which checks ran and which did not.

        Raises:
            InputError: ``report-none``: there is none yet.
            NodeLocked: unlock the node first.

        Example:
            received.report.verdict, received.report.matched
        """
        received: ReceivedInfo = run(self._client.call(Verbs.transfer_report, transfer=self.id))
        return shown(received.report, ShownReport)

    def verify(self) -> ShownReport:
        """Read every file again, now, and compare it with what the sender signed; your audit trail says that it was done.

        Raises:
            InputError: ``transfer-foreign``, ``manifest-none``.
            UnavailableError: ``file-missing``: the folder is not there.
            NodeLocked: unlock the node first.

        Example:
            received.verify().verdict
        """
        self.wait()
        again: ReceivedInfo = run(self._client.call(Verbs.dataset_verify, transfer=self.id))
        return shown(again.report, ShownReport)

    def accept(self, findings: str = "") -> Transfer:
        """Sign that what arrived is accepted. The sender learns of it, and both trails hold it.

        Args:
            findings: a remark; at most 4,000 characters. Part of what is signed.

        Raises:
            InputError: ``accept-not-intact``, ``findings-malformed``, ``not-received``, ``transfer-foreign``,
                ``decided-too-often``; nothing was signed.
            NodeLocked: unlock the node first.

        Example:
            received.accept("checked against the protocol, 254 subjects")
        """
        self.wait()
        run(self._client.call(Verbs.transfer_accept, transfer=self.id, findings=findings))
        return self

    def reject(self, findings: str) -> Transfer:
        """Sign that what arrived is rejected, and why. A later decision replaces an earlier one.

        Args:
            findings: the reason; at most 4,000 characters. Part of what is signed.

        Raises:
            InputError: as ``accept``, and ``findings-missing``; nothing was signed.
            NodeLocked: unlock the node first.

        Example:
            received.reject("the column TRTSDT is empty")
        """
        self.wait()
        run(self._client.call(Verbs.transfer_reject, transfer=self.id, findings=findings))
        return self

    @property
    def receipt(self) -> Receipt:
        """The best signed receipt: delivered, intact, accepted or rejected.

        Raises:
            InputError: ``receipt-none``: there is none yet.
            NodeLocked: unlock the node first.

        Example:
            received.receipt.level, received.receipt.acknowledged
        """
        info = run(self._client.call(Verbs.receipt_show, transfer=self.id))
        return Receipt(**asdict(info), _client=self._client)

    def pause(self) -> Transfer:
        """Stop fetching; what has arrived is kept. Only the recipient can.

        Raises:
            InputError: ``transfer-over``, ``transfer-foreign``.
            NodeLocked: unlock the node first.

        Example:
            slow = lx.receive("Assay protocol", rate=200_000)
            slow.pause()
        """
        run(self._client.call(Verbs.transfer_pause, transfer=self.id))
        return self

    def resume(self) -> Transfer:
        """Go on where it was.

        Raises:
            InputError: ``transfer-over``, ``transfer-foreign``.
            NodeLocked: unlock the node first.

        Example:
            slow.resume()
        """
        run(self._client.call(Verbs.transfer_resume, transfer=self.id))
        return self

    def limit(
        self, *, rate: int | None = None, priority: str | None = None, lanes: int | None = None, reason: str = ""
    ) -> Transfer:
        """Choose anew how fast it may go, also while it runs; what is None stays as it is.

        Args:
            rate: bytes a second; 0: no limit.
            priority: "low", "normal" or "high", among the transfers of this node.
            lanes: over how many lanes, 1 to 16; 0: the node's choice. The recipient's to say.
            reason: stands in your audit trail.

        Raises:
            InputError: ``rate-too-low``, ``priority-unknown``, ``lanes-count``, ``lanes-of-recipient``, ``transfer-over``.
            NodeLocked: unlock the node first.

        Example:
            slow.limit(rate=5_000_000, priority="low")
        """
        call = self._client.call(Verbs.transfer_limit, transfer=self.id, rate=rate, priority=priority, lanes=lanes, reason=reason)
        run(call)
        return self

    def cancel(self) -> Transfer:
        """Give an incoming transfer up; what had arrived and was not verified is removed.

        Raises:
            InputError: ``transfer-over``, ``transfer-foreign``.
            NodeLocked: unlock the node first.

        Example:
            slow.cancel()
        """
        run(self._client.call(Verbs.transfer_cancel, transfer=self.id))
        return self

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
