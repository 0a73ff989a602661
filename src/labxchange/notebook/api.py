"""The Python API: ``import labxchange as lx``. Every function starts the node when it is not running, and never asks for a
passphrase: a locked node raises ``NodeLocked`` with a hint."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from datetime import date
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, cast

from labxchange.errors import InputError
from labxchange.node.client import Client, run
from labxchange.node.values import InboxItem
from labxchange.node.verbs import Verbs
from labxchange.notebook import displays
from labxchange.notebook.handles import Transfer
from labxchange.notebook.lists import Contacts, Inbox, Shares, Trail, Transfers
from labxchange.notebook.offering import offer
from labxchange.notebook.share import Share, moment
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
    """Who you are here: name, organisation, fingerprint, six words. Works on a locked node too.

    Raises:
        InputError: ``no-identity``: make one with `labxchange key create`.

    Example:
        lx.me().fingerprint, " ".join(lx.me().words)
    """
    return shown(run(client().call(Verbs.key_show)), ShownMe)


def contacts() -> Contacts:
    """The people you know, and whether you have verified them.

    Raises:
        InputError: ``no-identity``.
        NodeLocked: unlock the node first.

    Example:
        print(lx.contacts())
    """
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
    """Share a folder, files, or a table with one contact or several. Returns at once; the files are read meanwhile.

    What is shared is fixed: a file that changes afterwards is not sent in its new form. A correction is a new version.

    Args:
        what: a folder, a file, several, or a DataFrame, which becomes a Parquet file and needs a title.
        to: name or fingerprint of a contact, or several.
        columns: of one table file or DataFrame, share only these columns; the recipient is told the names of the others.
        rows: of one table file or DataFrame, share only rows that fulfil a condition such as
            ``SITEID == '701' and AGE >= 65``; the recipient is told how many were left out.
        title: what recipients see; empty: the name of the folder or file.
        note: a message to the recipients.
        purpose: what the data may be used for; stands in the grant and in both trails.
        study: files the entry of the trail under a study, for excerpts.
        site: the same, for a site.
        category: the same, for a category.
        expires: ``"30d"``, ``"2026-12-31"``, a date or datetime, or UTC milliseconds; by default in 30 days.
        downloads: how often each recipient may fetch it.
        new_version_of: an own share, or its id or title.

    Raises:
        InputError: ``contact-unknown``, ``contact-blocked``, ``no-recipients``, ``path-missing``, ``nothing-to-share``,
            ``title-needed``, ``time-malformed``, ``terms-malformed``, ``share-unknown``, ``subset-of-one``, ``table-unknown``,
            ``column-unknown``, ``rows-refused``; nothing was shared.
        NodeLocked: unlock the node first.

    Example:
        shared = lx.share("results", to="Ben Okafor", title="Interim tables", study="AB-101", expires="30d")
        part = lx.share("results/adsl.csv", to="Ben Okafor", columns=["USUBJID", "AGE"], rows="AGE >= 65", title="Elderly")
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
        not_after=moment(expires),
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


def shares() -> Shares:
    """Your shares, with the state of each recipient; ``panel()`` of it is a form to share with.

    Raises:
        NodeLocked: unlock the node first.

    Example:
        print(lx.shares())
    """
    return Shares(client(), run(client().call(Verbs.share_list)))


def inbox() -> Inbox:
    """What others offer you; ``panel()`` of it is live.

    Raises:
        NodeLocked: unlock the node first.

    Example:
        print(lx.inbox())
    """
    return Inbox(client(), run(client().call(Verbs.inbox_list)))


def receive(
    offer: str | InboxItem, *, folder: str | Path = "", rate: int = 0, priority: str = "normal", lanes: int = 0
) -> Transfer:
    """Receive an offered share, or go on with it. Returns at once: the transfer runs in the node, and shows itself.

    ``load("adsl.xpt")`` on the result waits for the end and gives a table; ``wait()`` only waits.

    Args:
        offer: title or id of the share, or an item of ``inbox()``.
        folder: where the files go; by default a folder of their own in the node's inbox.
        rate: no faster than this, bytes a second; 0: no limit. ``limit()`` on the result changes it while it runs.
        priority: "low", "normal" or "high", among the transfers of this node.
        lanes: over how many lanes, 1 to 16; 0: the node's choice.

    Raises:
        InputError: ``offer-unknown``, ``offer-ambiguous``, ``contact-unverified``, ``already-received``,
            ``destination-unusable``, ``rate-too-low``, ``priority-unknown``, ``lanes-count``.
        NodeLocked: unlock the node first.

    Example:
        received = lx.receive("Phase I tables")
        adsl = received.load("adsl.csv")
    """
    name, sender = (offer, "") if isinstance(offer, str) else (f"{offer.share}/{offer.version}", offer.sender_key)
    destination = str(Path(folder).expanduser().absolute()) if folder else ""
    started = client().call(
        Verbs.receive, share=name, sender=sender, destination=destination, rate=rate, priority=priority, lanes=lanes
    )
    info = run(started)
    return Transfer(client(), info, shown_in=displays.attach(client(), info))


def transfers() -> Transfers:
    """All transfers, of both directions, oldest first; also those that another notebook or a terminal began.

    Raises:
        NodeLocked: unlock the node first.

    Example:
        print(lx.transfers())
    """
    return Transfers(client(), run(client().call(Verbs.transfer_list)))


def audit(*, event: str = "", about: str = "", limit: int = 100) -> Trail:
    """The newest entries of your audit trail. Looking is an entry of the trail itself.

    Args:
        event: the beginning of an event's name, such as ``transfer`` or ``share.revoked``; empty: all.
        about: text that stands in an entry, such as a title or a name; empty: all.
        limit: how many at most, 1 to 100,000.

    Raises:
        InputError: ``limit-malformed``.
        NodeLocked: unlock the node first.

    Example:
        print(lx.audit(event="transfer", limit=10))
    """
    found = run(client().call(Verbs.audit_list, event=event, about=about, limit=limit))
    return Trail(client(), found, event=event, about=about, limit=limit)


def compare(a: pandas.DataFrame, b: pandas.DataFrame, *, keys: Sequence[str] = ()) -> Comparison:
    """What differs from one table to another: rows added and removed, cells changed, columns, labels and types.

    Values count, not how a format stores them: the same table as XPT and as Parquet has no difference.

    Args:
        keys: columns that identify a row; empty: guessed (USUBJID with --SEQ, PARAMCD, AVISITN …), else rows match by place.

    Raises:
        InputError: ``column-unknown``, ``keys-not-unique``, ``value-unknown``.

    Example:
        lx.compare(adsl, adsl.assign(AGE=adsl["AGE"] + 1)).cells_changed
    """
    from labxchange.content import compare as comparing

    return comparing.compare(a, b, keys=keys)


def fingerprint(table: pandas.DataFrame) -> Fingerprint:
    """A digest of the values of a table, the same in whatever format they are kept. Labels, formats and the index do not count.

    Raises:
        InputError: ``value-unknown`` when a cell holds what no table file can hold.

    Example:
        lx.fingerprint(adsl).value
    """
    from labxchange.content import fingerprint as values

    return values.fingerprint(table)
