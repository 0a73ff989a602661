"""The Python API: ``import labxchange as lx``. Every function starts the node when it is not running, and never asks for a
passphrase: a locked node raises ``NodeLocked`` with a hint."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from datetime import date
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, cast

from labxchange import times
from labxchange.errors import InputError
from labxchange.node.client import Client, run
from labxchange.node.values import InboxItem
from labxchange.node.verbs import Verbs
from labxchange.notebook import displays
from labxchange.notebook.handles import Share, Transfer
from labxchange.notebook.lists import Contacts, Inbox, Shares, Trail, Transfers
from labxchange.notebook.offering import offer
from labxchange.notebook.shown import ShownMe, shown

if TYPE_CHECKING:
    import pandas

    from labxchange.content.compare import Comparison
    from labxchange.content.fingerprint import Fingerprint


@cache
def _client(home: str) -> Client:
    return Client()


def client() -> Client:
    """The client for the node of ``LABXCHANGE_HOME``."""
    return _client(os.environ.get("LABXCHANGE_HOME", ""))


def me() -> ShownMe:
    """Who you are here: name, fingerprint, six words. Raises InputError ``no-identity``."""
    return shown(run(client().call(Verbs.key_show)), ShownMe)


def contacts() -> Contacts:
    """The people you know, and whether you have verified them."""
    return Contacts(run(client().call(Verbs.contact_list)))


def share(
    what: str | Path | pandas.DataFrame | Iterable[str | Path],
    to: str | Iterable[str],
    *,
    columns: Sequence[str] | None = None,
    rows: str | None = None,
    title: str = "",
    note: str = "",
    purpose: str = "",
    study: str = "",
    site: str = "",
    category: str = "",
    expires: str | int | date = 0,
    downloads: int = 3,
    new_version_of: str | Share = "",
) -> Share:
    """Share files, a folder, or a table with contacts.

    Args:
        what: a folder, a file, several, or a DataFrame, which becomes a Parquet file and needs a title.
        to: name or fingerprint of a contact, or several.
        columns, rows: of one table file or DataFrame, share only these columns, and rows that fulfil a condition such as
            ``SITEID == '701' and AGE >= 65``. The recipient is told what was left out: columns by name, rows by number.
        expires: ``"30d"``, ``"2026-12-31"``, a date or datetime, or UTC milliseconds; by default in 30 days.
        new_version_of: an own share, or its id or title.

    Raises:
        InputError: ``contact-unknown``, ``nothing-to-share``, ``title-needed``, ``subset-of-one``, ``column-unknown``,
            ``rows-refused`` and others; nothing was shared.
        NodeLocked: unlock the node first.
    """
    made = offer(
        client(),
        _given(what, title),
        to=[to] if isinstance(to, str) else list(to),
        columns=columns,
        rows=rows,
        share=new_version_of if isinstance(new_version_of, str) else new_version_of.id,
        title=title,
        note=note,
        purpose=purpose,
        study=study,
        site=site,
        category=category,
        not_after=_moment(expires),
        downloads=downloads,
    )
    return Share(client(), made, shown_in=displays.attach(client(), made))


def _given(what: str | Path | pandas.DataFrame | Iterable[str | Path], title: str) -> list[Path] | pandas.DataFrame:
    """Files by their whole paths, or the table."""
    if isinstance(what, str | Path) or not hasattr(what, "columns"):
        paths = [what] if isinstance(what, str | Path) else list(cast("Iterable[str | Path]", what))
        return [Path(path).expanduser().absolute() for path in paths]
    if not title:
        raise InputError("title-needed", "A table that is shared needs a title.", hint='lx.share(df, to="…", title="…")')
    return cast("pandas.DataFrame", what)


def _moment(expires: str | int | date) -> int:
    """UTC milliseconds; 0 stays 0."""
    if isinstance(expires, int):
        return expires
    return times.parse_moment(expires if isinstance(expires, str) else expires.isoformat(), now=times.now_ms())


def shares() -> Shares:
    """Your shares, with the state of each; ``panel()`` of it is a form to share with."""
    return Shares(client(), run(client().call(Verbs.share_list)))


def inbox() -> Inbox:
    """What others offer you; ``panel()`` of it is live."""
    return Inbox(client(), run(client().call(Verbs.inbox_list)))


def receive(
    offer: str | InboxItem, *, folder: str | Path = "", rate: int = 0, priority: str = "normal", lanes: int = 0
) -> Transfer:
    """Receive an offered share; returns at once. ``wait()`` on the result waits for the end.

    Args:
        offer: title or id of the share, or an item of ``inbox()``.
        folder: where the files go; by default a folder of their own in the node's inbox.
        rate: no faster than this, bytes a second; 0: no limit. ``limit()`` on the result changes it while it runs.
        priority: "low", "normal" or "high".
        lanes: over how many lanes, 1 to 16; 0: the node's choice.

    Raises:
        InputError: ``offer-unknown``, ``contact-unverified``, ``already-received``, ``destination-unusable``, ``rate-too-low``.
        NodeLocked: unlock the node first.
    """
    name, sender = (offer, "") if isinstance(offer, str) else (f"{offer.share}/{offer.version}", offer.sender_key)
    destination = str(Path(folder).expanduser().absolute()) if folder else ""
    started = client().call(
        Verbs.receive, share=name, sender=sender, destination=destination, rate=rate, priority=priority, lanes=lanes
    )
    info = run(started)
    return Transfer(client(), info, shown_in=displays.attach(client(), info))


def transfers() -> Transfers:
    """All transfers, of both directions."""
    return Transfers(client(), run(client().call(Verbs.transfer_list)))


def audit(*, event: str = "", about: str = "", limit: int = 100) -> Trail:
    """The newest entries of the audit trail; ``event`` is the beginning of an event's name, ``about`` text in an entry.
    ``panel()`` of it is live."""
    found = run(client().call(Verbs.audit_list, event=event, about=about, limit=limit))
    return Trail(client(), found, event=event, about=about, limit=limit)


def compare(a: pandas.DataFrame, b: pandas.DataFrame, *, keys: Sequence[str] = ()) -> Comparison:
    """What differs between two tables: rows added and removed, cells changed, columns, labels and types."""
    from labxchange.content import compare as comparing

    return comparing.compare(a, b, keys=keys)


def fingerprint(table: pandas.DataFrame) -> Fingerprint:
    """A digest of the values of a table, the same in whatever format they are kept."""
    from labxchange.content import fingerprint as values

    return values.fingerprint(table)
