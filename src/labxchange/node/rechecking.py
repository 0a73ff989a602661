"""Verifying received files again, any time later, against the signed manifest of their transfer.

Every byte is read again; nothing is taken from a cache or from the first report. The trail says that it was done and how it
ended. The first report and the receipt stay as they are: they tell of the day of arrival.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path

from labxchange.audit.entry import Entry
from labxchange.audit.events import Event
from labxchange.dataset.check import Report, Verdict
from labxchange.errors import InputError
from labxchange.files.verify import verify_folder
from labxchange.node.catalog import Catalog, Loaded
from labxchange.node.core import Core
from labxchange.node.values import ReceivedInfo
from labxchange.store import shares, transfers

_COUNTS = ("matched", "differ", "missing", "unexpected", "error", "left_out")


async def verify_received(
    core: Core, catalog: Catalog, entry: Callable[..., Entry], *, transfer: str, folder: str = ""
) -> ReceivedInfo:
    """Check the files of an incoming transfer in ``folder`` (empty: where they were received) against its manifest.

    Args:
        entry: ``Receiving.entry``: an entry about a transfer, in the scopes of its share.
        transfer: the whole id.

    Raises:
        InputError: ``transfer-unknown``, ``transfer-foreign``, ``manifest-none``, ``destination-unusable``.
        UnavailableError: ``file-missing``: the folder is not there.
    """
    core.require()
    with core.database.begin() as tx:
        row = transfers.transfer(tx, transfer)
        share = shares.share(tx, row.share, row.version, owner=row.owner(core.me)) if row else None
    if row is None or share is None:
        raise InputError("transfer-unknown", "There is no such transfer.", hint="`labxchange transfer list` shows them.")
    if row.direction != "in":
        raise InputError("transfer-foreign", "Only what was received here can be verified here.")
    place = Path(folder) if folder else Path(row.destination.decode(errors="surrogateescape"))
    if not place.is_absolute():
        raise InputError("destination-unusable", "The folder to verify must be an absolute path.")
    loaded = catalog.load(share)
    if loaded.manifest is None:
        raise InputError(
            "manifest-none", "The sender has not signed the manifest yet, so nothing can be verified.", hint="Wait for the end."
        )
    report = await _check(loaded, place)
    intact = report.verdict is not Verdict.NOT_INTACT
    told = entry(
        Event.DATASET_VERIFIED,
        row,
        who=core.who(),
        object_digest=loaded.manifest.body.root,
        result="ok" if intact else "error",
        result_code="" if intact else "not-intact",
        details={name: int(getattr(report, name)) for name in _COUNTS},
    )
    core.record(told)
    return ReceivedInfo(transfer=row.transfer, destination=str(place).encode(errors="replace").decode(), report=report)


async def _check(loaded: Loaded, place: Path) -> Report:
    stop = threading.Event()
    try:
        return await asyncio.to_thread(
            verify_folder, place, loaded.files, loaded.digests, chunk_digests=loaded.chunk_digests or None, stop=stop
        )
    finally:
        stop.set()
