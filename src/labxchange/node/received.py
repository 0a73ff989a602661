"""One file of what was received, as a face needs it to read it: where it is, and the digests that its bytes must have.

The face reads and hashes the very bytes that it uses; this only says what was verified. Anything that changed after it was
released is therefore noticed there.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from labxchange.dataset.names import escape
from labxchange.errors import InputError
from labxchange.node.catalog import Catalog, Loaded
from labxchange.node.core import Core
from labxchange.node.values import FileInfo
from labxchange.sharing.exchange import Receipt
from labxchange.store import shares, statements, transfers


def received_file(core: Core, catalog: Catalog, *, transfer: str, file: str) -> FileInfo:
    """The released file that ``file`` names: its path in the dataset, or its name alone where only one file has it.

    Args:
        transfer: the whole id.

    Raises:
        InputError: ``transfer-unknown``, ``file-unknown``, ``file-ambiguous``, ``file-not-verified``.
    """
    with core.database.begin() as tx:
        row = transfers.transfer(tx, transfer)
        share = shares.share(tx, row.share, row.version, owner=row.owner(core.me)) if row else None
    if row is None or share is None or row.direction != "in":
        raise InputError("transfer-unknown", "There is no such incoming transfer.", hint="`labxchange transfer list`.")
    with core.database.begin() as tx:
        released = transfers.released_files(tx, row.transfer)
        receipts = [receipt.id for receipt in statements.about(tx, row.transfer, Receipt)]
    if not released:
        raise _not_verified("Nothing of this transfer is verified yet.")
    loaded = catalog.load(share)
    number = _find(loaded, file)
    item = loaded.files[number]
    digest = loaded.digests[number] if loaded.digests else ""
    if isinstance(digest, str) or not any(first <= number <= last for first, last in released):
        raise _not_verified(f"{escape(item.path)} is not verified yet, or did not match.")
    place = Path(row.destination.decode(errors="surrogateescape"), *PurePosixPath(item.path).parts)
    return FileInfo(
        path=item.path,
        place=str(place).encode(errors="surrogateescape").decode(errors="replace"),
        size=item.size,
        sha256=digest[0].hex(),
        chunks=digest[1].hex(),
        chunk_bytes=item.chunk_bytes,
        share=row.share,
        version=row.version,
        transfer=row.transfer,
        receipt=receipts[-1] if receipts else "",
    )


def _not_verified(sentence: str) -> InputError:
    return InputError("file-not-verified", sentence, hint="Wait for the end of the transfer; its report says what did not match.")


def _find(loaded: Loaded, file: str) -> int:
    found = [number for number, item in enumerate(loaded.files) if item.path == file]
    found = found or [number for number, item in enumerate(loaded.files) if item.path.rpartition("/")[2] == file]
    if len(found) > 1:
        raise InputError(
            "file-ambiguous", f"{len(found)} files are called {escape(file)!r}.", hint="Give the path in the dataset."
        )
    if not found:
        names = ", ".join(escape(item.path) for item in loaded.files[:5])
        raise InputError("file-unknown", f"There is no file {escape(file)!r} in this dataset.", hint=f"It holds {names} …")
    return found[0]
