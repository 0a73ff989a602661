"""The outputs of cells: what can be shown in one, how it is replaced, and what must be closed once nobody can see it.

ipywidgets keeps every widget, in the kernel and in the page, until it is closed. So what is made is also closed here: a widget
with all that it brought along (``dispose``), and what an earlier run of a cell showed, whose output is gone (``keep``).
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Any, Protocol

from labxchange.errors import UnavailableError

_WIDGET = "application/vnd.jupyter.widget-view+json"


class Live(Protocol):
    """Something shown that is kept true until it is closed; closing twice is harmless."""

    def close(self) -> None: ...


_shown: dict[str, tuple[int, list[Live]]] = {}
"""Id of a cell -> the number of its last run that showed something live, and what."""


def _shell() -> Any:
    """IPython's, where there is a kernel whose front end can show HTML; else None."""
    if "IPython" not in sys.modules:
        return None
    from IPython.core.getipython import get_ipython

    shell = get_ipython()
    return shell if getattr(shell, "kernel", None) is not None else None


def cell() -> int | None:
    """The number of the cell that runs; None where nothing can be shown."""
    shell = _shell()
    return None if shell is None else int(shell.execution_count)


def cell_id() -> str:
    """Which cell runs, the same in each of its runs; empty where the front end does not say."""
    shell = _shell()
    about = shell.get_parent().get("metadata", {}) if hasattr(shell, "get_parent") else {}
    return str(about.get("cellId") or "")


def keep(live: Live) -> None:
    """The cell that runs shows ``live``. What an earlier run of it showed of this class is closed, unless another shows it."""
    place, number = cell_id(), cell()
    if not place or number is None:
        return
    before, lives = _shown.get(place, (number, []))
    if before == number:
        _shown[place] = (number, [*lives, *([live] if live not in lives else [])])
        return
    _shown[place] = (number, [live, *(one for one in lives if type(one) is not type(live))])
    shown = [one for _, some in _shown.values() for one in some]
    for one in lives:
        if one not in shown:
            one.close()


def dispose(widget: Any) -> None:
    """Close a widget, what it holds, and the layouts and styles that came with them; ipywidgets closes only the one."""
    for part in (*getattr(widget, "children", ()), *(getattr(widget, name, None) for name in ("layout", "style"))):
        if part is not None:
            dispose(part)
    widget.close()


def toolkit() -> Any:
    """ipywidgets.

    Raises:
        UnavailableError: ``widgets-missing``.
    """
    try:
        return import_module("ipywidgets")
    except ImportError:
        hint = "Install it with the rest: pip install 'labxchange[notebook]'."
        raise UnavailableError("widgets-missing", "ipywidgets, which draws this, is not installed.", hint=hint) from None


def publish(forms: dict[str, Any]) -> Any:
    """Display these forms of one thing, MIME type -> content; the handle with which they are replaced later."""
    display: Any = import_module("IPython.display").display
    return display(forms, raw=True, display_id=True)


def static(markup: str, line: str) -> dict[str, Any]:
    """The forms of HTML that stays, with a line of text for what cannot show it."""
    return {"text/html": markup, "text/plain": line}


def living(box: Any, line: str) -> dict[str, Any]:
    """The forms of a widget: its own text form would carry its contents, names included, into the saved notebook."""
    return {_WIDGET: box._repr_mimebundle_()[_WIDGET], "text/plain": line}
