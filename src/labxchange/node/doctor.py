"""What may be wrong with this machine, its network, or the way to a contact - each with what to do about it.

Checks look and send nothing but knocks at UDP ports: the node's own, and a contact's. Each gives one sentence a scientist can
read out to IT, and a hint that IT can act on, down to the text of the firewall rule. Nothing is changed.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

from labxchange.dataset.listing import Listing
from labxchange.dataset.names import escape
from labxchange.errors import LabxchangeError, PeerError, RefusedError
from labxchange.net.lane_socket import BUFFER_BYTES
from labxchange.node.addresses import own_address, with_port
from labxchange.node.clock import utc_text, wall_ms
from labxchange.node.values import Diagnosis
from labxchange.settings import DEFAULT_PORT
from labxchange.store import people, shares, statements, transfers

if TYPE_CHECKING:
    from labxchange.node.node import Node

_KERNEL: Final = Path("/proc/sys/net/core")
_DISK_PROBLEM_BYTES: Final = 200 << 20
_DISK_WARNING_BYTES: Final = 2 << 30
_YEAR_2026_MS: Final = 1_767_225_600_000
_YEAR_2100_MS: Final = 4_102_444_800_000
_BEHIND_MS: Final = 60_000
_KNOCK_S = 3.0


async def examine(node: Node, *, contact: str = "") -> list[Diagnosis]:
    """All checks of this machine; with ``contact`` those of the way to them first.

    Raises:
        InputError: ``contact-unknown``, ``contact-ambiguous``.
    """
    out = [*await _way(node, contact)] if contact else []
    out += [_keys(node), *await _port(node), *_firewall(node), _clock(node), *_disks(node), *_buffers(_KERNEL)]
    return out


def _ok(check: str, sentence: str, hint: str = "") -> Diagnosis:
    return Diagnosis(check=check, state="ok", sentence=sentence, hint=hint)


def _warning(check: str, sentence: str, hint: str) -> Diagnosis:
    return Diagnosis(check=check, state="warning", sentence=sentence, hint=hint)


def _problem(check: str, sentence: str, hint: str) -> Diagnosis:
    return Diagnosis(check=check, state="problem", sentence=sentence, hint=hint)


def _size(count: int) -> str:
    return f"{count / 1e9:,.1f} GB"


# --- this node --------------------------------------------------------------------------------------------------------
def _keys(node: Node) -> Diagnosis:
    if not node.core.public:
        return _problem("keys", "There is no identity on this machine yet.", "Make one with `labxchange key create`.")
    if node.core.identity is None:
        return _problem("keys", "The node is locked, so it neither listens nor sends.", "Open it with `labxchange node unlock`.")
    if not node.core.home.unlock.exists():
        return _ok("keys", "The keys are open; after a restart somebody must type the passphrase before transfers go on.")
    return _ok("keys", "The keys are open, and the node opens them by itself after a restart.")


async def _port(node: Node) -> list[Diagnosis]:
    if not node.port:
        return [_problem("port", "The node does not listen, so nobody can reach it.", "See what the check of the keys says.")]
    if await _knock(node, f"{own_address(node.host)}:{node.port}") != "retry":
        return [
            _problem(
                "port",
                f"UDP port {node.port} of this machine does not answer even to itself.",
                "A firewall on this machine blocks it: allow UDP for this program, see the check of the firewall.",
            )
        ]
    return [_ok("port", f"The node listens on UDP port {node.port} and answers.")]


async def _knock(node: Node, address: str) -> str:
    """ "retry", "nothing", or the sentence why it could not be tried."""
    try:
        return await node.peers.endpoint.probe(address, timeout_s=_KNOCK_S)
    except LabxchangeError as error:
        return error.message


def _firewall(node: Node) -> list[Diagnosis]:
    port = node.port or DEFAULT_PORT
    # One port, or a few in a row where the system cannot share it among the processes that move the data.
    last = max((slot.port for slot in node.peers.endpoint.lane_sockets.values()), default=port)
    ports = f"port {port}" if last == port else f"ports {port}-{last}"
    colon, hyphen = (str(port), str(port)) if last == port else (f"{port}:{last}", f"{port}-{last}")
    card = node.core.card
    hosts = [escape(address.rpartition(":")[0]) for address in card.body.addresses] if card is not None else []
    target = " or ".join(hosts) or "this machine"
    rule = (
        f"Please allow: protocol UDP, inbound, destination {target} {ports}, from any source address and port; and protocol "
        f"UDP, outbound, from this machine to any port, with the answers (stateful). Nothing else and no TCP is used. "
        f"On this machine itself: `sudo ufw allow {colon}/udp`, or `sudo firewall-cmd --permanent --add-port={hyphen}/udp && "
        f"sudo firewall-cmd --reload`."
    )
    return [_ok("firewall", f"For others to reach you, UDP {ports} must be open inbound; one side of two is enough.", rule)]


def _clock(node: Node) -> Diagnosis:
    clock, now = node.core.clock, wall_ms()
    if clock.in_doubt:
        return _problem(
            "clock",
            f"The clock jumped to {utc_text(now)} and is not believed: grants wait.",
            "Set the clock (NTP). If it is right, say so with `labxchange clock reset --reason TEXT`.",
        )
    if not _YEAR_2026_MS <= now < _YEAR_2100_MS:
        return _problem("clock", f"The clock of this machine says {utc_text(now)}.", "Set it, best by NTP (`timedatectl`).")
    if now < clock.largest - _BEHIND_MS:
        return _warning(
            "clock",
            f"The clock says {utc_text(now)}, which is earlier than the node's last entry ({utc_text(clock.largest)}).",
            "Set it by NTP (`timedatectl set-ntp true`). If the earlier entries were wrong: `labxchange clock reset`.",
        )
    return _ok("clock", f"The clock says {utc_text(now)}.")


def _disks(node: Node) -> Iterator[Diagnosis]:
    """Room for the node's own records, and for what is on its way, disk by disk."""
    home = node.core.home.root
    free = shutil.disk_usage(home).free
    hint = f"Free some space on the disk of {home}."
    if free < _DISK_PROBLEM_BYTES:
        yield _problem("disk", f"Only {_size(free)} are free for the node's records; without room nothing can be done.", hint)
    elif free < _DISK_WARNING_BYTES:
        yield _warning("disk", f"Only {_size(free)} are free for the node's records.", hint)
    else:
        yield _ok("disk", f"{_size(free)} are free for the node's records.")
    for folder, missing in _expected(node).values():
        free = shutil.disk_usage(folder).free
        if free < missing:
            yield _problem(
                "disk for transfers",
                f"What is on its way needs {_size(missing)} more below {escape(str(folder))}, and {_size(free)} are free.",
                "Free some space; a transfer that ran out of it pauses, and goes on with `labxchange transfer resume`.",
            )


