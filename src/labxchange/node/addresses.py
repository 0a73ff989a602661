"""Which addresses of this machine others could use: what a person says, or what a card lists when nobody says otherwise."""

from __future__ import annotations

import socket

import msgspec

from labxchange.dataset.names import escape
from labxchange.errors import InputError
from labxchange.identity.card import Address


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


def own_address(host: str) -> str:
    """Where this machine reaches a port that it opened on ``host`` itself; the loopback address when it listens on all."""
    if not host or host == "0.0.0.0":  # noqa: S104  a comparison, nothing is bound
        return "127.0.0.1"
    if host == "::":
        return "[::1]"
    return f"[{host}]" if ":" in host else host


def _towards(family: socket.AddressFamily, target: str) -> str:
    """The source address the system would use towards ``target``; nothing is sent."""
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((target, 9))
            host = str(probe.getsockname()[0])
    except OSError:
        return ""
    return f"[{host}]" if family is socket.AF_INET6 else host


def with_port(host: str, port: int) -> str:
    """``host:port`` of an address that a person gave, with or without a port."""
    return host if host.rpartition("]")[2].startswith(":") or ("[" not in host and ":" in host) else f"{host}:{port}"


def check_address(text: str) -> None:
    """Refuse what could not stand in a card; raises InputError ``address-malformed``."""
    try:
        msgspec.convert(with_port(text, 1), Address)
    except msgspec.ValidationError:
        raise InputError(
            "address-malformed",
            f"{escape(text)!r} is not an address that others could use.",
            hint="Give a host name or number, with a port where it differs: `data.example.org`, `[2001:db8::1]:443`.",
        ) from None
