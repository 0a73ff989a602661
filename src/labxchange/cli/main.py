"""The command `labxchange`: puts the groups together and maps every failure to a sentence, a hint, a code and an exit code.

Modules of commands import nothing of the node at their top; what a command needs it imports when it runs, so that `--help`
answers at once.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from labxchange.cli import contacts, datasets, decisions, keys, nodes, options, receipts, shares, trail, transfers
from labxchange.cli.exit_codes import ExitCode, code_of
from labxchange.errors import InputError, LabxchangeError

app = options.group("Share, receive and verify datasets, machine to machine, with an audit trail that can be checked.")
app.add_typer(keys.app, name="key")
app.add_typer(contacts.app, name="contact")
app.add_typer(datasets.app, name="dataset")
app.add_typer(shares.app, name="share")
transfers.add_to(app)
decisions.add_to(transfers.app)
app.add_typer(transfers.app, name="transfer")
app.add_typer(receipts.app, name="receipt")
app.add_typer(trail.app, name="audit")
nodes.add_to(app)
app.add_typer(nodes.app, name="node")
app.add_typer(nodes.clock, name="clock")


def _version(wanted: bool) -> None:
    if wanted:
        from labxchange.settings import SOFTWARE

        sys.stdout.write(f"{SOFTWARE}\n")
        raise typer.Exit


@app.callback()
def labxchange(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")] = False,
) -> None:
    """Share, receive and verify datasets, machine to machine, with an audit trail that can be checked.

    Start with `labxchange key create`, then `labxchange contact invite`.
    """


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code (``exit_codes``)."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    as_json = "--json" in given
    try:
        code = app(given, prog_name="labxchange", standalone_mode=False)
        sys.stdout.flush()
        return _interrupted(as_json=as_json) if code == ExitCode.INTERRUPTED else int(code or 0)
    except LabxchangeError as error:
        return _failed(error, code_of(error), as_json=as_json)
    except typer.TyperException as error:
        return _misused(error, as_json=as_json)
    except typer.Abort:
        return _interrupted(as_json=as_json)
    except BrokenPipeError:
        # Whoever read our output has seen enough. The interpreter's own flush at its end must not complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitCode.OK
    except Exception as error:
        if "LABXCHANGE_TRACEBACK" in os.environ:
            raise
        unexpected = LabxchangeError(
            "unexpected",
            f"Something went wrong in labxchange itself: {type(error).__name__}: {error}",
            hint="Please report it with what LABXCHANGE_TRACEBACK=1 prints, and the end of `labxchange node logs`.",
        )
        return _failed(unexpected, ExitCode.UNEXPECTED, as_json=as_json)


def _interrupted(*, as_json: bool) -> int:
    """Ctrl-C or Ctrl-D: the terminal shows it; only a program has to be told."""
    if as_json:
        return _failed(LabxchangeError("interrupted", "Interrupted."), ExitCode.INTERRUPTED, as_json=True)
    sys.stderr.write("\n")
    return ExitCode.INTERRUPTED


def _failed(error: LabxchangeError, code: ExitCode, *, as_json: bool) -> int:
    """Say what went wrong, on stderr."""
    if as_json:
        import json

        told = {"code": error.code, "message": error.message, "hint": error.hint, "exit": int(code)}
        sys.stderr.write(json.dumps({"error": told}) + "\n")
        return code
    from labxchange.cli.screen import remark

    remark(f"{error.message} [{error.code}]")
    if error.hint:
        remark(error.hint)
    return code


def _misused(error: typer.TyperException, *, as_json: bool) -> int:
    """A command line that cannot be read; a group without a command shows its help."""
    context = getattr(error, "ctx", None)
    message = error.format_message()
    if context is not None and message == context.get_help() and not as_json:
        sys.stderr.write(f"{message}\n")
        return ExitCode.INPUT
    where = context.command_path if context is not None else "labxchange"
    if message.startswith("Usage:"):
        message = f"{where} needs a command."
    return _failed(InputError("usage", message, hint=f"See `{where} --help`."), ExitCode.INPUT, as_json=as_json)


if __name__ == "__main__":
    sys.exit(main())
