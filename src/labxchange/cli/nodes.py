"""`labxchange node`, `clock` and `doctor`: the process behind all of this, and what is wrong with it."""

from __future__ import annotations

import os
import sys
import time
from collections import deque
from typing import TYPE_CHECKING, Annotated

import typer

from labxchange import times
from labxchange.cli import reach, screen
from labxchange.cli.exit_codes import ExitCode
from labxchange.cli.options import AsJson, CredentialFile, example, group
from labxchange.errors import InputError, UnavailableError

if TYPE_CHECKING:
    from labxchange.node.restoring import Restored
    from labxchange.node.values import Diagnosis, NodeStatus

app = group("The node: the process that keeps your keys, your trail and your transfers.")
clock = group("The clock that grants are judged by.")

_STOP_S = 30.0
_LOOK_S = 0.3


def _draw(status: NodeStatus) -> None:
    screen.fields(
        [
            ("identity", "none yet: `labxchange key create`" if not status.identity else ""),
            ("keys", "" if not status.identity else "sealed: `labxchange node unlock`" if status.locked else "open"),
            ("listening", status.listening or "no"),
            ("connections", str(status.connections)),
            ("contacts", str(status.contacts)),
            ("shares", str(status.shares)),
            ("transfers under way", str(status.transfers_live)),
            ("trail", f"{status.trail_size:,} entries"),
            ("started", times.moment(status.started)),
            ("process", f"{status.pid} ({status.software})"),
            ("folder", status.home),
        ]
    )
    for alert in status.alerts:
        screen.line(f"alert: {alert}")


@app.command(epilog=example("labxchange node start"))
def start(as_json: AsJson = False) -> None:
    """Start the node. Other commands do so by themselves."""
    from labxchange.node.verbs import Verbs

    screen.show(reach.call(Verbs.status), _draw, as_json=as_json)


@app.command(epilog=example("labxchange node stop"))
def stop(as_json: AsJson = False) -> None:
    """Stop the node cleanly; transfers pause and go on at its next start."""
    from labxchange.node.verbs import Verbs

    pid = reach.call_running(Verbs.status).pid
    reach.stop()
    deadline = time.monotonic() + _STOP_S
    while _alive(pid):
        if time.monotonic() > deadline:
            raise UnavailableError("node-slow", f"The node (process {pid}) has not stopped yet.", hint="`labxchange node logs`.")
        time.sleep(0.05)
    screen.show({"stopped": pid}, lambda _: screen.line("The node has stopped."), as_json=as_json)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    # A zombie that nobody waits for (the node was our own parent's child) has ended.
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return True


@app.command(epilog=example("labxchange node status"))
def status(as_json: AsJson = False) -> None:
    """Show how the node is, without starting it."""
    from labxchange.node.verbs import Verbs

    screen.show(reach.call_running(Verbs.status), _draw, as_json=as_json)


