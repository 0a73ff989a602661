"""What a contact may make this node write: so much at once, and so much each second after.

A verified contact's statements are kept and lead to entries, so without a limit one contact could fill the disk. What it is
measured by is in ``settings``. Refusals are counted apart, by ``denials``.
"""

from __future__ import annotations

from labxchange.errors import RefusedError
from labxchange.node.core import Core
from labxchange.settings import WRITES_BURST, WRITES_PER_SECOND

_STEP_BYTES = 8192


def cost(envelope: bytes) -> int:
    """What a statement counts for."""
    return 1 + len(envelope) // _STEP_BYTES


class Budget:
    """One account for each contact, full at start; kept only while it is not full."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._accounts: dict[str, tuple[float, int]] = {}

    def has(self, key: str) -> bool:
        """True while the contact's account is not empty."""
        return self._left(key) > 0

    def spend(self, key: str, amount: int = 1) -> None:
        """Take from a contact's account; what is begun is finished, so it may go below nothing once.

        Raises:
            RefusedError: ``too-much-at-once``: the account is empty, nothing was taken.
        """
        left = self._left(key)
        if left <= 0:
            raise RefusedError(
                "too-much-at-once",
                "Your node makes this one write too much.",
                hint="It tries again by itself; nothing is lost.",
            )
        self._accounts[key] = (left - amount, self._core.clock.now())

    def _left(self, key: str) -> float:
        left, when = self._accounts.get(key, (float(WRITES_BURST), 0))
        left = min(left + max(self._core.clock.now() - when, 0) / 1000 * WRITES_PER_SECOND, WRITES_BURST)
        if left >= WRITES_BURST:
            self._accounts.pop(key, None)
        return left
