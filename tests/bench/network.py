"""Two hosts, a and b, joined by a path: three ways to have them, one interface.

- ``Emulator``: a program given by an option, with the commands ``up --rtt MS --rate MBIT --loss P --queue-ms MS``, ``exec HOST
  CMD``, ``down``; it decides about every packet of the wire, also inside a segmentation-offload super-packet.
- ``Namespaces``: two network namespaces and a veth pair, with ``tc netem`` where the kernel has it. netem decides about what it
  is handed, so segmentation is switched off on a limited path and each packet is one of the wire.
- ``Loopback``: no namespaces and no privilege; only the path without a limit.

Socket limits (``net.core.rmem_max``, ``wmem_max``) belong to the whole machine, not to a namespace; they are put back.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path as FilePath
from typing import Any, Protocol

from tests.bench.rows import Path

_DEVICE = "wan0"
_ADDRESSES = {"a": "10.77.0.1", "b": "10.77.0.2"}
_LIMITS = ("rmem_max", "wmem_max")


class Network(Protocol):
    """Where a and b are."""

    name: str

    def carries(self, path: Path) -> bool:
        """True when this network can be such a path."""
        ...

    def up(self, path: Path, *, control: str = "", seed: int = 1) -> None:
        """Make the path; ``control`` is TCP's congestion control on both hosts."""
        ...

    def command(self, host: str, words: Sequence[str]) -> list[str]:
        """``words`` as they are run on a host."""
        ...

    def address(self, host: str) -> str: ...

    def down(self) -> list[dict[str, Any]]:
        """Take it away; gives the emulator's counters, one table a direction."""
        ...


