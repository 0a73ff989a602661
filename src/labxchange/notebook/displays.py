"""Live displays in a notebook: a transfer and a share, shown where somebody looks and kept true by ``watching``.

- ``attach`` shows a transfer or a share where a kernel and ipywidgets are; anywhere else it does nothing. A display that fails
  never fails what it displays.
- What is over becomes static HTML without names (``cards``): a saved notebook keeps that, with or without a kernel.
- Buttons are handled on the kernel's main thread: a press only hands the call over to the loop. While a cell runs, the kernel
  handles no press; it does so right after.

Panels, which stay until the person closes them, are in ``panels``.
"""

from __future__ import annotations

import logging
import sys
import time
from collections import deque
from collections.abc import Awaitable, Callable
from importlib.util import find_spec
from typing import Any

from labxchange.errors import LabxchangeError
from labxchange.node.client import Client, run
from labxchange.node.values import Notice, ReceiptInfo, ShareInfo, TransferInfo
from labxchange.node.verbs import Verbs
from labxchange.notebook import cards, cells
from labxchange.notebook.cells import dispose, living, static, toolkit
from labxchange.notebook.watching import watcher

_ENDED = ("completed", "failed", "cut", "cancelled")
"""States of a transfer after which its display is static; one that goes on later is shown anew."""
_SETTLED = ("verified", "not intact", "accepted", "rejected", "revoked", "expired")
"""States of a recipient in which a share has nothing more to tell of them."""
_COUNTERSIGN_S = 15.0
_SAMPLES = 120
_SAMPLE_S = 0.5
_ARMED_S = _READ_S = 5.0

log = logging.getLogger("labxchange")


class TransferView:
    """A transfer that moves: its card, and the buttons of an incoming one."""

    def __init__(self, client: Client, info: TransferInfo) -> None:
        ipywidgets = toolkit()
        self._client = client
        self._info = info
        self._receipt: ReceiptInfo | None = None
        self._samples: deque[tuple[float, int]] = deque(maxlen=_SAMPLES)
        self._remark = ""
        self._remark_until = 0.0
        self._known = True
        self._armed_until = 0.0
        self._verified_at = 0.0
        self._handle: Any = None
        self._closed = False
        self._card = ipywidgets.HTML()
        self._pause = ipywidgets.Button(description="Pause", icon="pause", tooltip="Stop fetching; what has arrived is kept")
        self._cancel = ipywidgets.Button(description="Cancel", icon="times", tooltip="Give up; asks once more")
        self._pause.on_click(lambda _: self._press_pause())
        self._cancel.on_click(lambda _: self._press_cancel())
        self._buttons = ipywidgets.HBox([self._pause, self._cancel])
        self.box = ipywidgets.VBox([self._card, self._buttons] if info.direction == "in" else [self._card])
        self._draw()

    def show(self) -> None:
        """Show it in the cell that runs, and keep it true."""
        forms = living(self.box, cards.transfer_line(self._info)) | {"text/html": cards.transfer_kept(self._info)}
        self._handle = cells.publish(forms)
        cells.keep(self)
        watcher(self._client).add(self)

    def close(self) -> None:
        """Show it no more; the transfer goes on."""
        self._closed = True
        dispose(self.box)
        dispose(self._buttons)

    def concerned(self, notice: Notice) -> bool:
        return notice.kind == "node" or (notice.kind == "transfer" and notice.id == self._info.transfer)

    async def refresh(self, client: Client) -> bool:
        if self._closed:
            return True
        self._info = info = await client.call(Verbs.transfer_show, transfer=self._info.transfer)
        if not self._known or time.monotonic() >= self._remark_until:
            self._remark = ""
        self._known = True
        if not self._samples or time.monotonic() - self._samples[-1][0] >= _SAMPLE_S:
            self._samples.append((time.monotonic(), info.rate if info.state == "running" else 0))
        done = info.state in (*_ENDED, "verified")
        if done and info.receipt:
            self._receipt = await client.call(Verbs.receipt_show, transfer=info.transfer)
        if done:
            self._finish()
        else:
            self._draw()
        return done and (info.state != "verified" or self._countersign_over())

    def shows(self, transfer: str) -> bool:
        """Whether it is this one."""
        return self._info.transfer == transfer

    def trouble(self, sentence: str) -> None:
        self._known = False
        self._say(sentence)

    def _say(self, sentence: str) -> None:
        """For as long as it takes to read."""
        self._remark, self._remark_until = sentence, time.monotonic() + _READ_S
        self._draw()

    def _countersign_over(self) -> bool:
        """The sender countersigns within moments, or is away: then the receipt is kept as it is."""
        self._verified_at = self._verified_at or time.monotonic()
        return time.monotonic() - self._verified_at > _COUNTERSIGN_S

    def _draw(self) -> None:
        self._card.value = cards.transfer_card(self._info, samples=self._samples, remark=self._remark, known=self._known)
        state = self._info.state
        paused = state == "paused"
        if self._pause.description != ("Resume" if paused else "Pause"):
            self._pause.description, self._pause.icon = ("Resume", "play") if paused else ("Pause", "pause")
        self._pause.disabled = state not in ("running", "waiting", "paused")
        self._cancel.disabled = state not in ("running", "waiting", "paused")
        armed = time.monotonic() < self._armed_until
        self._cancel.description, self._cancel.button_style = ("Really cancel", "danger") if armed else ("Cancel", "")

    def _finish(self) -> None:
        kept = cards.transfer_kept(self._info, receipt=self._receipt)
        self.box.children = (self._card,)  # it stays, for a page that was reloaded shows it still
        dispose(self._buttons)
        self._card.value = kept
        if self._handle is not None and not self._closed:
            self._handle.update(static(kept, cards.transfer_line(self._info)), raw=True)

    def _press_pause(self) -> None:
        verb = Verbs.transfer_resume if self._info.state == "paused" else Verbs.transfer_pause
        self._ask(lambda: self._client.call(verb, transfer=self._info.transfer))

    def _press_cancel(self) -> None:
        if time.monotonic() < self._armed_until:
            self._armed_until = 0.0
            self._ask(lambda: self._client.call(Verbs.transfer_cancel, transfer=self._info.transfer))
        else:
            self._armed_until = time.monotonic() + _ARMED_S
            self._say("Press again to give this transfer up: what has not been released is removed.")

    def _ask(self, call: Callable[[], Awaitable[TransferInfo]]) -> None:
        async def answered() -> None:
            try:
                self._info = await call()
            except LabxchangeError as error:
                self._say(error.message)
            else:
                self._draw()

        self._pause.disabled = True
        watcher(self._client).spawn(answered())


