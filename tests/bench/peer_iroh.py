"""Both ends of iroh's Python binding: `python -m tests.bench.peer_iroh send A SRC ETC` and `receive A,B DST ETC`.

The sender imports before it says (by the file ``iroh-ticket``) that it is ready; the receiver fetches and exports.
"""

from __future__ import annotations

import asyncio
import importlib
import os
import sys
from pathlib import Path
from typing import Any

iroh: Any = importlib.import_module("iroh")
_PORT = 4500


class _Progress:
    """Keeps what an import ended with."""

    added: Any = None

    async def progress(self, event: Any) -> None:
        if hasattr(event, "as_all_done") and event.type() == iroh.AddProgressType.ALL_DONE:
            self.added = event.as_all_done()


async def _node(store: Path, address: str) -> Any:
    iroh.iroh_ffi.uniffi_set_event_loop(asyncio.get_running_loop())
    options = iroh.NodeOptions(ipv4_addr=f"{address}:{_PORT}", node_discovery=iroh.NodeDiscoveryConfig.NONE)
    return await iroh.Iroh.persistent_with_options(str(store), options)


async def send(address: str, source: Path, settings: Path) -> None:
    node, progress = await _node(settings / "iroh-a", address), _Progress()
    tree = source / "tree"
    what = tree if tree.exists() else source / "file.bin"
    wrap = iroh.WrapOption.no_wrap()
    await node.blobs().add_from_path(str(what), True, iroh.SetTagOption.auto(), wrap, progress)
    key = await node.net().node_id()
    ticket = settings / "iroh-ticket"
    (settings / "iroh-new").write_text(f"{key} {progress.added.hash} {progress.added.format.value}")
    (settings / "iroh-new").rename(ticket)
    await asyncio.Event().wait()


async def receive(addresses: str, destination: Path, settings: Path) -> None:
    sender, own = addresses.split(",")
    node = await _node(settings / "iroh-b", own)
    key, digest, form = (settings / "iroh-ticket").read_text().split()
    format_of = iroh.BlobFormat(int(form))
    address = iroh.NodeAddr(iroh.PublicKey.from_string(key), None, [f"{sender}:{_PORT}"])
    options = iroh.BlobDownloadOptions(format_of, [address], iroh.SetTagOption.auto())
    await node.blobs().download(iroh.Hash.from_string(digest), options, _Progress())
    many = format_of == iroh.BlobFormat.HASH_SEQ
    kind = iroh.BlobExportFormat.COLLECTION if many else iroh.BlobExportFormat.BLOB
    place = destination / ("tree" if many else "file.bin")
    await node.blobs().export(iroh.Hash.from_string(digest), str(place), kind, iroh.BlobExportMode.TRY_REFERENCE)


if __name__ == "__main__":
    act = send if sys.argv[1] == "send" else receive
    asyncio.run(act(sys.argv[2], Path(sys.argv[3]), Path(sys.argv[4])))
    sys.stdout.flush()
    os._exit(0)  # the binding's threads do not end by themselves
