"""Options that many commands have, and the example that each command's help ends in."""

from __future__ import annotations

from typing import Annotated

import typer

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON value instead of text; errors too, on stderr.")]
CredentialFile = Annotated[
    str, typer.Option("--credential-file", metavar="PATH", help="A credential file, instead of a passphrase.")
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
