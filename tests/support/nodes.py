"""Whole nodes for tests: made with cheap passphrases, over real loopback sockets or any other network, and befriended.

    ada, bo = make_node(tmp_path, "Ada"), make_node(tmp_path, "Bo")
    await start(ada), await start(bo)
    await befriend(ada, bo)

Wall, elapsed and random bytes can be given, as to the node itself. Nothing here waits longer than it is told.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

from labxchange.identity.sealing import Argon
from labxchange.net.network import Network
from labxchange.net.sockets import SocketNetwork
from labxchange.node.clock import elapsed_ms, wall_ms
from labxchange.node.home import Home
from labxchange.node.node import Node
from labxchange.node.values import InboxItem, Me, ShareInfo, TransferInfo

T = TypeVar("T")
ARGON = Argon(memory_kib=8192, passes=1, lanes=1)
PASSPHRASE = "correct horse battery"
OVER = ("completed", "failed", "cut", "cancelled")
_POLL_FIRST_S = 0.01
_POLL_LAST_S = 0.1


class NotInTime(AssertionError):
    """What a test waited for did not happen."""


def make_node(
    folder: Path,
    name: str,
    *,
    network: Network | None = None,
    host: str = "127.0.0.1",
    wall: Callable[[], int] = wall_ms,
    elapsed: Callable[[], int] = elapsed_ms,
    random_bytes: Callable[[int], bytes] = secrets.token_bytes,
    lane_workers: int = 0,
) -> Node:
    """The node of person ``name`` with its home in ``folder / name``; made again there, it is the same node after a restart.

    Without ``lane_workers`` its data goes over QUIC.
    """
    return Node(
        Home(folder / name),
        network or SocketNetwork(),
        host=host,
        wall=wall,
        elapsed=elapsed,
        random_bytes=random_bytes,
        argon=ARGON,
        lane_workers=lane_workers,
    )


async def start(node: Node, *, credential: bool = False) -> Me:
    """Open the node; make its identity (named as its home is) or unlock it.

    With ``credential`` it has a credential file beside its home, and unlocks itself at later starts.
    """
    root = node.core.home.root
    await node.open()
    if not node.core.home.identity.exists():
        given = {"credential_file": str(root.with_suffix(".credential"))} if credential else {"passphrase": PASSPHRASE}
        return await node.key_create(name=root.name, organisation=f"{root.name} Ltd", **given)
    if node.core.identity is None:
        return await node.unlock(passphrase=PASSPHRASE)
    return await node.key_show()


async def befriend(inviter: Node, invitee: Node, *, verify: bool = True) -> None:
    """They meet by an invitation and, with ``verify``, type each other's six words."""
    invitation = await inviter.contact_invite()
    await invitee.contact_accept(text=invitation.text)
    one, other = await inviter.key_show(), await invitee.key_show()
    await wait_for(lambda: inviter.contacts.get(other.key), what="the inviter to know the invitee")
    if verify:
        await inviter.contact_verify(contact=other.key, words=list(other.words))
        await invitee.contact_verify(contact=one.key, words=list(one.words))


async def wait_for(condition: Callable[[], T | Awaitable[T]], *, what: str = "a condition", timeout_s: float = 20.0) -> T:
    """Ask until the answer is true, each 10 ms of the loop's own clock and later each 100; the answer.

    Raises:
        NotInTime: it was not true within ``timeout_s`` of the loop's clock.
    """
    loop = asyncio.get_running_loop()
    deadline, pause = loop.time() + timeout_s, _POLL_FIRST_S
    while True:
        answer = condition()
        found = await answer if isinstance(answer, Awaitable) else answer
        if found:
            return found
        if loop.time() > deadline:
            raise NotInTime(f"waited {timeout_s:g} s in vain for {what}")
        await asyncio.sleep(pause)
        pause = min(1.2 * pause, _POLL_LAST_S)


async def share(sender: Node, recipient: Node, folder: Path, **terms: object) -> ShareInfo:
    """Share a folder and wait until it is hashed and the recipient has the offer."""
    made = await sender.share_create(paths=[str(folder)], to=[(await recipient.key_show()).key], **terms)  # type: ignore[arg-type]
    await sender.share_hashed(share=made.share)
    await offered(recipient, made)
    return await sender.share_status(share=f"{made.share}/{made.version}")


async def offered(recipient: Node, made: ShareInfo) -> InboxItem:
    """The offer, once the recipient has it."""

    async def there() -> InboxItem | None:
        items = await recipient.inbox_list()
        return next((item for item in items if (item.share, item.version) == (made.share, made.version)), None)

    found = await wait_for(there, what="the offer")
    assert found is not None
    return found


async def ended(node: Node, transfer: str, *, timeout_s: float = 20.0) -> TransferInfo:
    """The transfer once it is over."""
    return await until(node, transfer, *OVER, timeout_s=timeout_s)


async def until(node: Node, transfer: str, *states: str, timeout_s: float = 20.0) -> TransferInfo:
    """The transfer once it is in one of these states."""
    seen = ""

    async def there() -> TransferInfo | None:
        nonlocal seen
        info = await node.transfer_show(transfer=transfer)
        seen = f"{info.state} {info.reason}"
        return info if info.state in states else None

    try:
        found = await wait_for(there, what=f"the transfer to be {' or '.join(states)}", timeout_s=timeout_s)
    except NotInTime as error:
        raise NotInTime(f"{error}; it is {seen}") from None
    assert found is not None
    return found
