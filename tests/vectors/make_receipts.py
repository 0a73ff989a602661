"""Writes ``receipts.json``: the test vectors of ``docs/spec/receipts.md``.

    TZ=UTC PYTHONPATH=src:. python tests/vectors/make_receipts.py

Two nodes on the simulated network, one transfer, a rejection and an acceptance. Keys follow from the seed; ids do not, so make it
again only when the format changes.
"""

from __future__ import annotations

import json
import tempfile
from hashlib import sha256
from pathlib import Path
from typing import Any

from labxchange.node.receipt_page import render
from labxchange.sharing.exchange import Receipt
from labxchange.store import statements
from tests.support.nodes import ended, share
from tests.support.world import World, settle, simulate, write_files

PATH = Path(__file__).with_name("receipts.json")


def make(folder: Path) -> dict[str, Any]:
    made: dict[str, Any] = {}

    async def story(world: World) -> None:
        ada, bo = await world.pair()
        write_files(folder / "data", {"adsl.csv": b"USUBJID,AGE\n", "empty/": b""})
        given = await share(ada.node, bo.node, folder / "data", title="Tables <1>", purpose="review", study="ABC-101")
        transfer = (await ended(bo.node, (await bo.node.receive(share=given.share)).transfer)).transfer
        await settle(ada, bo)
        await bo.node.transfer_reject(transfer=transfer, findings="AGE is empty\nin 1 row & “more”")
        await bo.node.transfer_accept(transfer=transfer)
        await settle(ada, bo)
        with bo.node.core.database.begin() as tx:
            receipts = statements.about(tx, transfer, Receipt)
        shown = await bo.node.receipt_show(transfer=transfer)
        made["receipts"] = [{"id": item.id, "level": item.body.level, "follows": item.body.follows} for item in receipts]
        made["fingerprints"] = [(await machine.node.key_show()).fingerprint for machine in (ada, bo)]
        made["file"] = json.loads(shown.file)
        made["page_sha256"] = sha256(render(made["file"])).hexdigest()

    simulate(story, folder, seed="receipts")
    return made


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        PATH.write_text(json.dumps(make(Path(temporary)), indent=1) + "\n")
