"""The documentation is true: its commands exist, its examples run, its links lead somewhere, and nothing is left out.

The tutorial and the README's example are carried out by real nodes, on the loopback address.
"""

from __future__ import annotations

import ast
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src" / "labxchange"
DOCS = ROOT / "docs"
PAGES = sorted([*ROOT.glob("*.md"), *(page for page in DOCS.rglob("*.md") if "_build" not in page.parts)])
LABXCHANGE = [sys.executable, "-m", "labxchange.cli.main"]
TEXTS = ("adsl.csv", "adae.csv")


def _generate() -> ModuleType:
    spec = spec_from_file_location("docs_generate", DOCS / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


sys.path.insert(0, str(DOCS))
generate = _generate()
python_reference = generate.python_reference
COMMANDS: dict[str, Any] = dict(generate.commands())
GROUPS = {name.rpartition(" ")[0] for name in COMMANDS} | {"labxchange"}


def _page_name(page: Path) -> str:
    return str(page.relative_to(ROOT))


# --- commands ---------------------------------------------------------------------------------------------------------
def _options(name: str) -> set[str]:
    command = COMMANDS.get(name)
    given = {option for parameter in command.params for option in parameter.opts} if command is not None else set()
    return given | {"--help"} | ({"--version", "--install-completion", "--show-completion"} if name == "labxchange" else set())


def _wrong(line: str) -> str:
    """What is wrong with a command line, or nothing."""
    words = shlex.split(line.removesuffix("\\").split(" > ")[0].split(" | ")[0], comments=True)
    name, rest = words[0], words[1:]
    while rest and f"{name} {rest[0]}" in {*COMMANDS, *GROUPS}:
        name = f"{name} {rest.pop(0)}"
    if name not in COMMANDS and rest and not rest[0].startswith("-") and rest[0] not in ("COMMAND", "…", "..."):
        return f"{line!r}: there is no such command"
    unknown = {word.partition("=")[0] for word in rest if word.startswith("--")} - _options(name)
    return f"{line!r}: {name} has no {', '.join(sorted(unknown))}" if unknown else ""


def _mentioned(text: str) -> Iterator[str]:
    """Command lines in a text: in backticks, and after a prompt."""
    yield from (" ".join(found.split()) for found in re.findall(r"`(labxchange [^`]+)`", text))
    yield from re.findall(r"^\s*\S*[$] (labxchange .*)$", text, re.MULTILINE)


@pytest.mark.parametrize("page", PAGES, ids=_page_name)
def test_commands_in_the_documentation_exist(page: Path) -> None:
    assert not [wrong for line in _mentioned(page.read_text(encoding="utf-8")) if (wrong := _wrong(line))]


def test_commands_in_messages_exist() -> None:
    found = []
    for path, tree in generate.modules():
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                wrong = [_wrong(line) for line in _mentioned(node.value) if line.count('"') % 2 == 0]
                found += [f"{path.relative_to(SOURCE)}:{node.lineno}: {text}" for text in wrong if text]
    assert not found


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_documented(name: str) -> None:
    """Help that says what it does, an example that is a command, a word for each argument and option."""
    command = COMMANDS[name]
    assert len(command.help or "") > 15
    lines = re.findall(r"^\s*(labxchange .*)$", command.epilog or "", re.MULTILINE)
    assert lines, "its help ends in no example"
    assert all(line.startswith(name) for line in lines)
    assert not [wrong for line in lines if (wrong := _wrong(line))]
    assert all(getattr(parameter, "help", None) for parameter in command.params)
    assert f"### {name}\n" in generate.cli()


# --- codes, events, threats, links ------------------------------------------------------------------------------------
def test_every_code_and_event_is_documented() -> None:
    codes = generate.codes()
    assert len(codes) > 100
    text = generate.errors()
    assert all(f"`{item.code}`" in text for item in codes)
    assert len(re.findall(r"^\| `", generate.events(), re.MULTILINE)) > 10


def test_every_attack_is_in_the_table_of_threats_and_every_test_named_there_exists() -> None:
    page = (DOCS / "explain" / "threats.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`(tests/\S+\.py)`", page))
    attacks = [path for folder in ("attacks", "fuzz") for path in (ROOT / "tests" / folder).glob("test_*.py")]
    assert {str(path.relative_to(ROOT)) for path in attacks} <= named
    assert not [name for name in named if not (ROOT / name).is_file()]
    rows = [row for row in page.splitlines() if row.startswith("|")][2:]
    assert not [row for row in rows if "`tests/" not in row], "a threat without a test"