def _expected(node: Node) -> dict[int, tuple[Path, int]]:
    """For each disk that transfers are being written to: a folder on it, and the bytes still to come."""
    if node.core.identity is None:
        return {}
    with node.core.database.begin() as tx:
        live = [row for row in transfers.incoming(tx) if row.state in transfers.LIVE]
        listings = {}
        for row in live:
            share = shares.share(tx, row.share, row.version, owner=row.peer)
            listing = statements.find(tx, share.listing, Listing) if share is not None else None
            listings[row.transfer] = listing.body.bytes if listing else 0
    out: dict[int, tuple[Path, int]] = {}
    for row in live:
        folder = _existing(Path(row.destination.decode(errors="surrogateescape")))
        device = folder.stat().st_dev
        known = out.get(device, (folder, 0))
        out[device] = (known[0], known[1] + max(0, listings[row.transfer] - row.done_bytes))
    return out


def _existing(folder: Path) -> Path:
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return folder


def _buffers(kernel: Path) -> Iterator[Diagnosis]:
    """The kernel's limits on the buffers of a UDP socket; too small ones drop packets at speed."""
    limits: dict[str, int] = {}
    for name in ("rmem_max", "wmem_max"):
        try:
            limits[name] = int((kernel / name).read_text(encoding="ascii"))
        except (OSError, ValueError):
            continue
    small = {name: value for name, value in limits.items() if value < BUFFER_BYTES}
    if not limits:
        yield _ok("UDP buffers", "This system does not say its limits for UDP buffers.")
    elif small:
        told = " and ".join(f"net.core.{name} = {value:,}" for name, value in small.items())
        wanted = " ".join(f"net.core.{name}={BUFFER_BYTES}" for name in small)
        yield _warning(
            "UDP buffers",
            f"The system limits UDP buffers ({told}); fast transfers may lose packets and be slower.",
            f"An administrator runs `sysctl -w {wanted}` and puts the same into /etc/sysctl.d/90-labxchange.conf.",
        )
    else:
        yield _ok("UDP buffers", f"UDP buffers of {BUFFER_BYTES >> 20} MiB are allowed.")


# --- the way to a contact ---------------------------------------------------------------------------------------------
async def _way(node: Node, text: str) -> list[Diagnosis]:
    node.core.require()
    row = node.contacts.find(text)
    name = escape(row.name)
    check = f"way to {name}"
    if row.state == "blocked":
        return [_problem(check, f"{name} is blocked here.", "`labxchange contact unblock`, if you are sure.")]
    channel = node.peers.connected(row.key)
    if channel is not None:
        host, port = channel.remote_address[:2]
        return [_ok(check, f"{name} is connected, at {with_port(f'[{host}]' if ':' in host else host, port)}.")]
    addresses = list(dict.fromkeys([row.seen_address, *people.card_of(row).addresses]))
    found = {address: await _knock(node, address) for address in addresses if address}
    try:
        await node.peers.channel(row.key)
    except RefusedError as error:
        return [_problem(check, f"{name} answers and refuses: {error.message}", error.hint or "Ask them why.")]
    except PeerError as error:
        return [_problem(check, f"What answers there is not {name}: {error.message}", "Ask them for their present address.")]
    except LabxchangeError as error:
        return _unreached(check, name, found, error)
    return [_ok(check, f"{name} answers, and proved to be {name}.")]


def _unreached(check: str, name: str, found: dict[str, str], error: LabxchangeError) -> list[Diagnosis]:
    if not found:
        return [_problem(check, f"No address of {name} is known.", "Let them invite you, or invite them once more.")]
    out = []
    for address, answer in found.items():
        shown = escape(address)
        if answer == "retry":
            out.append(
                _problem(
                    check,
                    f"A node answers at {shown}, but the connection did not come about: {error.message}",
                    f"It may be locked, busy, or not the node of {name}: ask them to run `labxchange node status`.",
                )
            )
        elif answer == "nothing":
            port = shown.rpartition(":")[2]
            out.append(
                _problem(
                    check,
                    f"Nothing came back from {shown}: that node is off, or a firewall between you drops UDP.",
                    f"Ask {name} to run `labxchange doctor` and have UDP port {port} opened inbound; ask your IT to allow UDP "
                    f"outbound to port {port}. If only your side can be reached, they reach you: leave your node running.",
                )
            )
        else:
            out.append(_problem(check, f"{shown} could not be tried: {escape(answer)}", f"Ask {name} for their present address."))
    return out
