"""One's own trail for people: list entries, export it, back the node up. Looking and exporting are entries themselves.

An export first writes ``trail.scope-heads`` and ``trail.exported``, so a file always ends in the entries that made it. What it
holds is built in ``exporting``, slice by slice, so the node goes on meanwhile.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from labxchange.audit.entry import Entry
from labxchange.audit.events import Event
from labxchange.audit.scope import Scope
from labxchange.errors import InputError
from labxchange.files.newfile import new_file
from labxchange.node.core import Core
from labxchange.node.exporting import FORMS, Export, entry_info
from labxchange.node.values import EntryInfo, Exported
from labxchange.store.trail import Trail

_SLICE = 200
"""Lines that are built, or entries that are opened, between two turns of the event loop."""


class Trails:
    """Reads and exports the trail."""

    def __init__(self, core: Core) -> None:
        self._core = core

    def _trail(self) -> Trail:
        self._core.require()
        assert self._core.trail is not None
        return self._core.trail

    async def entries(self, *, event: str, about: str, since: int, until: int, limit: int) -> list[EntryInfo]:
        """Entries newest first whose event begins with ``event`` and of which an opened field contains ``about``; they are
        opened page by page, so the node goes on meanwhile.

        Raises:
            InputError: ``limit-malformed``.
        """
        trail = self._trail()
        if not 1 <= limit <= 100_000:
            raise InputError("limit-malformed", "A limit is between 1 and 100,000 entries.")
        out: list[EntryInfo] = []
        wanted, below = about.casefold(), trail.size
        while below and len(out) < limit:
            with self._core.database.begin() as tx:
                page = list(trail.newest(tx, event=event, since=since, until=until, below=below, count=_SLICE))
                infos = [entry_info(trail.entry(tx, seq)) for seq in page]
            out += [info for info in infos if not wanted or any(wanted in text.casefold() for text in info.fields.values())]
            below = page[-1] if len(page) == _SLICE else 0
            await asyncio.sleep(0)
        del out[limit:]
        self._core.record(Entry(event=Event.TRAIL_VIEWED, object_type="trail", who=self._core.who(), details={"shown": len(out)}))
        return out

    async def export(self, path: str, *, form: str, study: str, site: str, category: str) -> Exported:
        """Write the trail to a new file.

        Raises:
            InputError: ``form-unknown``, ``file-exists``, ``scope-unknown``, ``excerpt-needs-bundle``.
            UnavailableError: ``disk-full``.
        """
        trail = self._trail()
        wanted = [
            Scope(kind=kind, name=name) for kind, name in (("study", study), ("site", site), ("category", category)) if name
        ]
        if form not in FORMS:
            raise InputError("form-unknown", f"A trail is exported as {', '.join(FORMS)}.")
        if wanted and form != "bundle":
            raise InputError("excerpt-needs-bundle", "Only a bundle can be an excerpt that proves its completeness.")
        target = Path(path).expanduser()
        if target.exists():
            raise InputError("file-exists", f"There is already a file {str(target)!r}.", hint="Choose another name.")
        self._note_export(form, wanted)
        with self._core.database.begin() as tx:
            checkpoint = trail.note_at(tx, trail.size).checkpoint
            cosigned = len({size for size, *_ in trail.cosigned(tx)})
        lines = Export(self._core, trail, size=checkpoint.size, wanted=wanted).lines(form)
        size = 0
        with new_file(target) as out:
            for slice_ in _slices(lines, _SLICE):
                size += await asyncio.to_thread(out.write, slice_)
                self._trail()  # a node that is locked meanwhile opens nothing more
        return Exported(path=str(target), form=form, entries=checkpoint.size, size=size, cosigned=cosigned)

    def _note_export(self, form: str, wanted: list[Scope]) -> None:
        trail = self._trail()
        exported = Entry(
            event=Event.TRAIL_EXPORTED,
            object_type="trail",
            who=self._core.who(),
            new=form,
            details={scope.kind: scope.name for scope in wanted},
        )
        with self._core.act() as tx:
            known = dict(trail.scopes(tx))
            for scope in wanted:
                if scope not in known:
                    raise InputError("scope-unknown", f"The trail knows no {scope.kind} of this name.")
            heads = [known[scope] for scope in wanted] if wanted else list(known.values())
            if heads:
                entry = Entry(event=Event.TRAIL_SCOPE_HEADS, object_type="trail", who=self._core.who(actor="program"))
                trail.append(tx, entry, heads=heads[:500])
            trail.append(tx, exported)
        self._core.notices.publish("trail")

    async def backup(self, path: str) -> None:
        """Everything in one new file: the database as it stands when the copy ends, the keys sealed.

        Raises:
            InputError: ``file-exists``.
            UnavailableError: ``disk-full``, ``disk-error``.
        """
        self._core.require()
        target = Path(path).expanduser()
        if target.exists():
            raise InputError("file-exists", f"There is already a file {str(target)!r}.", hint="Choose another name.")
        self._core.record(Entry(event=Event.IDENTITY_BACKED_UP, object_type="node", who=self._core.who()))
        with new_file(target) as out:
            sealed = {"backup-identity": self._core.home.identity.read_bytes()}
            await asyncio.to_thread(self._core.database.backup, Path(out.name), settings=sealed)


def _slices(lines: Iterator[bytes], count: int) -> Iterator[bytes]:
    while piece := list(islice(lines, count)):
        yield b"".join(piece)