@pytest.mark.parametrize("page", PAGES, ids=_page_name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
        assert "://" not in target, f"{target}: pages name no hosts"
        assert (page.parent / target).resolve().exists(), target


def test_decisions_have_three_parts_and_stay_short() -> None:
    decisions = sorted((DOCS / "adr").glob("0*.md"))
    assert [path.name[:4] for path in decisions] == [f"{number:04}" for number in range(1, len(decisions) + 1)]
    for path in decisions:
        text = path.read_text(encoding="utf-8")
        assert [part for part in ("**Context.**", "**Decision.**", "**Consequences.**") if part not in text] == []
        assert len(text.split()) < 350, path.name


# --- examples that run ------------------------------------------------------------------------------------------------
class Machine:
    """A person at a machine of their own: a home, a working folder, and a node on the loopback address."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "desk"
        self.folder.mkdir(parents=True)
        self.credential = folder / "credential"
        self.runtime = tempfile.mkdtemp(prefix="lx-")  # a socket's path is short, and the test's folder is not
        self.environment = os.environ | {
            "LABXCHANGE_HOME": str(folder / "home"),
            "LABXCHANGE_LISTEN": "127.0.0.1",
            "XDG_RUNTIME_DIR": self.runtime,
            "PYTHONPATH": str(ROOT / "src"),
        }

    def run(self, *words: str) -> str:
        """One command of labxchange."""
        return self._run([*LABXCHANGE, *words])

    def python(self, code: str) -> str:
        return self._run([sys.executable, "-c", code])

    def shell(self, words: list[str]) -> str:
        return self._run([*LABXCHANGE, *words[1:]] if words[0] == "labxchange" else words)

    def _run(self, command: list[str]) -> str:
        told = subprocess.run(
            command, cwd=self.folder, env=self.environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=240
        )
        assert told.returncode == 0, f"{command}: exit code {told.returncode}\n{told.stdout}{told.stderr}"
        return told.stdout

    def json(self, *words: str) -> Any:
        return json.loads(self.run(*words, "--json"))

    def until(self, holds: str, *words: str) -> None:
        """Ask again until the answer contains ``holds``."""
        deadline = time.monotonic() + 30
        while holds not in (said := self.run(*words)):
            assert time.monotonic() < deadline, f"{words}: {holds!r} is not in {said}"
            time.sleep(0.1)

    def key(self) -> Any:
        return self.json("key", "show")


@pytest.fixture
def machines(tmp_path: Path) -> Iterator[tuple[Machine, Machine]]:
    both = Machine(tmp_path / "ada"), Machine(tmp_path / "ben")
    results = both[0].folder / "results"
    results.mkdir()
    for name in TEXTS:
        (results / name).write_text("USUBJID,AGE\n01-701-1015,63\n" * 500)
    try:
        yield both
    finally:
        for machine in both:
            subprocess.run([*LABXCHANGE, "node", "stop"], env=machine.environment, capture_output=True, timeout=60)
            shutil.rmtree(machine.runtime)


def _answered(words: list[str], here: Machine, there: Machine, transfer: str) -> list[str]:
    """The command as typed, with what a person would answer to its questions given as options, and placeholders filled in."""
    if words[:3] == ["labxchange", "key", "create"]:
        return [*words, "--credential-file", str(here.credential)]
    if words[:3] == ["labxchange", "contact", "verify"]:
        return [*words, "--words", " ".join(there.key()["words"])]
    by_name = {"ADA-FINGERPRINT": "Ada", "BEN-FINGERPRINT": "Ben"}
    if any(word in by_name for word in words):
        prints = {machine.key()["name"].split()[0]: machine.key()["fingerprint"] for machine in (here, there)}
        return [prints[by_name[word]] if word in by_name else word for word in words]
    return [transfer if word == "8c01d2" else word for word in words]


def test_the_tutorial_happens_as_written(machines: tuple[Machine, Machine]) -> None:
    ada, ben = machines
    page = (DOCS / "tutorial" / "first-exchange.md").read_text(encoding="utf-8")
    lines = re.findall(r"^(ada|ben)@\w+:~\$ (.*)$", page, re.MULTILINE)
    assert len(lines) > 20
    for who, line in lines:
        here, there = (ada, ben) if who == "ada" else (ben, ada)
        typed, _, into = line.partition(" > ")
        words = shlex.split(typed)
        if words[:2] == ["labxchange", "receive"]:
            here.until("Phase I tables", "inbox")
        if words[:3] == ["labxchange", "audit", "export"]:
            _confirmed(here)
        transfer = "" if "8c01d2" not in words else here.json("transfer", "list")[-1]["transfer"][:6]
        said = here.shell(_answered(words, here, there, transfer))
        if into:
            (there.folder / into).write_text(said)  # the mail
        if words[:3] == ["labxchange", "contact", "list"]:
            assert "verified" in said
            assert "unverified" not in said
        if words[:3] == ["labxchange", "audit", "verify"]:
            assert said.startswith("VALID\n")
    assert all((ben.folder / "phase1" / name).read_bytes() == (ada.folder / "results" / name).read_bytes() for name in TEXTS)


def _confirmed(machine: Machine) -> None:
    """Wait until the counterparty has signed the entries of the transfer, as it does within a moment."""
    deadline = time.monotonic() + 30
    while True:
        signed = machine.json("audit", "list", "--event", "trail.cosigned", "--limit", "1")
        done = machine.json("audit", "list", "--event", "transfer.completed", "--limit", "1")
        if signed and done and signed[0]["seq"] > done[0]["seq"]:
            return
        assert time.monotonic() < deadline, "the counterparty has not cosigned the transfer's entries"
        time.sleep(0.1)


def acquainted(ada: Machine, ben: Machine) -> None:
    """Each has an identity and has verified the other."""
    for machine, name, organisation in ((ada, "Ada Lindqvist", "Northwind Pharma"), (ben, "Ben Okafor", "Meridian CRO")):
        machine.run("key", "create", "--name", name, "--organisation", organisation, "--credential-file", str(machine.credential))
    (ben.folder / "invitation.txt").write_text(ada.run("contact", "invite"))
    ben.run("contact", "accept", "invitation.txt")
    ada.run("contact", "verify", "Ben Okafor", "--words", " ".join(ben.key()["words"]))
    ben.run("contact", "verify", "Ada Lindqvist", "--words", " ".join(ada.key()["words"]))


def test_the_readme_example_runs(machines: tuple[Machine, Machine]) -> None:
    ada, ben = machines
    acquainted(ada, ben)
    (ben.folder / "plate-1.csv").write_text("well,od\nA1,0.42\n")
    ben.run("share", "create", "plate-1.csv", "--to", "Ada Lindqvist", "--title", "Assay protocol", "--wait")
    ada.until("Assay protocol", "inbox")

    example = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)[0]
    assert 8 <= len(example.strip().splitlines()) <= 12
    said = ada.python("\n".join(_printing(example)))
    assert "Ben Okafor" in said
    assert "Phase I tables" in said
    assert "intact" in said
    assert "transfer.verified" in said
    incoming = [info for info in ada.json("transfer", "list") if info["direction"] == "in"]
    assert (Path(incoming[0]["destination"]) / "plate-1.csv").read_text().startswith("well")


@pytest.mark.parametrize("page", PAGES, ids=_page_name)
def test_python_in_the_documentation_names_what_exists(page: Path) -> None:
    import labxchange

    for code in re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL):
        for node in ast.walk(ast.parse(code)):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "lx":
                assert node.attr in labxchange.__all__


def test_everything_public_in_python_says_what_it_is() -> None:
    """The page is made from what `help` shows, so it cannot be behind; what it would lack is named."""
    import labxchange

    assert set(python_reference.NAMES) == {name for name in labxchange.__all__ if not name.startswith("__")}
    assert python_reference.missing() == []
    page = python_reference.page()
    assert not [entry.name for entry in python_reference.entries() if f"### {entry.name}\n" not in page]


def test_the_reference_tells_of_what_has_no_words() -> None:
    bare = python_reference.Entry("lx.bare", "lx.bare(a: Other) -> Share", "Gives.\n\nArgs:\n    b: none.", ("a",), {})
    assert python_reference.judged(bare) == [
        "lx.bare: no example",
        "lx.bare: no word on a",
        "lx.bare: has no b",
        "lx.bare: Other is not described",
    ]


def test_the_examples_of_the_python_reference_run(machines: tuple[Machine, Machine]) -> None:
    """One after another, as one story; what an example ends with is printed too."""
    ada, ben = machines
    acquainted(ada, ben)
    (ada.folder / "results" / "adsl.csv").write_text("USUBJID,AGE\n01-701-1015,63\n01-701-1023,71\n")
    (ben.folder / "adsl.csv").write_text("USUBJID,AGE\n01-701-1015,63\n01-701-1023,64\n")
    (ben.folder / "plates.bin").write_bytes(bytes(20_000_000))
    for name, title in (("adsl.csv", "Phase I tables"), ("plates.bin", "Assay protocol")):
        ben.run("share", "create", name, "--to", "Ada Lindqvist", "--title", title, "--wait")
        ada.until(title, "inbox")
    lines = ["import labxchange as lx"]
    for entry in python_reference.entries():
        lines += [f"print({entry.name!r})", *_printing(python_reference.split(entry.doc).example)]
    said = ada.python("\n".join(lines))
    assert said.rstrip().splitlines()[-1] == "lx.NodeLocked"
    assert "match" in said
    assert "Elderly" in said
    ben.until("rejected", "share", "status", "Phase I tables")


def _printing(code: str) -> list[str]:
    """The lines of ``code``, with each expression printed as a prompt would."""
    nodes = ast.parse(code).body
    return [f"print(repr({ast.unparse(one.value)}))" if isinstance(one, ast.Expr) else ast.unparse(one) for one in nodes]
