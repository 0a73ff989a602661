"""Sharing by a form: what, with whom, until when, how often, and in plain words what will happen before it does.

- Nothing is signed until the button is pressed, and it cannot be pressed before what is chosen now was explained.
- Until then only names, sizes and the header of a table are read, and its rows where there is a condition for them; all of it
  beside the kernel's main thread and the client's loop.
- What is done is what ``lx.share`` does (``offering``).

Choosing a part of a table is left to ``table_part``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

from labxchange import times
from labxchange.errors import LabxchangeError
from labxchange.node.client import Client
from labxchange.node.datasets import DatasetShown, show_dataset
from labxchange.node.exposing import exposed_folder
from labxchange.node.values import ContactInfo, ShareInfo
from labxchange.node.verbs import Verbs
from labxchange.notebook import cards, html
from labxchange.notebook.cells import dispose
from labxchange.notebook.offering import offer
from labxchange.notebook.panels import Panel
from labxchange.notebook.table_part import SEVERAL, Part, TablePart, explained
from labxchange.notebook.text import amount, second, shorten, size, when
from labxchange.notebook.watching import watcher

_DAYS = (("1 day", 1), ("7 days", 7), ("30 days", 30), ("90 days", 90), ("1 year", 365))
_DAY_MS = 86_400_000
_LISTED = 2000
_WIDE, _HALF = "560px", "278px"
"""Widths of a field with its name, and of two in a row; each has a margin of 2 pixels."""
_INDENT, _FIELD = "100px", "460px"
"""Where a field begins after its name, and how wide it is."""
_HEAD = "What will happen"


class ShareForm(Panel):
    """Share files of a folder, or a part of a table, with contacts, by a form; ``close()`` ends it.

    Example:
        lx.shares().panel("results").close()
    """

    title = "Share"

    def __init__(self, client: Client, *, folder: str = ".") -> None:
        super().__init__(client, "contact")
        w = self.widgets
        self._contacts: list[ContactInfo] = []
        self._turns, self._turn, self._explained = count(1), 0, 0
        start = str(Path(folder).expanduser().absolute())
        self._folder = w.Text(start, description="Folder", continuous_update=False, **self._field())
        self._files = w.SelectMultiple(description="Files", rows=6, **self._field())
        self._part = TablePart(w, field=self._field, hint=self._hint, changed=self._changed)
        self._people = w.SelectMultiple(description="Recipients", rows=2, **self._field())
        self._title = w.Text(description="Title", placeholder="what recipients see", **self._field())
        self._purpose = w.Text(description="Purpose", placeholder="what the data may be used for", **self._field())
        self._days = w.Dropdown(options=_DAYS, value=30, description="Available", **self._field(_HALF))
        self._downloads = w.BoundedIntText(3, min=1, max=1000, description="Downloads", **self._field(_HALF))
        self._told = w.HTML()
        self._share = self.button("Share", tip="Sign and offer it as said above", icon="check", style="primary")
        self._share.disabled = True
        self._share.on_click(lambda _: self._press())
        self._result = w.HTML()
        for field in (self._files, self._people, self._days, self._downloads):
            field.observe(lambda _: self._changed(), "value")
        self._folder.observe(lambda _: self.ask(self._look()), "value")
        terms = w.HBox([self._days, self._downloads], layout=w.Layout(flex_flow="row wrap"))
        files_hint = self._hint(f"None chosen: the whole folder. {SEVERAL}")
        fields = [self._folder, self._files, files_hint, self._part.box, self._people, self._title, self._purpose, terms]
        self.box.children = [*fields, self._told, self._share, self.remark, self._result]
        self.ask(self._look())
        self.start()

    def _field(self, width: str = _WIDE) -> dict[str, Any]:
        return {"layout": self.widgets.Layout(width=width), "style": {"description_width": "90px"}}

    def _hint(self, sentence: str) -> Any:
        layout = self.widgets.Layout(width=_FIELD, margin=f"-3px 0 5px {_INDENT}")
        return self.widgets.HTML(html.hint(sentence), layout=layout)

    def close(self) -> None:
        super().close()
        for widget in self._part.every_widget():
            dispose(widget)

    async def load(self, client: Client) -> None:
        found = await client.call(Verbs.contact_list)
        if found == self._contacts:
            return
        self._contacts = found
        kept = set(self._people.value)
        options = [(_person(item), item.key) for item in found if item.state == "verified"]
        self._people.options = options
        self._people.rows = max(2, min(6, len(options)))
        self._people.value = tuple(key for _, key in options if key in kept)
        self._changed()

    async def _look(self) -> None:
        folder = Path(self._folder.value).expanduser()
        names = await asyncio.to_thread(_names, folder)
        self._files.options = [(shorten(name), name) for name in names]
        self._changed()

    def _changed(self) -> None:
        """Something else is chosen: nothing is signed before that was explained. From any thread."""
        self._share.disabled = True
        self._turn = next(self._turns)
        self.ask(self._explain(self._turn))

    def _paths(self) -> list[Path]:
        """What is chosen; the whole folder where nothing is."""
        folder = Path(self._folder.value).expanduser().absolute()
        return [folder / name for name in self._files.value] or [folder]

    async def _explain(self, turn: int) -> None:
        """Say what the button will do; it can be pressed when all is there and nothing else was chosen meanwhile."""
        people = [item for item in self._contacts if item.key in self._people.value]
        paths = self._paths()
        try:
            await self._part.follow(paths)
            found = await asyncio.to_thread(show_dataset, paths)
            part = self._part.chosen()
            if part is not None and part.rows and turn == self._turn:
                self._told.value = html.card(_HEAD, html.mark("Counting the rows…", "busy"))
            what, lines = await self._what(found, part)
        except LabxchangeError as error:
            if turn == self._turn:
                self._told.value = html.card(_HEAD, html.mark(error.message, "warn"), html.faint(html.text(error.hint)))
            return
        if turn == self._turn:
            self._title.placeholder = (part.look.part_name if part else paths[0].name) or "what recipients see"
            terms = _terms(until=self._until(), downloads=self._downloads.value, skipped=len(found.skipped))
            self._told.value = html.card(_HEAD, _whom(what, people), *lines, *terms)
            self._explained = turn
            self._share.disabled = not (people and found.files)

    async def _what(self, found: DatasetShown, part: Part | None) -> tuple[str, list[str]]:
        """What will be offered, in a few words, and what there is to know of it."""
        if part is not None:
            return explained(part, await self._part.counted(part), folder=exposed_folder(self.client.home))
        held, names = f"{amount(found.files, 'file')}, {size(found.bytes)}", self._files.value
        if len(names) == 1:
            return f"{shorten(names[0])}: {held}", []
        return held if names else f"{held}, the whole folder", []

    def _until(self) -> int:
        return times.now_ms() + int(self._days.value) * _DAY_MS

    def _press(self) -> None:
        if self._share.disabled or self._explained != self._turn:  # the page may not know yet that something else was chosen
            return
        self._share.disabled = True
        self.say("")
        part = self._part.chosen()
        chosen = partial(
            offer,
            self.client,
            self._paths(),
            to=list(self._people.value),
            columns=part.columns if part else None,
            rows=part.rows if part else None,
            title=self._title.value.strip(),
            purpose=self._purpose.value.strip(),
            not_after=self._until(),
            downloads=int(self._downloads.value),
        )
        self.ask(self._make(chosen, self._turn))

    async def _make(self, chosen: Callable[[], ShareInfo], turn: int) -> str:
        try:
            made = await asyncio.to_thread(chosen)
        except BaseException:
            self._changed()
            raise
        self._result.value = _card(made)
        if turn == self._turn:  # nothing more will happen before something else is chosen
            self._told.value = ""
        made = await watcher(self.client).client.call(Verbs.share_hashed, share=f"{made.share}/{made.version}")
        self._result.value = _card(made)
        return "Shared. lx.shares() shows what becomes of it."


def _card(made: ShareInfo) -> str:
    return cards.share_card(made, as_of=second(times.now_ms()))


def _names(folder: Path) -> list[str]:
    """What lies in a folder, first files and folders by name; nothing of what cannot be looked at."""
    try:
        found = sorted((path.is_file(), path.name) for path in folder.iterdir() if not path.name.startswith("."))
    except OSError:
        return []
    return [name for _, name in found[:_LISTED]]


def _person(item: ContactInfo) -> str:
    return shorten(f"{item.name}, {item.organisation}" if item.organisation else item.name)


def _whom(what: str, people: Sequence[ContactInfo]) -> str:
    names = ", ".join(_person(item) for item in people)
    whom = f"<strong>{html.text(names)}</strong>." if people else "nobody yet: choose recipients (verified contacts are listed)."
    return f"<strong>{html.text(what)}</strong> will be offered to {whom}"


def _terms(*, until: int, downloads: int, skipped: int) -> list[str]:
    lines = [
        f"They can fetch it until {when(until)}, each at most {amount(downloads, 'time')}. You can end that at any time before.",
        "Your node reads every file and signs its digests with your key: recipients see that it is from you and unchanged.",
        "The offer and every download become entries of your audit trail, and of theirs.",
        "What somebody has received stays with them: revoking ends what is still to come, and no more.",
    ]
    if skipped:
        lines.append(html.mark(f"{amount(skipped, 'link or special file')} will not be shared.", "warn"))
    return lines