class ShareView:
    """A share, without widgets: its kept form, replaced in place while files are hashed and recipients receive."""

    def __init__(self, client: Client, info: ShareInfo) -> None:
        self._client = client
        self._info = info
        self._shown = ""
        self._closed = False
        self._handle: Any = None

    def show(self) -> None:
        """Show it in the cell that runs, and keep it true."""
        self._shown = cards.share_kept(self._info)
        self._handle = cells.publish(static(self._shown, cards.share_line(self._info)))
        cells.keep(self)
        watcher(self._client).add(self)

    def close(self) -> None:
        """Ask for it no more; what is shown stays."""
        self._closed = True

    def concerned(self, notice: Notice) -> bool:
        # A recipient's progress is told as a transfer, of which a share does not know the id beforehand.
        return notice.kind in ("node", "transfer") or (notice.kind == "share" and notice.id in ("", self._info.share))

    async def refresh(self, client: Client) -> bool:
        self._info = info = await client.call(Verbs.share_status, share=f"{self._info.share}/{self._info.version}")
        self._put(cards.share_kept(info))
        done = all(one.state in _SETTLED for one in info.recipients)
        return self._closed or (info.state != "hashing" and done)

    def trouble(self, sentence: str) -> None:
        self._put(cards.share_kept(self._info, remark=sentence))

    def _put(self, markup: str) -> None:
        if markup != self._shown:
            self._shown = markup
            self._handle.update(static(markup, cards.share_line(self._info)), raw=True)


def attach(client: Client, info: TransferInfo | ShareInfo) -> int | None:
    """Show it live in the cell that runs; the number of that cell, or None where nothing was shown."""
    number = cells.cell()
    if number is None or ("ipywidgets" not in sys.modules and find_spec("ipywidgets") is None):
        return None
    try:
        if isinstance(info, ShareInfo):
            ShareView(client, info).show()
        elif info.state in cards.OVER:
            receipt = run(client.call(Verbs.receipt_show, transfer=info.transfer)) if info.receipt else None
            cells.publish(static(cards.transfer_kept(info, receipt=receipt), cards.transfer_line(info)))
        else:
            TransferView(client, info).show()
    except Exception:  # whatever a front end does, what was asked for is done and its handle is returned
        log.warning("a display could not be shown", exc_info=True)
        return None
    return number


async def settle(client: Client, transfer: str) -> None:
    """Show at once what became of a transfer; on the client's loop. Who waited for its end may save the notebook next, and a
    notebook that is executed without a front end hears of nothing that comes later."""
    await watcher(client).show(lambda view: isinstance(view, TransferView) and view.shows(transfer))
