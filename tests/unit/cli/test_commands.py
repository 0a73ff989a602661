"""What holds for every command: help with an example that is right, `--json`, and a start that loads no node."""

from __future__ import annotations

import resource
import shlex
import subprocess
import sys
from collections.abc import Iterator

import pytest
import typer.main

from labxchange.cli import exit_codes
from labxchange.cli.main import app, main

Command = typer.main.TyperCommand


def _commands(group: typer.main.TyperGroup, path: str) -> Iterator[tuple[str, Command]]:
    for name, command in group.commands.items():
        where = f"{path} {name}"
        if isinstance(command, typer.main.TyperGroup):
            yield from _commands(command, where)
        else:
            assert isinstance(command, Command)
            yield where, command


_ROOT = typer.main.get_command(app)
assert isinstance(_ROOT, typer.main.TyperGroup)
COMMANDS = dict(_commands(_ROOT, "labxchange"))

EXPECTED = """
key create|show|backup|restore
contact invite|accept|verify|list|show|invitations|block|unblock|accept-trail
dataset show|verify
share create|status|revoke|extend|request-extension
transfer list|show|set|pause|resume|cancel|report|accept|reject
receipt show|save|verify
audit list|export|verify
node start|stop|status|logs|unlock|backup|restore|configure
clock reset
"""


def test_the_commands_are_those_of_the_documentation() -> None:
    wanted = {"labxchange inbox", "labxchange receive", "labxchange doctor"}
    for line in EXPECTED.split("\n"):
        if line:
            group, names = line.split()
            wanted |= {f"labxchange {group} {name}" for name in names.split("|")}
    assert set(COMMANDS) == wanted


@pytest.mark.parametrize("path", sorted(COMMANDS))
def test_help_says_what_it_does_and_shows_an_example_that_is_right(path: str) -> None:
    command = COMMANDS[path]
    assert command.help
    assert len(command.help.split()) >= 4
    assert command.epilog is not None
    assert command.epilog.startswith("\b\nExample:\n")
    known = {name for parameter in command.params for name in parameter.opts}
    lines = command.epilog.removeprefix("\b\nExample:\n").replace("\\\n", " ").split("\n")
    for line in lines:
        words = shlex.split(line.strip())
        assert " ".join(words[: len(path.split())]) == path
        assert {word for word in words if word.startswith("--")} <= known, line


@pytest.mark.parametrize("path", sorted(COMMANDS))
def test_every_command_can_answer_in_json_and_describes_every_option(path: str) -> None:
    options = {name: parameter for parameter in COMMANDS[path].params for name in parameter.opts}
    assert "--json" in options
    assert all(getattr(parameter, "help", None) for parameter in options.values())


@pytest.mark.parametrize("path", sorted(COMMANDS))
def test_no_secret_can_be_given_as_an_argument(path: str) -> None:
    for parameter in COMMANDS[path].params:
        assert not any("passphrase" in name or "secret" in name for name in parameter.opts)


def test_examples_end_on_lines_of_their_own(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["share", "create", "--help"]) == 0
    shown = capsys.readouterr().out
    assert '    labxchange share create data/sdtm --to "Ana Silva"' in shown


def test_importing_the_command_line_loads_no_node() -> None:
    heavy = ("aioquic", "sqlalchemy", "httpx", "uvicorn", "cryptography", "numpy", "rich", "labxchange.node.node")
    code = f"import sys, labxchange.cli.main; print([name for name in {heavy!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_help_answers_within_400_ms_of_processor_time() -> None:
    times = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-m", "labxchange.cli.main", "--help"], capture_output=True, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        times.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert min(times) < 0.4


def test_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("labxchange ")


def test_the_table_of_exit_codes_names_every_one() -> None:
    table = exit_codes.__doc__ or ""
    rows = {int(line.split()[0]) for line in table.splitlines() if line[:4] == "    " and line.split()[0].isdigit()}
    assert rows == {code.value for code in exit_codes.ExitCode} | {10, 11, 12, 13}
