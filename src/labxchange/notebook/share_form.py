"""Sharing by a form: what, with whom, until when, how often, and in plain words what will happen before it does.

Nothing is read but names and sizes, and nothing is signed, until the button is pressed; what the form says is what the node will
be asked for. The folder is looked through beside the kernel's main thread.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from labxchange import times
from labxchange.errors import LabxchangeError
from labxchange.node.client import Client
from labxchange.node.datasets import show_dataset
from labxchange.node.values import ContactInfo, ShareInfo
from labxchange.node.verbs import Verbs
from labxchange.notebook import cards, html
from labxchange.notebook.panels import Panel
from labxchange.notebook.text import amount, second, shorten, size, when
from labxchange.notebook.watching import watcher

_DAYS = (("1 day", 1), ("7 days", 7), ("30 days", 30), ("90 days", 90), ("1 year", 365))
_DAY_MS = 86_400_000
_LISTED = 2000


class ShareForm(Panel):
    """Share files of a folder with contacts."""

    title = "Share"

    def __init__(self, client: Client, *, folder: str = ".") -> None:
        super().__init__(client, "contact")
        w = self.widgets
        wide, style = w.Layout(width="560px"), {"description_width": "90px"}
        self._contacts: list[ContactInfo] = []
        start = str(Path(folder).expanduser().absolute())
        self._folder = w.Text(start, description="Folder", continuous_update=False, layout=wide, style=style)
        self._files = w.SelectMultiple(description="Files", rows=6, layout=wide, style=style)
        self._people = w.SelectMultiple(description="Recipients", rows=4, layout=wide, style=style)
        self._title = w.Text(description="Title", placeholder="what recipients see", layout=wide, style=style)
        self._purpose = w.Text(description="Purpose", placeholder="what the data may be used for", layout=wide, style=style)
        self._days = w.Dropdown(options=_DAYS, value=30, description="Available", style=style)
        self._downloads = w.BoundedIntText(3, min=1, max=1000, description="Downloads", style=style)
        self._told = w.HTML()
        self._share = self.button("Share", tip="Sign and offer it as said above", icon="check", style="primary")
        self._share.disabled = True
        self._share.on_click(lambda _: self._press())
        self._result = w.HTML()
        chosen = (self._files, self._people, self._days, self._downloads, self._title)
        for field in chosen:
            field.observe(lambda _: self._later(self._explain()), "value")
        self._folder.observe(lambda _: self._later(self._look()), "value")
        terms = w.HBox([self._days, self._downloads], layout=w.Layout(flex_flow="row wrap"))
        fields = [self._folder, self._files, self._people, self._title, self._purpose, terms]
        self.box.children = [*fields, self._told, self._share, self.remark, self._result]
        self._later(self._look())
        self.start()

    async def load(self, client: Client) -> None:
        found = await client.call(Verbs.contact_list)
        if found == self._contacts:
            return
        self._contacts = found
        kept = set(self._people.value)
        options = [(_person(item), item.key) for item in found if item.state == "verified"]
        self._people.options = options
        self._people.value = tuple(key for _, key in options if key in kept)
        await self._explain()

    def _later(self, work: Any) -> None:
        self.ask(_quietly(work))

    async def _look(self) -> None:
        folder = Path(self._folder.value).expanduser()
        names = await asyncio.to_thread(_names, folder)
        self._files.options = [(shorten(name), name) for name in names]
        self._title.placeholder = folder.name or "what recipients see"
        await self._explain()

    def _paths(self) -> list[Path]:
        """What is chosen; the whole folder where nothing is."""
        folder = Path(self._folder.value).expanduser().absolute()
        return [folder / name for name in self._files.value] or [folder]

    async def _explain(self) -> None:
        """Say what the button will do; it can be pressed when all is there."""
        people = [item for item in self._contacts if item.key in self._people.value]
        paths = self._paths()
        try:
            found = await asyncio.to_thread(show_dataset, paths)
        except LabxchangeError as error:
            self._share.disabled = True
            self._told.value = html.card("What will happen", html.mark(error.message, "warn"))
            return
        what = f"{amount(found.files, 'file')}, {size(found.bytes)}" + ("" if self._files.value else ", the whole folder")
        self._share.disabled = not (people and found.files)
        lines = _explained(what, people, until=self._until(), downloads=self._downloads.value, skipped=len(found.skipped))
        self._told.value = html.card("What will happen", *lines)

    def _until(self) -> int:
        return times.now_ms() + int(self._days.value) * _DAY_MS

    def _press(self) -> None:
        self._share.disabled = True
        self.ask(self._make())

    async def _make(self) -> str:
        try:
            made = await self.client.call(
                Verbs.share_create,
                paths=[str(path) for path in self._paths()],
                to=list(self._people.value),
                title=self._title.value.strip(),
                purpose=self._purpose.value.strip(),
                not_after=self._until(),
                downloads=int(self._downloads.value),
            )
            self._result.value = _card(made)
            made = await watcher(self.client).client.call(Verbs.share_hashed, share=f"{made.share}/{made.version}")
            self._result.value = _card(made)
        finally:
            self._share.disabled = False
        return "Shared. lx.shares() shows what becomes of it."


def _card(made: ShareInfo) -> str:
    return cards.share_card(made, as_of=second(times.now_ms()))


async def _quietly(work: Any) -> str:
    await work
    return ""


def _names(folder: Path) -> list[str]:
    """What lies in a folder, first files and folders by name; nothing of what cannot be looked at."""
    try:
        found = sorted((path.is_file(), path.name) for path in folder.iterdir() if not path.name.startswith("."))
    except OSError:
        return []
    return [name for _, name in found[:_LISTED]]


def _person(item: ContactInfo) -> str:
    return shorten(f"{item.name}, {item.organisation}" if item.organisation else item.name)


def _explained(what: str, people: Sequence[ContactInfo], *, until: int, downloads: int, skipped: int) -> list[str]:
    names = ", ".join(_person(item) for item in people)
    lines = [
        f"<strong>{html.text(what)}</strong> will be offered to "
        + (
            f"<strong>{html.text(names)}</strong>." if people else "nobody yet: choose recipients (verified contacts are listed)."
        ),
        html.text(
            f"They can fetch it until {when(until)}, each at most {downloads:,} times. You can end that at any time before."
        ),
        "Your node reads every file and signs its digests with your key: recipients see that it is from you and unchanged.",
        "The offer and every download become entries of your audit trail, and of theirs.",
        "What somebody has received stays with them: revoking ends what is still to come, and no more.",
    ]
    if skipped:
        lines.append(html.mark(f"{amount(skipped, 'link or special file')} will not be shared.", "warn"))
    return lines