@app.command(epilog=example("labxchange node logs", "labxchange node logs --lines 200 --follow"))
def logs(
    lines: Annotated[int, typer.Option("--lines", min=0, help="How many of the last lines.")] = 50,
    follow: Annotated[bool, typer.Option("--follow", help="Go on with new lines, until Ctrl-C.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show the end of the node's log."""
    from labxchange.node.home import Home

    path = Home().log
    if as_json and follow:
        raise InputError("options-exclusive", "--json gives one value, and --follow never ends.", hint="Leave one out.")
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            last = [text.rstrip("\n") for text in deque(file, maxlen=lines)]
            if as_json:
                screen.emit(last)
                return
            for text in last:
                screen.line(text)
            while follow:
                sys.stdout.flush()
                if text := file.readline():
                    screen.line(text.rstrip("\n"))
                else:
                    time.sleep(_LOOK_S)
    except FileNotFoundError:
        raise UnavailableError("log-none", "This node has no log yet.", hint="It begins with `labxchange node start`.") from None


@app.command(epilog=example("labxchange node unlock", "labxchange node unlock --credential-file /etc/labxchange/credential"))
def unlock(credential_file: CredentialFile = "", as_json: AsJson = False) -> None:
    """Open the keys, with your passphrase or a credential file."""
    from labxchange.node.verbs import Verbs

    if credential_file:
        reach.call(Verbs.unlock, credential_file=reach.absolute(credential_file))
    elif reach.call(Verbs.key_show).locked:
        reach.unlock()
    screen.show(reach.call(Verbs.status), _draw, as_json=as_json)


@app.command(epilog=example("labxchange node backup /backup/labxchange-2026-12-31.db"))
def backup(file: Annotated[str, typer.Argument(metavar="FILE", help="A new file.")], as_json: AsJson = False) -> None:
    """Write everything to a file while the node runs: keys (sealed), contacts, receipts, audit trail. Not the data itself."""
    from labxchange.node.verbs import Verbs

    target = reach.absolute(file)
    status = reach.call(Verbs.node_backup, path=target)
    screen.show(status, lambda _: screen.line(f"The backup is in {target}."), as_json=as_json)


@app.command(epilog=example("labxchange node restore /backup/labxchange-2026-12-31.db"))
def restore(
    file: Annotated[str, typer.Argument(metavar="FILE", help="The file of `labxchange node backup`.")], as_json: AsJson = False
) -> None:
    """Bring a node back from its backup, on a computer that has none.

    Its audit trail goes on as a new epoch, and counterparties are shown what is missing. The passphrase is the one of the node
    that was backed up.
    """
    from pathlib import Path

    from labxchange.node.home import Home
    from labxchange.node.restoring import restore_backup

    home = Home()

    def draw(restored: Restored) -> None:
        screen.line(f"The node of {restored.name} ({restored.organisation}) is back in {restored.home}.")
        screen.remark("Open it with `labxchange node unlock`.")

    screen.show(restore_backup(Path(reach.absolute(file)), home), draw, as_json=as_json)


@app.command(epilog=example("labxchange node configure --port 443 --address data.northbridge.example"))
def configure(
    port: Annotated[int, typer.Option("--port", min=1, max=65535, help="The UDP port to listen on.")] = 0,
    address: Annotated[
        list[str] | None, typer.Option("--address", help="A host name or address that others are told; can be repeated.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Set the UDP port and the addresses that others are told; it takes effect at the node's next start."""
    from labxchange.node.verbs import Verbs

    if not port and not address:
        raise InputError("nothing-to-change", "There is nothing to change.", hint="Give --port, --address, or both.")
    screen.show(reach.call(Verbs.node_configure, port=port, addresses=address), _draw, as_json=as_json)
    if not as_json:
        screen.remark("Restart the node to use it: `labxchange node stop`, then `labxchange node start`.")


@clock.command("reset", epilog=example('labxchange clock reset --reason "the clock was a year ahead; corrected by IT"'))
def reset_clock(
    reason: Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why; it stands in the audit trail.")],
    as_json: AsJson = False,
) -> None:
    """Say that this computer's clock is right, after a jump that the node does not believe. It asks for your passphrase."""
    from labxchange.node.verbs import Verbs

    status = reach.needing_passphrase(lambda typed: reach.call(Verbs.clock_reset, reason=reason, passphrase=typed))
    screen.show(status, _draw, as_json=as_json)


def doctor(
    contact: Annotated[str, typer.Option("--contact", metavar="NAME", help="Check the way to this contact, too.")] = "",
    as_json: AsJson = False,
) -> None:
    """Say what is wrong with this computer, its network, or the way to a contact, and what to ask IT for.

    The exit code is 5 when something is a problem.
    """
    from labxchange.node.verbs import Verbs

    found = reach.call(Verbs.doctor, contact=contact)
    screen.show(found, _draw_diagnoses, as_json=as_json)
    if any(item.state == "problem" for item in found):
        raise typer.Exit(ExitCode.UNAVAILABLE)


def _draw_diagnoses(found: list[Diagnosis]) -> None:
    screen.table(["check", "state", "what was found"], [(item.check, item.state, item.sentence) for item in found], empty="")
    for item in found:
        if item.hint:
            screen.line()
            screen.line(f"{item.check}: {item.hint}")


def add_to(root: typer.Typer) -> None:
    """The command that belongs to no group."""
    root.command(epilog=example("labxchange doctor", 'labxchange doctor --contact "Ana Silva"'))(doctor)
