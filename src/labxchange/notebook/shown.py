"""The node's values that a person looks at, with an HTML display: an identity, a receipt, a report. Equal in content to what the
node gave, frozen like it, and escaped where they are shown."""

from __future__ import annotations

from typing import TypeVar

import msgspec

from labxchange.dataset.check import Report
from labxchange.node.values import Me, ReceiptInfo
from labxchange.notebook import cards

T = TypeVar("T", bound=msgspec.Struct)


class ShownMe(Me, frozen=True, kw_only=True):
    """One's own identity."""

    def _repr_html_(self) -> str:
        return cards.me_card(self)


class ShownReceipt(ReceiptInfo, frozen=True, kw_only=True):
    """The signed receipt of a transfer."""

    def _repr_html_(self) -> str:
        return cards.receipt_card(self)


class ShownReport(Report, frozen=True, kw_only=True):
    """The verification report of a transfer."""

    def _repr_html_(self) -> str:
        return cards.report_card(self)


def shown(value: msgspec.Struct, kind: type[T]) -> T:
    """``value`` as ``kind``, which is its class with a display."""
    return kind(**msgspec.structs.asdict(value))
