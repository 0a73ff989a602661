"""Writes ``lanes.json``: the test vectors of ``docs/spec/lanes.md``.

    PYTHONPATH=src:. python tests/vectors/make_lanes.py

Everything follows from a fixed K_lane, so a run that changes the file shows a change of the format.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_args

import numpy as np

from labxchange.wire.data.datagram import Cipher, Kind, LaneKey, Sealer, Writer, lane_secret
from labxchange.wire.data.status import encode

PATH = Path(__file__).with_name("lanes.json")
K_LANE = bytes(range(48))
LANE = bytes.fromhex("a1b2c3d4e5f6")
PAYLOAD = bytes(number * 7 % 256 for number in range(2_500))
STATUS: dict[str, Any] = {
    "newest": 70_001,
    "held_us": 1_500,
    "clock_us": 123_456_789_012,
    "total_bytes": 9_876_543_210,
    "dropped": 3,
    "forged": 2,
}
ARRIVED = [True, True, False, True, *[False] * 5, True, False, True]


def _datagrams(writer: Writer, cipher: Cipher) -> list[dict[str, Any]]:
    sealer = Sealer(LaneKey(lane_secret(K_LANE, LANE, writer), LANE, cipher), slot=3 if writer == "I" else 0)
    out = []
    for kind, number, offset, size, payload in (
        (Kind.DATA, 7, 1 << 40, 1_200, PAYLOAD),
        (Kind.STATUS, 0xEFFFFFFF, 0, 1_200, encode(**STATUS, arrived=np.array(ARRIVED))),
        (Kind.CHALLENGE, 0, 0, 1_200, bytes(range(8))),
        (Kind.RESPONSE, 1, 0, 1_200, bytes(range(8))),
        (Kind.PROBE, 2, 0, 1_472, bytes(1_436)),
    ):
        sealed = bytes(sealer.seal(memoryview(payload), kind=kind, number=number, offset=offset, size=size))
        out.append(
            {
                "kind": kind.name.lower(),
                "number": number,
                "offset": offset,
                "size": size,
                "payload": payload.hex(),
                "datagrams": [sealed[start : start + size].hex() for start in range(0, len(sealed), size)],
            }
        )
    return out


def vectors() -> dict[str, Any]:
    return {
        "about": "Test vectors of docs/spec/lanes.md, written by tests/vectors/make_lanes.py.",
        "k_lane": K_LANE.hex(),
        "lane": LANE.hex(),
        "secrets": {writer: lane_secret(K_LANE, LANE, writer).hex() for writer in get_args(Writer)},
        "status": {**STATUS, "arrived": ARRIVED, "payload": encode(**STATUS, arrived=np.array(ARRIVED)).hex()},
        "sealed": [
            {"writer": writer, "cipher": cipher, "batches": _datagrams(writer, cipher)}
            for writer in get_args(Writer)
            for cipher in get_args(Cipher)
        ],
    }


if __name__ == "__main__":
    PATH.write_text(json.dumps(vectors(), indent=1) + "\n")
