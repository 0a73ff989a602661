"""The audit trail as a panel: the newest entries, a filter by event and by text, and export of the whole trail to a file.

Looking at the trail is an entry of it. So the panel looks when somebody asks for it, and meanwhile says only by how much the
trail has grown.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from labxchange.node.client import Client
from labxchange.node.verbs import Verbs
from labxchange.notebook import html
from labxchange.notebook.lists import TRAIL_HEADS, trail_row
from labxchange.notebook.panels import Panel
from labxchange.notebook.text import amount, size

_FORMS = (("evidence for a reviewer (.labxtrail)", "bundle"), ("table (.csv)", "csv"), ("lines (.jsonl)", "jsonl"))
_ENDINGS = {"bundle": ".labxtrail", "csv": ".csv", "jsonl": ".jsonl"}
_WIDE = "340px"


class TrailPanel(Panel):
    """Entries, newest first, and how many came since, with a filter and export; ``close()`` ends it.

    Example:
        lx.audit().panel().close()
    """

    title = "Audit trail"

    def __init__(self, client: Client, *, event: str, about: str, limit: int) -> None:
        super().__init__(client, "trail")
        self._limit = limit
        self._seen = 0
        w = self.widgets
        look: dict[str, Any] = {"layout": w.Layout(width=_WIDE), "style": {"description_width": "60px"}}
        self._event = w.Text(event, description="Event", placeholder="e.g. transfer", continuous_update=False, **look)
        self._about = w.Text(about, description="Text", placeholder="in an entry", continuous_update=False, **look)
        for box in (self._event, self._about):
            box.observe(lambda _: self.ask(self._look()), "value")
        self._form = w.Dropdown(options=_FORMS, description="Export", **look)
        self._path = w.Text(description="File", value="trail.labxtrail", **look)
        self._form.observe(lambda _: self._rename(), "value")
        self._export = self.button("Export", tip="Write the whole trail to this file, which must not exist", icon="save")
        self._export.on_click(lambda _: self.ask(self._write(self._path.value, self._form.value)))
        self._again = self.button("Look again", tip="Show the newest entries; looking is an entry too", icon="refresh")
        self._again.on_click(lambda _: self.ask(self._look()))
        self._since = w.HTML()
        self._table = w.HTML()
        rows = w.Box([self._table], layout=w.Layout(max_height="420px", overflow="auto"))
        filters = w.HBox([self._event, self._about, self._again], layout=w.Layout(flex_flow="row wrap"))
        export = w.HBox([self._form, self._path, self._export], layout=w.Layout(flex_flow="row wrap"))
        self.box.children = [filters, rows, self._since, export, self.remark]
        self.ask(self._look())
        self.start()

    async def load(self, client: Client) -> None:
        grown = (await client.call(Verbs.status)).trail_size - self._seen if self._seen else 0
        told = f"{amount(grown, 'entry')} more since; look again to see them." if grown > 0 else ""
        self._since.value = html.faint(html.text(told)) if told else ""

    async def _look(self) -> str:
        found = await self.client.call(
            Verbs.audit_list, event=self._event.value.strip(), about=self._about.value.strip(), limit=self._limit
        )
        newest = f"{amount(len(found), 'entry')}, newest first"
        more = f" (the newest {self._limit:,} only)" if len(found) == self._limit else ""
        rows = [trail_row(item) for item in found]
        self._table.value = html.table(TRAIL_HEADS, rows, caption=newest + more, empty="No entry fits.")
        self._seen = (await self.client.call(Verbs.status)).trail_size
        self._since.value = ""
        return ""

    def _rename(self) -> None:
        """The file's ending follows the form, as long as it was one of them."""
        path = Path(self._path.value)
        if path.suffix in _ENDINGS.values():
            self._path.value = str(path.with_suffix(_ENDINGS[self._form.value]))

    async def _write(self, path: str, form: str) -> str:
        whole = str(Path(path).expanduser().absolute())
        done = await self.client.call(Verbs.audit_export, path=whole, form=form)
        entries = amount(done.entries, "entry")
        return f"{entries}, {size(done.size)}, {done.cosigned:,} signed by others too, are in {done.path}."
