"""The node's values that a person looks at, with an HTML display: an identity, a receipt, which can be saved, a report. Equal in
content to what the node gave, frozen like it, and escaped where they are shown."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import msgspec

from labxchange.dataset.check import Report
from labxchange.dataset.names import escape
from labxchange.files.newfile import new_file
from labxchange.node.client import Client, run
from labxchange.node.values import Me, ReceiptInfo
from labxchange.node.verbs import Verbs
from labxchange.notebook import cards
from labxchange.notebook.text import amount, size

_WRONG = ("differ", "missing", "unexpected", "error", "left_out")
_FOUND_MAX = 20

T = TypeVar("T", bound=msgspec.Struct)


class ShownMe(Me, frozen=True, kw_only=True):
    __doc__ = Me.__doc__

    def __repr__(self) -> str:
        head = ", ".join(part for part in (self.name, self.role, self.organisation) if part)
        words = " ".join(self.words)
        state = "sealed: `labxchange node unlock`" if self.locked else "open"
        return f"{escape(head)}\n  fingerprint  {self.fingerprint}\n  six words    {words}\n  keys         {state}"

    def _repr_html_(self) -> str:
        return cards.me_card(self)


class Receipt(ReceiptInfo, frozen=True, kw_only=True):
    """The signed receipt of a transfer, which can be saved as a page. Its fields are those of ``ReceiptInfo``.

    Example:
        print(received.receipt)
    """

    _client: Client

    def save(self, path: str | Path) -> Path:
        """Write the transfer's best receipt as a page to read, print and keep, into a new file; `labxchange receipt verify`
        checks the page.

        Args:
            path: where the page goes, ``receipt.html`` for example; nothing is overwritten.

        Raises:
            InputError: ``file-exists``, ``not-permitted``.
            NodeLocked: unlock the node first.

        Example:
            received.receipt.save("receipt.html")
        """
        target = Path(path).expanduser().absolute()
        made = run(self._client.call(Verbs.receipt_page, transfer=self.transfer))
        with new_file(target) as out:
            out.write(made.page.encode())
        return target

    def __repr__(self) -> str:
        signed = "signed, countersigned" if self.acknowledged else "signed"
        head = f"receipt of “{escape(self.title)}”: {self.level}, {self.verdict}, {signed}"
        found = [f"  | {escape(line)}" for line in self.findings.split("\n") if self.findings]
        return "\n".join([head, *found])

    def _repr_html_(self) -> str:
        return cards.receipt_card(self)


class ShownReport(Report, frozen=True, kw_only=True):
    __doc__ = Report.__doc__

    def __repr__(self) -> str:
        wrong = [f"{getattr(self, name):,} {name.replace('_', ' ')}" for name in _WRONG if getattr(self, name)]
        found = [f"  {one.kind:<12} {escape(one.path)}" for one in self.findings[:_FOUND_MAX]]
        more = [f"  … and {len(self.findings) - _FOUND_MAX:,} more in findings"] if len(self.findings) > _FOUND_MAX else []
        ran = [f"  checked      {name}" for name in self.checks_run]
        left = [f"  not checked  {item.name}: {item.why}" for item in self.checks_not_run]
        matched = f"{amount(self.matched, 'file')} matched, {size(self.bytes)}"
        return "\n".join([f"{self.verdict}: {', '.join([matched, *wrong])}", *found, *more, *ran, *left])

    def _repr_html_(self) -> str:
        return cards.report_card(self)


def shown(value: msgspec.Struct, kind: type[T]) -> T:
    """``value`` as ``kind``, which is its class with a display."""
    return kind(**msgspec.structs.asdict(value))
