"""Which addresses of this machine others could use: what a card lists when nobody says otherwise."""

from __future__ import annotations

import socket


def local_addresses(host: str) -> list[str]:
    """Numeric addresses, the one with the default route first; the loopback address when there is no other."""
    if host and host not in ("0.0.0.0", "::"):  # noqa: S104  a comparison, nothing is bound
        return [f"[{host}]" if ":" in host else host]
    found = [
        text
        for family, target in ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1"))
        if (text := _towards(family, target))
    ]
    return found or ["127.0.0.1"]


def _towards(family: socket.AddressFamily, target: str) -> str:
    """The source address the system would use towards ``target``; nothing is sent."""
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((target, 9))
            host = str(probe.getsockname()[0])
    except OSError:
        return ""
    return f"[{host}]" if family is socket.AF_INET6 else host