def _run(*words: str, check: bool = True) -> str:
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if check and done.returncode:
        raise OSError(f"{' '.join(words)}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


class Loopback:
    """Both hosts are this machine."""

    name = "loopback"

    def carries(self, path: Path) -> bool:
        return not path.rate_mbit and path.mtu == 1500 and not path.joins

    def up(self, path: Path, *, control: str = "", seed: int = 1) -> None:
        if control and control != _run("sysctl", "-n", "net.ipv4.tcp_congestion_control", check=False).strip():
            raise OSError("the loopback address has one congestion control, the machine's")

    def command(self, host: str, words: Sequence[str]) -> list[str]:
        return list(words)

    def address(self, host: str) -> str:
        return "127.0.0.1"

    def down(self) -> list[dict[str, Any]]:
        return []


class Emulator:
    """The program of the option."""

    def __init__(self, program: FilePath) -> None:
        self._program = str(program)
        self.name = program.name

    def carries(self, path: Path) -> bool:
        return True

    def up(self, path: Path, *, control: str = "", seed: int = 1) -> None:
        words = [self._program, "up", *(["--cc", control] if control else [])]
        if path.rate_mbit:
            words += ["--rtt", str(path.rtt_ms), "--rate", str(path.rate_mbit), "--loss", f"{path.loss:.6f}"]
            words += ["--queue-ms", str(path.queue_ms), "--seed", str(seed)]
        else:
            words += ["--plain", "--mtu", str(path.mtu)]
        _run(*words)
        if path.joins:
            _let_the_kernel_join(self)

    def command(self, host: str, words: Sequence[str]) -> list[str]:
        return [self._program, "exec", host, *words]

    def address(self, host: str) -> str:
        return _ADDRESSES[host]

    def down(self) -> list[dict[str, Any]]:
        lines = _run(self._program, "down", check=False).splitlines()
        return [json.loads(line) for line in lines if line.startswith("{")]


class Namespaces:
    """Namespaces of this process's own name."""

    def __init__(self) -> None:
        self.name = "netem" if self._has_netem() else "veth"

    def _has_netem(self) -> bool:
        if not shutil.which("tc") or not shutil.which("ip"):
            return False
        name = self._namespace("probe")
        try:
            _run("ip", "netns", "add", name)
            _run("ip", "netns", "exec", name, "tc", "qdisc", "add", "dev", "lo", "root", "netem", "delay", "1ms")
        except OSError:
            return False
        finally:
            _run("ip", "netns", "del", name, check=False)
        return True

    @staticmethod
    def _namespace(host: str) -> str:
        return f"bench{os.getpid()}-{host}"

    def carries(self, path: Path) -> bool:
        return not path.rate_mbit or self.name == "netem"

    def up(self, path: Path, *, control: str = "", seed: int = 1) -> None:
        a, b = map(self._namespace, "ab")
        for name in (a, b):
            _run("ip", "netns", "add", name)
            _run("ip", "-n", name, "link", "set", "lo", "up")
        _run("ip", "link", "add", _DEVICE, "netns", a, "type", "veth", "peer", "name", _DEVICE, "netns", b)
        for host in "ab":
            if control:
                _run(*self.command(host, ["sysctl", "-qw", f"net.ipv4.tcp_congestion_control={control}"]))
            _run(*self.command(host, ["sysctl", "-qw", "net.ipv4.tcp_no_metrics_save=1"]))
            _run(*self.command(host, ["ip", "link", "set", _DEVICE, "mtu", str(path.mtu), "up"]))
            _run(*self.command(host, ["ip", "addr", "add", f"{_ADDRESSES[host]}/24", "dev", _DEVICE]))
            if path.rate_mbit:
                self._limit(host, path)
        if path.joins:
            _let_the_kernel_join(self)

    def _limit(self, host: str, path: Path) -> None:
        off = ["tso", "off", "gso", "off", "gro", "off", "tx-udp-segmentation", "off"]
        _run(*self.command(host, ["ethtool", "-K", _DEVICE, *off]), check=False)
        waiting_ms = path.rtt_ms / 2 + path.queue_ms  # netem's limit counts what is under way too
        packets = max(int(path.rate_mbit * 1e3 * waiting_ms / 8 / path.mtu), 10)
        netem = ["netem", "limit", str(packets), "delay", f"{path.rtt_ms / 2}ms", "rate", f"{path.rate_mbit}mbit"]
        lost = ["loss", f"{100 * path.loss:.4f}%"] if path.loss else []
        _run(*self.command(host, ["tc", "qdisc", "add", "dev", _DEVICE, "root", *netem, *lost]))

    def command(self, host: str, words: Sequence[str]) -> list[str]:
        return ["ip", "netns", "exec", self._namespace(host), *words]

    def address(self, host: str) -> str:
        return _ADDRESSES[host]

    def down(self) -> list[dict[str, Any]]:
        for host in "ab":
            _run("ip", "netns", "del", self._namespace(host), check=False)
        return []


def _let_the_kernel_join(network: Network) -> None:
    """Datagrams leave a one by one, and b's kernel has a reason to wait for the next one."""
    _run(*network.command("a", ["ethtool", "-K", _DEVICE, "tso", "off", "tx-udp-segmentation", "off"]))
    _run(*network.command("b", ["ethtool", "-K", _DEVICE, "gro", "on"]))
    places = " ".join(
        f"echo {value} > /mnt/class/net/{_DEVICE}/{name};"
        for name, value in (("gro_flush_timeout", 200_000), ("napi_defer_hard_irqs", 2))
    )
    # a namespace sees its own devices in a sysfs of its own, which nobody else gets to see
    _run(*network.command("b", ["unshare", "--mount", "sh", "-ec", f"mount -t sysfs sysfs /mnt; {places}"]))


def choose(emulator: str) -> Network:
    """The emulator when one is named, else the kernel's, else the loopback address."""
    if emulator:
        program = shutil.which(emulator)
        if not program:
            raise OSError(f"{emulator} is not a program")
        return Emulator(FilePath(program))
    if os.geteuid() == 0 and shutil.which("ip"):
        return Namespaces()
    return Loopback()


def controls() -> list[str]:
    """TCP's congestion controls that this kernel has loaded."""
    with contextlib.suppress(OSError):
        return FilePath("/proc/sys/net/ipv4/tcp_available_congestion_control").read_text().split()
    return []


def socket_limit_bytes() -> int:
    """The largest receive buffer that an unprivileged process may have; 0 where the system does not say."""
    with contextlib.suppress(OSError):
        return int(FilePath("/proc/sys/net/core/rmem_max").read_text())
    return 0


@contextlib.contextmanager
def socket_limits(limit_bytes: int) -> Iterator[bool]:
    """The largest socket buffers of the whole machine, for as long; 0 leaves them. Gives whether they are so."""
    places = [FilePath("/proc/sys/net/core", name) for name in _LIMITS]
    before = [place.read_text() for place in places]
    if not limit_bytes:
        yield False
        return
    try:
        for place in places:
            place.write_text(str(limit_bytes))
    except OSError:
        yield False
        return
    try:
        yield True
    finally:
        for place, text in zip(places, before, strict=True):
            place.write_text(text)
