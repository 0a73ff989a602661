"""How a face reaches the node: calls verbs over the local socket, listens to notices, starts the node when it is not running.

    async with Client() as node:
        me = await node.call(Verbs.key_show)

``run`` is the blocking facade: one background event loop for the whole process.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from concurrent.futures import Future
from typing import Any, Concatenate, ParamSpec, Self, TypeVar, get_type_hints

import httpx
import msgspec

from labxchange import errors
from labxchange.errors import LabxchangeError, UnavailableError
from labxchange.node.home import Home
from labxchange.node.starting import ensure_running
from labxchange.node.values import Notice
from labxchange.node.verbs import Verbs

P = ParamSpec("P")
T = TypeVar("T")

_TIMEOUT = httpx.Timeout(None, connect=5.0)
_LIMITS = httpx.Limits(keepalive_expiry=1.0)
"""Idle connections are dropped before the node drops them (after 5 s), so no call meets a dead one."""


class Client:
    """A connection to the node of ``home``.

    Args:
        start: start the node when it is not running.
    """

    def __init__(self, home: Home | None = None, *, start: bool = True) -> None:
        self.home = home or Home()
        self._start = start
        self._http: httpx.AsyncClient | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        if self._http is not None:
            await self._http.aclose()
            self._http = None

    def _client(self) -> httpx.AsyncClient:
        if self._http is None:
            transport = httpx.AsyncHTTPTransport(uds=str(self.home.socket), limits=_LIMITS)
            self._http = httpx.AsyncClient(transport=transport, base_url="http://node", timeout=_TIMEOUT, trust_env=False)
        return self._http

    async def call(self, verb: Callable[Concatenate[Verbs, P], Awaitable[T]], *args: P.args, **given: P.kwargs) -> T:
        """Call a verb, e.g. ``call(Verbs.share_status, share="adsl")``.

        Raises:
            LabxchangeError: as the verb's docstring says; UnavailableError ``node-not-running``, or ``node-ended``: before it
                answered.
        """
        assert not args, "verbs take keywords"
        body = await self._post(f"/verbs/{verb.__name__}", msgspec.json.encode(given))
        kind: Any = get_type_hints(verb)["return"]
        result: T = msgspec.json.decode(body, type=kind)
        return result

    async def stop_node(self) -> None:
        """Ask the node to stop cleanly; it may take a moment more."""
        await self._post("/stop", b"")

    async def _post(self, path: str, body: bytes) -> bytes:
        if self._start:
            await ensure_running(self.home)
        try:
            answer = await self._client().post(path, content=body)
        except httpx.ConnectError as error:
            raise not_running() from error
        except httpx.TransportError as error:
            message = "The node ended before it answered; whether it did what was asked is not known."
            raise UnavailableError("node-ended", message, hint="Look whether it is done, and ask again if not.") from error
        if answer.status_code != 200:
            raise _error(answer.content)
        return answer.content

    async def notices(self) -> AsyncIterator[Notice]:
        """What changes, as it changes; ends when the node does."""
        if self._start:
            await ensure_running(self.home)
        decoder = msgspec.json.Decoder(Notice)
        try:
            async with self._client().stream("GET", "/notices") as answer:
                async for line in answer.aiter_lines():
                    if line:
                        yield decoder.decode(line)
        except httpx.TransportError:
            raise not_running() from None


def not_running() -> UnavailableError:
    return UnavailableError("node-not-running", "The node is not running.", hint="Start it with `labxchange node start`.")


def _error(body: bytes) -> LabxchangeError:
    try:
        told = msgspec.json.decode(body, type=dict[str, str])
        if told["kind"] == "NodeLocked":
            return errors.NodeLocked()
        kind: type[LabxchangeError] = getattr(errors, told["kind"])
        return kind(told["code"], told["message"], hint=told["hint"])
    except (msgspec.DecodeError, msgspec.ValidationError, KeyError, AttributeError):
        return UnavailableError("node-broken", "The node gave an answer that cannot be read.", hint="`labxchange node logs`.")


_loop: asyncio.AbstractEventLoop | None = None
_lock = threading.Lock()


def start(work: Coroutine[Any, Any, T]) -> Future[T]:
    """Run ``work`` on the background loop; the future may be waited for by any thread, and wrapped for any loop."""
    global _loop
    with _lock:
        if _loop is None:
            _loop = asyncio.new_event_loop()
            threading.Thread(target=_loop.run_forever, name="labxchange", daemon=True).start()
    return asyncio.run_coroutine_threadsafe(work, _loop)


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run ``work`` to its end from blocking code, also inside a notebook's own event loop."""
    future = start(work)
    try:
        return future.result()
    except LabxchangeError as error:
        # The way through this module tells a scientist nothing.
        raise error.with_traceback(None) from error.__cause__
    except BaseException:
        future.cancel()
        raise
