"""Options that many commands have, and the example that each command's help ends in."""

from __future__ import annotations

from typing import Annotated

import typer

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON value instead of text; errors too, on stderr.")]
CredentialFile = Annotated[
    str, typer.Option("--credential-file", metavar="PATH", help="A credential file, instead of a passphrase.")
]
Lanes = Annotated[
    int | None,
    typer.Option("--lanes", metavar="N", help="Over how many lanes the data comes, 1 to 16; 0 leaves it to the node."),
]
Priority = Annotated[
    str | None,
    typer.Option("--priority", metavar="LEVEL", help="low, normal or high: who goes first where one path carries several."),
]
Rate = Annotated[
    str | None,
    typer.Option("--rate", metavar="RATE", help="No faster than this: 100M, 12.5 MB/s, 800 Mbit/s; off is no limit."),
]
Reason = Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why; it is kept in the audit trail.")]
Sender = Annotated[
    str, typer.Option("--from", metavar="NAME", help="Who offers it; needed only where several contacts offer what SHARE names.")
]
Trust = Annotated[
    list[str] | None,
    typer.Option("--trust", metavar="FINGERPRINT", help="A fingerprint you know from the person; can be repeated."),
]


def group(about: str) -> typer.Typer:
    """A group of commands, e.g. ``labxchange key ...``; alone it shows its help."""
    return typer.Typer(help=about, no_args_is_help=True, rich_markup_mode=None, pretty_exceptions_enable=False)


def example(*commands: str) -> str:
    """The end of a command's help; ``\\b`` keeps the lines as they are."""
    return "\b\nExample:\n" + "\n".join(f"  {command}" for command in commands)
