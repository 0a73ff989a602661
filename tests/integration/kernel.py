"""A Jupyter kernel as a process of its own, and as much of a front end as shows what a person sees: outputs, widgets, presses."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from queue import Empty
from typing import Any

from jupyter_client.manager import KernelManager

from labxchange.node.home import HOME_VARIABLE
from tests.integration.conftest import Person

_WIDGET = "application/vnd.jupyter.widget-view+json"
PATIENCE_S = 60


class Failed(Exception):
    """A cell raised: the name of the error, and the words beside it."""

    def __init__(self, name: str, value: str, traceback: str) -> None:
        super().__init__(f"{name}: {value}\n{traceback}")
        self.name, self.value = name, value


class Kernel:
    """Runs cells as ``person``; ``asked`` says whether the kernel ever asked for input."""

    def __init__(self, person: Person, *, start: str = "import labxchange as lx") -> None:
        self._manager = KernelManager()
        self._manager.kernel_cmd = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
        self._manager.start_kernel(env=os.environ | {HOME_VARIABLE: str(person.home.root)})
        self._client = self._manager.blocking_client()
        self._client.start_channels()
        self._client.wait_for_ready(timeout=PATIENCE_S)
        self.asked = False
        self._done: dict[str, dict[str, Any]] = {}
        self._idle: set[str] = set()
        """Cells after whose output the kernel said that it is idle; it comes on another channel than the answer."""
        self._printed: dict[str, str] = {}
        self._outputs: dict[str, dict[str, Any]] = {}
        """Display id -> the forms that stand there now."""
        self._widgets: dict[str, dict[str, Any]] = {}
        self.run(start)

    def begin(self, code: str) -> str:
        """Run a cell, without waiting for its end."""
        return str(self._client.execute(code, allow_stdin=True))

    def finish(self, cell: str) -> str:
        """Wait for the end of a cell; what it printed, its result included."""
        self.until(lambda: cell in self._done and cell in self._idle, what="the cell to end")
        answer = self._done[cell]
        if answer["status"] != "ok":
            raise Failed(answer["ename"], answer["evalue"], "\n".join(answer["traceback"]))
        return self.printed(cell)

    def printed(self, cell: str) -> str:
        """What a cell has printed so far."""
        return self._printed.get(cell, "")

    def run(self, code: str) -> str:
        return self.finish(self.begin(code))

    def interrupt(self) -> None:
        self._manager.interrupt_kernel()

    def kill(self) -> None:
        """kill -9."""
        self._manager.shutdown_kernel(now=True)

    def close(self) -> None:
        self._client.stop_channels()
        if self._manager.is_alive():
            self._manager.shutdown_kernel(now=True)

    def until(self, reached: Callable[[], object], *, what: str) -> None:
        """Hear what the kernel says until ``reached``."""
        deadline = time.monotonic() + PATIENCE_S
        while not reached():
            assert time.monotonic() < deadline, f"waited in vain for {what}; {self.shown()}"
            self._hear()

    def _hear(self) -> None:
        while True:
            try:
                self._reply(self._client.get_shell_msg(timeout=0))
            except Empty:
                break
        try:
            self._client.get_stdin_msg(timeout=0)
            self.asked = True
        except Empty:
            pass
        try:
            self._told(self._client.get_iopub_msg(timeout=0.05))
        except Empty:
            pass

    def _reply(self, message: dict[str, Any]) -> None:
        if message["msg_type"] == "execute_reply":
            self._done[message["parent_header"]["msg_id"]] = message["content"]

    def _told(self, message: dict[str, Any]) -> None:
        kind, content, cell = message["msg_type"], message["content"], message["parent_header"].get("msg_id", "")
        if kind == "status" and content["execution_state"] == "idle":
            self._idle.add(cell)
        elif kind == "stream":
            self._printed[cell] = self._printed.get(cell, "") + content["text"]
        elif kind == "execute_result":
            self._printed[cell] = self._printed.get(cell, "") + content["data"]["text/plain"]
        elif kind == "display_data":
            self._outputs[content.get("transient", {}).get("display_id", cell)] = content["data"]
        elif kind == "update_display_data" and content["transient"]["display_id"] in self._outputs:
            self._outputs[content["transient"]["display_id"]] = content["data"]
        elif kind == "comm_open":
            self._widgets[content["comm_id"]] = dict(content["data"].get("state", {}))
        elif kind == "comm_msg" and content["data"].get("method") == "update":
            self._widgets.setdefault(content["comm_id"], {}).update(content["data"]["state"])

    # --- what a person sees and does ----------------------------------------------------------------------------------
    def _shown_widgets(self) -> list[str]:
        """Ids of the widgets that stand in some output, with all that they hold."""
        found = [forms[_WIDGET]["model_id"] for forms in self._outputs.values() if _WIDGET in forms]
        for one in found:
            found += [child.removeprefix("IPY_MODEL_") for child in self._widgets.get(one, {}).get("children", ())]
        return found

    def shown(self) -> str:
        """All that stands in the outputs now, as one text of HTML."""
        parts = [str(self._widgets.get(one, {}).get("value", "")) for one in self._shown_widgets()]
        parts += [forms.get("text/html", "") for forms in self._outputs.values() if _WIDGET not in forms]
        return "\n".join(parts)

    def buttons(self) -> dict[str, str]:
        """The buttons that can be pressed now: description -> widget."""
        states = {one: self._widgets.get(one, {}) for one in self._shown_widgets()}
        return {
            str(state["description"]): one
            for one, state in states.items()
            if state.get("description") and not state.get("disabled")
        }

    def press(self, button: str) -> None:
        self.until(lambda: button in self.buttons(), what=f"the button {button}")
        content = {"comm_id": self.buttons()[button], "data": {"method": "custom", "content": {"event": "click"}}}
        self._client.shell_channel.send(self._client.session.msg("comm_msg", content))

    def clear(self) -> None:
        """Look away from all that was shown."""
        self._outputs.clear()
