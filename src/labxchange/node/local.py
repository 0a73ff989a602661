"""The local API: the node's verbs over a Unix socket that only its user can open. Never over TCP.

POST /verbs/NAME with a JSON object of parameters answers the verb's value, or an error as {code, message, hint, kind}; GET
/notices streams what changes, one JSON line each. Exactly the names of ``verbs.NAMES`` exist; parameters are decoded by their
types, so a malformed call is refused before anything runs.
"""

from __future__ import annotations

import contextlib
import inspect
import logging
from collections.abc import AsyncIterator, Callable
from typing import Any, get_type_hints

import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from labxchange.errors import InputError, LabxchangeError
from labxchange.node.node import Node
from labxchange.node.verbs import NAMES, Verbs

MAX_BODY_BYTES = 1 << 20
HTTP_STATUS = {
    "InputError": 400,
    "NodeLocked": 423,
    "RefusedError": 403,
    "PeerError": 502,
    "IntegrityError": 409,
    "UnavailableError": 503,
}


_BROKEN = msgspec.json.encode(
    {
        "kind": "UnavailableError",
        "code": "node-error",
        "message": "The node met an error of its own; nothing more is known here.",
        "hint": "`labxchange node logs` shows it: please report it.",
    }
)

_DENIED = frozenset({"verb-unknown", "call-malformed", "call-too-large"})
"""Calls that no face of ours makes: they are entries, counted by the minute."""

log = logging.getLogger("labxchange")


def error_body(error: LabxchangeError) -> bytes:
    """What a face gets of an error: whose fault, a stable code, a sentence, a hint."""
    kind = next(cls.__name__ for cls in type(error).__mro__ if cls.__name__ in HTTP_STATUS)
    return msgspec.json.encode({"kind": kind, "code": error.code, "message": error.message, "hint": error.hint})


def _error(error: LabxchangeError) -> Response:
    body = error_body(error)
    status = HTTP_STATUS[msgspec.json.decode(body)["kind"]]
    return Response(body, status_code=status, media_type="application/json")


def _parameters(name: str) -> type[msgspec.Struct]:
    verb = getattr(Verbs, name)
    hints = get_type_hints(verb)
    fields: list[Any] = []
    for parameter in list(inspect.signature(verb).parameters.values())[1:]:
        kind = hints[parameter.name]
        default = parameter.default
        fields.append((parameter.name, kind) if default is parameter.empty else (parameter.name, kind, default))
    return msgspec.defstruct(name, fields, kw_only=True, forbid_unknown_fields=True)


def application(node: Node, *, stop: Callable[[], None]) -> Starlette:
    """The ASGI application; ``stop`` ends the process after an answer."""
    decoders = {name: msgspec.json.Decoder(_parameters(name)) for name in NAMES}

    async def verb(request: Request) -> Response:
        name = request.path_params["name"]
        try:
            decoder = decoders.get(name)
            if decoder is None:
                raise InputError("verb-unknown", "The node has no such verb.", hint="Is the node older than this program?")
            given = await _decode(request, decoder)
            result = await getattr(node, name)(**msgspec.structs.asdict(given))
        except LabxchangeError as error:
            if error.code in _DENIED:
                with contextlib.suppress(LabxchangeError):  # a trail that cannot be written must not hide the answer
                    node.denials.note(error.code, "the local API")
            return _error(error)
        except Exception:
            log.exception("the verb %s failed", name)
            return Response(_BROKEN, status_code=500, media_type="application/json")
        return Response(msgspec.json.encode(result), media_type="application/json")

    async def notices(_: Request) -> Response:
        async def lines() -> AsyncIterator[bytes]:
            yield b"\n"
            async for notice in node.notices():
                yield msgspec.json.encode(notice) + b"\n"

        return StreamingResponse(lines(), media_type="application/x-ndjson")

    async def end(_: Request) -> Response:
        stop()
        return Response(b"{}", media_type="application/json")

    return Starlette(
        routes=[
            Route("/verbs/{name}", verb, methods=["POST"]),
            Route("/notices", notices, methods=["GET"]),
            Route("/stop", end, methods=["POST"]),
        ]
    )


async def _decode(request: Request, decoder: msgspec.json.Decoder[Any]) -> Any:
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > MAX_BODY_BYTES:
            raise InputError("call-too-large", "A call to the node is larger than 1 MiB.")
    try:
        return decoder.decode(body or b"{}")
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise InputError("call-malformed", f"A call to the node is malformed: {error}.") from None
