"""Many small files: scanned, listed, hashed, received, released and verified in bounded memory and with few syncs.

``LABXCHANGE_SCALE`` sets the number of files (default 20,000; the campaign's amount is 100,000).
"""

from __future__ import annotations

import os
import resource
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from labxchange.dataset.check import Verdict
from labxchange.dataset.listing import decode_files, make_listing
from labxchange.dataset.manifest import FileDigests, decode_digests, make_manifest
from labxchange.files import quarantine
from labxchange.files.hashing import FileHash, hash_files
from labxchange.files.quarantine import Quarantine, Release
from labxchange.files.scan import scan
from labxchange.files.verify import verify_folder

FILES = int(os.environ.get("LABXCHANGE_SCALE", "20000"))
BATCH = 1000
ISSUER = "00" * 32


def peak_bytes() -> int:
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def test_many_small_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, inbox = tmp_path / "source", tmp_path / "inbox"
    for folder in range(FILES // BATCH):
        (source / f"site{folder:03d}").mkdir(parents=True)
        for number in range(BATCH):
            (source / f"site{folder:03d}" / f"{number:04d}.csv").write_bytes(b"%d,%d\n" % (folder, number) * 100)
    before = peak_bytes()
    began = time.perf_counter()

    def lap(what: str) -> None:
        nonlocal began
        now = time.perf_counter()
        print(f"{what}: {FILES / (now - began):,.0f} files/s, {(peak_bytes() - before) >> 20} MiB")
        began = time.perf_counter()

    found = scan([source])
    assert len(found.files) == FILES // BATCH * BATCH
    lap("scan")
    listing, body = make_listing(found.files, issuer=ISSUER, issued=0, share="00" * 16, version=1)
    lap("list")
    digests: list[FileDigests] = []
    for group in hash_files(found.sources, found.files):
        for item in group:
            assert isinstance(item.result, FileHash)
            digests.append(item.result.digests)
    lap("hash")
    manifest, digest_body = make_manifest(found.files, digests, issuer=ISSUER, issued=0, listing="00" * 32)
    files = decode_files(body, listing)
    digests = decode_digests(digest_body, manifest, files)
    lap("manifest made and checked, listing checked")

    syncs = 0

    def counted(function: Any) -> Any:
        def call(descriptor: int) -> Any:
            nonlocal syncs
            syncs += 1
            return function(descriptor)

        return call

    monkeypatch.setattr(quarantine, "sync_file_system", counted(quarantine.sync_file_system))
    monkeypatch.setattr(quarantine.os, "fsync", counted(os.fsync))
    monkeypatch.setattr(quarantine.os, "fdatasync", counted(os.fdatasync))
    with Quarantine(inbox, "t1") as holder:
        opening, syncs = syncs, 0
        for start in range(0, len(files), BATCH):
            batch = range(start, min(start + BATCH, len(files)))
            for index in batch:
                holder.write(index, 0, (source / files[index].path).read_bytes())
            holder.flush(batch)
            released = holder.release([Release(i, files[i].path, files[i].size, files[i].mtime_ms) for i in batch])
            assert all(item.done for item in released)
        if quarantine._syncfs is not None:
            assert syncs <= 3 * -(-len(files) // BATCH), "for each batch: its bytes, its folders, its names"
            assert opening <= 2
        assert holder.remove_if_empty()
    lap("received and released")
    report = verify_folder(inbox, files, digests)
    lap("verified")
    assert (report.verdict, report.matched) == (Verdict.INTACT, len(files))
    assert peak_bytes() - before < 64_000_000 + 1200 * FILES
