"""Where a node keeps its state, and where its local socket stands.

State: the platform's data folder, or ``LABXCHANGE_HOME``. Socket: a 0700 folder of the runtime directory named by a hash of the
home, so the path is short; a folder that belongs to somebody else or is open to others is refused.
"""

from __future__ import annotations

import os
import stat
import tempfile
from hashlib import sha256
from pathlib import Path

import platformdirs

from labxchange.errors import InputError
from labxchange.files.folders import make_folders

HOME_VARIABLE = "LABXCHANGE_HOME"
_SOCKET_PATH_MAX_BYTES = 100  # the system's limit is 104 to 108


class Home:
    """The paths of one node. Creating it makes the folder (0700)."""

    def __init__(self, root: Path | None = None) -> None:
        chosen = root or os.environ.get(HOME_VARIABLE) or platformdirs.user_data_dir("labxchange", appauthor=False)
        self.root = Path(chosen).expanduser().resolve()

    @property
    def database(self) -> Path:
        return self.root / "node.db"

    @property
    def identity(self) -> Path:
        return self.root / "identity.json"

    @property
    def unlock(self) -> Path:
        """How the node unlocks itself: the path of a credential file, or the OS keyring. Never a secret."""
        return self.root / "unlock.json"

    @property
    def inbox(self) -> Path:
        return self.root / "inbox"

    @property
    def log(self) -> Path:
        return self.root / "node.log"

    @property
    def start_lock(self) -> Path:
        return self.root / "start.lock"

    @property
    def socket(self) -> Path:
        """The local API's socket; makes its folder.

        Raises:
            InputError: ``runtime-folder-unsafe``.
        """
        name = f"labxchange-{os.getuid()}-{sha256(str(self.root).encode()).hexdigest()[:16]}"
        folder = Path(os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir()) / name
        if len(os.fsencode(folder / "node.sock")) > _SOCKET_PATH_MAX_BYTES:
            folder = Path(tempfile.gettempdir()) / name
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or stat.S_IMODE(found.st_mode) & 0o077:
            raise InputError(
                "runtime-folder-unsafe",
                f"The folder {folder} is not yours alone, so the node cannot be reached safely.",
                hint="Remove it, or set XDG_RUNTIME_DIR to a folder of your own.",
            )
        return folder / "node.sock"

    def create(self) -> None:
        """Make the folder, durably: what is acknowledged inside must not go with its name."""
        make_folders(self.root, mode=0o700)
        self.root.chmod(0o700)
