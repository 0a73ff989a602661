"""Two hosts of this machine, joined by a cable: network namespaces with a veth pair, where root and `ip` allow it.

Unlike loopback, which carries a joined batch as it is, this path takes it apart like a real card and joins it again on arrival -
when the receiver's side is told to (``joining``). ``why_not`` says in a sentence why a machine cannot do it, for a skip.
"""

from __future__ import annotations

import ctypes
import os
import secrets
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from types import TracebackType
from typing import TypeVar

T = TypeVar("T")
A = "10.87.0.1", "fd87::1"
B = "10.87.0.2", "fd87::2"
_CLONE_NEWNET = 0x40000000


def why_not() -> str:
    """Why this machine cannot have a ``Veth``; empty if it can."""
    if not sys.platform.startswith("linux"):
        return "network namespaces are Linux's"
    if os.geteuid() != 0:
        return "not root: network namespaces cannot be made"
    missing = [name for name in ("ip", "ethtool") if shutil.which(name) is None]
    if missing:
        return f"{' and '.join(missing)} not installed"
    name = f"lx{secrets.token_hex(3)}"
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True, check=False)
    if made.returncode:
        return f"root, but not allowed to make network namespaces: {made.stderr.strip()}"
    _run("ip", "netns", "del", name)
    return ""


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, text=True)


class Veth:
    """Hosts "a" and "b" with the addresses ``A`` and ``B``; gone at the end of the ``with``."""

    def __init__(self, *, mtu_bytes: int = 1500) -> None:
        self._mtu_bytes = mtu_bytes
        mark = secrets.token_hex(3)
        self._names = {"a": f"lx{mark}a", "b": f"lx{mark}b"}

    def __enter__(self) -> Veth:
        try:
            self._make()
        except BaseException:
            self._remove()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._remove()

    def run(self, host: str, *command: str) -> None:
        """A command on a host."""
        _run("ip", "netns", "exec", self._names[host], *command)

    def on(self, host: str, work: Callable[[], T]) -> T:
        """Call on a host: what it opens belongs there, and may be used anywhere."""
        result: list[T] = []
        failure: list[BaseException] = []

        def enter() -> None:
            # A thread of its own, since a namespace is entered for good.
            try:
                descriptor = os.open(f"/run/netns/{self._names[host]}", os.O_RDONLY)
                try:
                    if ctypes.CDLL(None, use_errno=True).setns(descriptor, _CLONE_NEWNET):
                        raise OSError(ctypes.get_errno(), "setns")
                finally:
                    os.close(descriptor)
                result.append(work())
            except BaseException as error:
                failure.append(error)

        thread = threading.Thread(target=enter)
        thread.start()
        thread.join()
        if failure:
            raise failure[0]
        return result[0]

    def joining(self, receiver: str) -> None:
        """Send one by one over the cable, and join on arrival: what a card without, and one with, offload do."""
        sender = "a" if receiver == "b" else "b"
        self.run(sender, "ethtool", "-K", "eth0", "tso", "off", "tx-udp-segmentation", "off")
        self.run(receiver, "ethtool", "-K", "eth0", "gro", "on")
        # Hold what has come for up to 200 us, to join more to it.
        for name, value in (("gro_flush_timeout", "200000"), ("napi_defer_hard_irqs", "2")):
            self.run(receiver, "sh", "-c", f"echo {value} > /sys/class/net/eth0/{name}")

    def _make(self) -> None:
        for name in self._names.values():
            _run("ip", "netns", "add", name)
        a, b = self._names["a"], self._names["b"]
        _run("ip", "link", "add", "eth0", "netns", a, "type", "veth", "peer", "name", "eth0", "netns", b)
        for host, addresses in (("a", A), ("b", B)):
            self.run(host, "ip", "link", "set", "lo", "up")
            self.run(host, "ip", "address", "add", f"{addresses[0]}/24", "dev", "eth0")
            self.run(host, "ip", "address", "add", f"{addresses[1]}/64", "dev", "eth0", "nodad")
            self.run(host, "ip", "link", "set", "eth0", "mtu", str(self._mtu_bytes), "up")

    def _remove(self) -> None:
        for name in self._names.values():
            subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)
