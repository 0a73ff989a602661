"""labxchange: share, receive and verify datasets between organisations, machine to machine, with a tamper-evident audit trail.

The order in which data flows is the order of the packages: identity -> dataset -> sharing -> wire -> net -> files, told to audit,
kept in store; transfer moves it, node runs it, cli / notebook show it.

    import labxchange as lx
    lx.inbox()
    received = lx.receive("Phase I tables").wait()

The names below are loaded when they are first used, so importing the package costs next to nothing.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING

from labxchange.settings import VERSION

if TYPE_CHECKING:
    from labxchange.errors import LabxchangeError, NodeLocked
    from labxchange.notebook.api import audit, compare, contacts, fingerprint, inbox, me, receive, share, shares, transfers

__version__ = VERSION

_HOMES = dict.fromkeys(
    ("audit", "compare", "contacts", "fingerprint", "inbox", "me", "receive", "share", "shares", "transfers"),
    "labxchange.notebook.api",
) | dict.fromkeys(("LabxchangeError", "NodeLocked"), "labxchange.errors")

__all__ = [
    "LabxchangeError",
    "NodeLocked",
    "__version__",
    "audit",
    "compare",
    "contacts",
    "fingerprint",
    "inbox",
    "me",
    "receive",
    "share",
    "shares",
    "transfers",
]


class _Package(ModuleType):
    """``audit`` is a function here and a package below: importing the one must not hide the other. Modules of the package are
    imported as ``from labxchange.audit.verifier import ...``, which asks this for nothing."""

    def __setattr__(self, name: str, value: object) -> None:
        if not (name in _HOMES and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'labxchange' has no attribute {name!r}")
    return getattr(import_module(home), name)


def __dir__() -> list[str]:
    return list(__all__)
