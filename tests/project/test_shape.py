"""The repository itself: sizes of modules, what each file opens with, and what never belongs into a committed file."""

from __future__ import annotations

import ast
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src" / "labxchange"

LINES_MAX = 300
LONGER = {
    "audit/verifier.py": (1350, "one file by design: standard library and cryptography, nothing of ours"),
    "net/channel.py": (470, "the streams of a connection, their flow control, rekeying and end belong to one state"),
    "node/receiving.py": (500, "the life of an incoming transfer in one place"),
    "node/node.py": (735, "the one API: a short method for each verb, and the wiring of the parts"),
    "node/values.py": (540, "all that the faces see, side by side, each field with its meaning and unit"),
    "node/serving.py": (600, "every request of a peer is judged in one place"),
    "net/endpoint.py": (550, "the gate before and after the handshake shares its counters"),
    "wire/control/handshake.py": (500, "both sides of one protocol, message by message"),
    "files/quarantine.py": (550, "every descriptor and every flush of what is received"),
    "transfer/receive.py": (430, "the life of a chunk"),
    "transfer/lanes/fetching.py": (420, "lanes from their opening to their end, as the recipient asks over them"),
    "transfer/lanes/worker.py": (460, "one loop over sockets, machines, disk and the node"),
    "wire/data/sender.py": (380, "the life of a byte that is sent, and every timer of it"),
    "wire/data/congestion/fair.py": (340, "every rule by which a lane finds its rate, as they lean on one another"),
    "wire/data/lane.py": (350, "what both ends of a lane keep and judge alike"),
    "dataset/listing.py": (310, "the files of a version, and the line of all their bytes"),
    "node/receipts.py": (470, "signing, countersigning, showing and checking are one rule read four ways"),
    "wire/control/session.py": (450, "the state machine of a connection is one table and its actions"),
    "node/contacts.py": (400, "who may connect is judged in one place"),
    "node/keys.py": (400, "every way in which the seed is opened or sealed"),
    "node/peers.py": (375, "connections to contacts: dial, keep, give up"),
    "files/hashing.py": (350, "two digests in one pass, and what may change meanwhile"),
    "store/trail.py": (350, "append, seal, open, prove: one tree"),
}
"""Module -> the most lines it may have, and why it is one module."""

TEXT = {".py", ".md", ".toml", ".txt", ".cfg", ".ini", ".mako", ".json", ".yml", ".yaml", ".sh", ""}


def _committed() -> list[Path]:
    told = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True, check=True
    )
    paths = (ROOT / name.decode() for name in told.stdout.split(b"\0") if name)
    return [path for path in paths if path.is_file() and path.suffix in TEXT]


def _modules() -> list[Path]:
    return sorted(SOURCE.rglob("*.py"))


def test_modules_are_short_or_have_a_reason() -> None:
    sizes = {str(path.relative_to(SOURCE)): len(path.read_text(encoding="utf-8").splitlines()) for path in _modules()}
    long = {name: size for name, size in sizes.items() if size > LONGER.get(name, (LINES_MAX, ""))[0]}
    assert not long, "split these, or give them a reason above"
    needless = [name for name in LONGER if sizes.get(name, 0) <= LINES_MAX]
    assert not needless, "these are short now; take them off the list"


@pytest.mark.parametrize("path", _modules(), ids=lambda path: str(path.relative_to(SOURCE)))
def test_every_module_opens_with_what_it_does(path: Path) -> None:
    assert (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").strip()


def test_no_package_is_empty() -> None:
    packages = [path.parent for path in SOURCE.rglob("__init__.py")]
    assert not [package for package in packages if all(child.name.startswith("__") for child in package.iterdir())]


def test_no_name_says_nothing() -> None:
    assert not [path for path in _modules() if path.stem in {"utils", "util", "helpers", "helper", "manager", "common", "misc"}]


def test_no_file_names_a_registry_or_a_machine() -> None:
    """Where packages come from is a matter of the machine that installs them; who wrote this on which machine is nobody's."""
    hosts = (
        "py" + "pi.org",
        "pythonhosted" + ".org",
        "npm" + "js.",
        "anaconda" + ".org",
        "crates" + ".io",
        "docker" + ".io",
        "ghcr" + ".io",
    )
    places = ("/" + "work/", "file:" + "//")
    pattern = re.compile("|".join(re.escape(text) for text in (*hosts, *places)))
    found = [
        f"{path.relative_to(ROOT)}: {match[0]}"
        for path in _committed()
        for match in pattern.finditer(path.read_text(encoding="utf-8", errors="replace"))
    ]
    assert not found


def test_nothing_is_left_to_do() -> None:
    words = re.compile(r"\b(" + "|".join(("TO" + "DO", "FIX" + "ME", "XX" + "X", "HA" + "CK")) + r")\b")
    assert not [
        path.relative_to(ROOT) for path in _committed() if words.search(path.read_text(encoding="utf-8", errors="replace"))
    ]


def test_constraints_are_exact_and_cover_what_is_declared() -> None:
    import tomllib

    def plain(name: str) -> str:
        return re.sub(r"[-_.]+", "-", re.split(r"[<>=\[ ;]", name)[0]).lower()

    lines = [line for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    assert all(re.fullmatch(r"[A-Za-z0-9_.-]+==[A-Za-z0-9.]+", line) for line in lines)
    pinned = {plain(line) for line in lines}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    extras = project["project"]["optional-dependencies"].values()
    declared = [
        *project["project"]["dependencies"],
        *project["build-system"]["requires"],
        *(one for extra in extras for one in extra),
    ]
    assert {plain(name) for name in declared} - {"labxchange"} <= pinned


def test_every_test_has_a_stage() -> None:
    """`make test` runs every folder of tests; what only a campaign runs has its mark."""
    text = (ROOT / ".ci" / "stages").read_text(encoding="utf-8")
    staged = {word for line in re.findall(r"^tests (.*)$", text, re.MULTILINE) for word in line.split()}
    folders = {path.relative_to(ROOT / "tests").parts[0] for path in (ROOT / "tests").rglob("test_*.py")}
    assert folders <= staged


def test_the_version_is_said_once() -> None:
    import tomllib

    from labxchange.settings import VERSION

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["version"] == VERSION
    assert f"## {VERSION}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
