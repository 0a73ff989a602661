"""The clock of syncthing: link the data into the sender's folder, ask for a scan, wait until the receiver has everything.

`python -m tests.bench.peer_syncthing SOURCE FOLDER FILES SENDER RECEIVER`, the last two as addresses of their local interfaces.
The sender's own view of it says 100 % before the receiver has anything, so the receiver is asked.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
import urllib.request
from typing import Any

_KEY = {"X-API-Key": "lab"}
_LOOK_S = 0.2


def _rest(host: str, path: str, *, method: str = "GET") -> Any:
    request = urllib.request.Request(f"http://{host}:8384/rest/{path}", headers=_KEY, method=method)
    with urllib.request.urlopen(request) as answer:
        return json.loads(answer.read() or b"null")


def main(source: str, folder: str, files: int, sender: str, receiver: str) -> None:
    subprocess.run(["cp", "-al", source, folder], check=True)
    _rest(sender, "db/scan?folder=lab", method="POST")
    while True:
        status = _rest(receiver, "db/status?folder=lab")
        if (status["globalFiles"], status["needBytes"], status["needFiles"]) == (files, 0, 0):
            return
        time.sleep(_LOOK_S)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4], sys.argv[5])
