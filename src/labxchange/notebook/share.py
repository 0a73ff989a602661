"""An own share version, as the Python API returns it: what became of it now, and how its grants are changed and ended."""

from __future__ import annotations

from datetime import date

from labxchange import times
from labxchange.dataset.names import escape
from labxchange.node.client import Client, run
from labxchange.node.values import ShareInfo
from labxchange.node.verbs import Verbs
from labxchange.notebook import cards, cells
from labxchange.notebook.text import amount, second, size, table, when


class Share:
    """One version of something that you share. As the last line of a cell it shows who has it.

    Example:
        shared = lx.share("results", to="Ben Okafor", title="Interim tables")
        print(shared)
    """

    def __init__(self, client: Client, info: ShareInfo, *, shown_in: int | None = None) -> None:
        self._client = client
        self._name = f"{info.share}/{info.version}"
        self._shown_in = shown_in

    @property
    def id(self) -> str:
        """The share's id and version, as every command takes them.

        Example:
            shared.id
        """
        return self._name

    @property
    def status(self) -> ShareInfo:
        """Its state now, with “did they get it?” for each recipient.

        Raises:
            NodeLocked: unlock the node first.

        Example:
            [(one.name, one.state) for one in shared.status.recipients]
        """
        return run(self._client.call(Verbs.share_status, share=self._name))

    def wait_hashed(self) -> Share:
        """Wait until every file is read and the manifest is signed. Nobody has to: recipients can fetch before that.

        Raises:
            NodeLocked: unlock the node first.

        Example:
            shared.wait_hashed().status.root
        """
        run(self._client.call(Verbs.share_hashed, share=self._name))
        return self

    def extend(self, *, until: str | int | date, contact: str = "", reason: str = "") -> Share:
        """Move the end of the grants, later or earlier.

        Args:
            until: ``"30d"`` from now, ``"2026-12-31"``, a date or datetime, or UTC milliseconds.
            contact: for this recipient only; empty: for all.
            reason: stands in your audit trail.

        Raises:
            InputError: ``grant-none``, ``grant-end-in-past``, ``contact-unknown``, ``time-malformed``; nothing was changed.
            NodeLocked: unlock the node first.

        Example:
            shared.extend(until="60d", reason="the analysis takes longer")
        """
        run(self._client.call(Verbs.share_extend, share=self._name, until=moment(until), contact=contact, reason=reason))
        return self

    def revoke(self, *, contact: str = "", reason: str = "") -> Share:
        """End the grants at once, also in the middle of a transfer. What somebody has received stays with them.

        Args:
            contact: for this recipient only; empty: for all.
            reason: stands in your audit trail.

        Raises:
            InputError: ``grant-none``, ``contact-unknown``; nothing was changed.
            NodeLocked: unlock the node first.

        Example:
            shared.revoke(reason="replaced by the final tables")
        """
        run(self._client.call(Verbs.share_revoke, share=self._name, contact=contact, reason=reason))
        return self

    def __repr__(self) -> str:
        info = self.status
        head = (
            f"share “{escape(info.title)}” version {info.version}: {info.state}, {amount(info.files, 'file')}, {size(info.bytes)}"
        )
        rows = [(item.name, item.state, size(item.done_bytes), when(item.not_after)) for item in info.recipients]
        return head + "\n" + table(("recipient", "state", "arrived", "until"), rows, empty="no recipients")

    def _repr_html_(self) -> str:
        return cards.share_card(self.status, as_of=second(times.now_ms()))

    def _ipython_display_(self) -> None:
        """As the result of a cell: the card of now, recipients named, because somebody asked for it."""
        if self._shown_in is None or self._shown_in != cells.cell():
            raise NotImplementedError  # IPython goes on with the other forms


def moment(until: str | int | date) -> int:
    """UTC milliseconds; 0 stays 0."""
    if isinstance(until, int):
        return until
    return times.parse_moment(until if isinstance(until, str) else until.isoformat(), now=times.now_ms())
