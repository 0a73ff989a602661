"""The Python API: ``import labxchange as lx``. Every function starts the node when it is not running, and never asks for a
passphrase: a locked node raises ``NodeLocked`` with a hint."""

from __future__ import annotations

import os
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from labxchange.node.client import Client, run
from labxchange.node.values import ContactInfo, EntryInfo, InboxItem, Me
from labxchange.node.verbs import Verbs
from labxchange.notebook.handles import Listed, Share, Transfer
from labxchange.notebook.text import size, when


@cache
def _client(home: str) -> Client:
    return Client()


def client() -> Client:
    """The client for the node of ``LABXCHANGE_HOME``."""
    return _client(os.environ.get("LABXCHANGE_HOME", ""))


def me() -> Me:
    """Who you are here: name, fingerprint, six words. Raises InputError ``no-identity``."""
    return run(client().call(Verbs.key_show))


def contacts() -> Listed[ContactInfo]:
    """The people you know, and whether you have verified them."""
    found = run(client().call(Verbs.contact_list))
    rows = [(item.name, item.organisation, item.state, "yes" if item.connected else "no", item.alert) for item in found]
    return Listed(found, ("name", "organisation", "state", "connected", "alert"), rows, empty="no contacts yet")


def share(
    paths: str | Path | Iterable[str | Path],
    to: str | Iterable[str],
    *,
    title: str = "",
    purpose: str = "",
    study: str = "",
    site: str = "",
    category: str = "",
    expires: int = 0,
    downloads: int = 3,
    new_version_of: str = "",
) -> Share:
    """Share files or a folder with contacts.

    Args:
        paths: a folder, a file, or several.
        to: name or fingerprint of a contact, or several.
        expires: UTC milliseconds; 0: in 30 days.
        new_version_of: id or title of an own share.

    Raises:
        InputError: ``contact-unknown``, ``nothing-to-share`` and others; nothing was shared.
        NodeLocked: unlock the node first.
    """
    given = [paths] if isinstance(paths, str | Path) else list(paths)
    people = [to] if isinstance(to, str) else list(to)
    absolute = [str(Path(path).expanduser().absolute()) for path in given]
    made = run(
        client().call(
            Verbs.share_create,
            paths=absolute,
            to=people,
            share=new_version_of,
            title=title,
            purpose=purpose,
            study=study,
            site=site,
            category=category,
            not_after=expires,
            downloads=downloads,
        )
    )
    return Share(client(), made)


def shares() -> Listed[Share]:
    """Your shares, with the state of each."""
    found = run(client().call(Verbs.share_list))
    rows = [
        (
            item.title,
            item.version,
            item.state,
            item.files,
            size(item.bytes),
            ", ".join(f"{one.name}: {one.state}" for one in item.recipients),
        )
        for item in found
    ]
    heads = ("title", "version", "state", "files", "size", "recipients")
    return Listed([Share(client(), item) for item in found], heads, rows, empty="no shares yet")


def inbox() -> Listed[InboxItem]:
    """What others offer you."""
    found = run(client().call(Verbs.inbox_list))
    rows = [
        (item.title, item.version, item.sender, item.state, item.files, size(item.bytes), when(item.not_after)) for item in found
    ]
    heads = ("title", "version", "from", "state", "files", "size", "until")
    return Listed(found, heads, rows, empty="nothing is offered")


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
    return Transfer(client(), run(started))


def transfers() -> Listed[Transfer]:
    """All transfers, of both directions."""
    found = run(client().call(Verbs.transfer_list))
    rows = [
        (item.title, item.direction, item.peer, item.state, f"{size(item.done_bytes)} of {size(item.bytes)}") for item in found
    ]
    heads = ("title", "direction", "with", "state", "arrived")
    return Listed([Transfer(client(), item) for item in found], heads, rows, empty="no transfers yet")


def audit(*, event: str = "", about: str = "", limit: int = 100) -> Listed[EntryInfo]:
    """The newest entries of the audit trail; ``event`` is the beginning of an event's name, ``about`` text in an entry."""
    found = run(client().call(Verbs.audit_list, event=event, about=about, limit=limit))
    rows = [
        (
            item.seq,
            when(item.utc),
            item.event,
            item.result,
            item.fields.get("person", ""),
            item.fields.get("counterparty_name", ""),
        )
        for item in found
    ]
    return Listed(found, ("seq", "when", "event", "result", "who", "with"), rows, empty="no entries")
