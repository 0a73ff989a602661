"""Offering data to contacts, whole or in part: what ``lx.share`` and the share form both do, so that they cannot differ.

A part of a table is made by ``node.exposing``, which also says what it lacks; whether something may be shared is the node's to
judge.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from labxchange.node.client import Client, run
from labxchange.node.values import ShareInfo
from labxchange.node.verbs import Verbs

if TYPE_CHECKING:
    import pandas


def offer(
    client: Client,
    what: Sequence[Path] | pandas.DataFrame,
    *,
    to: Sequence[str],
    columns: Sequence[str] | None = None,
    rows: str | None = None,
    share: str = "",
    title: str = "",
    note: str = "",
    purpose: str = "",
    study: str = "",
    site: str = "",
    category: str = "",
    not_after: int = 0,
    downloads: int = 3,
) -> ShareInfo:
    """Share files by their whole paths, or a table, on the terms of ``Verbs.share_create``. It blocks: not on the client's loop.

    Raises:
        LabxchangeError: of ``node.exposing.exposed`` and ``Verbs.share_create``; nothing was shared.
    """
    from labxchange.node.exposing import exposed

    name = "".join(letter if letter.isalnum() or letter in "-_ " else "-" for letter in title[:60]).strip() or "table"
    with exposed(what, columns=columns, rows=rows, name=name, home=client.home) as (given, withheld):
        made = client.call(
            Verbs.share_create,
            paths=[str(path) for path in given],
            to=list(to),
            share=share,
            title=title,
            note=note,
            purpose=purpose,
            study=study,
            site=site,
            category=category,
            not_after=not_after,
            downloads=downloads,
            withheld=withheld,
        )
        return run(made)
