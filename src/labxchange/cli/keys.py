"""`labxchange key`: one's own identity."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from labxchange.cli import asking, reach, screen
from labxchange.cli.options import AsJson, CredentialFile, example, group

if TYPE_CHECKING:
    from labxchange.node.values import Me

app = group("Your own identity: make it, show it, keep a copy of it.")

Keyring = Annotated[bool, typer.Option("--keyring", help="Keep what opens the keys in the keyring of this computer.")]


def _draw(me: Me) -> None:
    screen.fields(
        [
            ("name", me.name),
            ("organisation", me.organisation),
            ("role", me.role),
            ("country", me.country),
            ("fingerprint", me.fingerprint),
            ("six words", " ".join(me.words)),
            ("addresses", ", ".join(me.addresses)),
            ("keys", "sealed: `labxchange node unlock` opens them" if me.locked else "open"),
        ]
    )


def _seal(credential_file: str, keyring: bool) -> tuple[str, str]:
    """(passphrase, absolute credential file) that an identity is sealed with."""
    if credential_file or keyring:
        return "", reach.maybe_absolute(credential_file)
    return asking.new_passphrase("New passphrase for this node"), ""


@app.command(epilog=example('labxchange key create --name "Ana Silva" --organisation "Northbridge CRO" --role biostatistician'))
def create(
    name: Annotated[str, typer.Option("--name", help="Your name, as others will see it.")] = "",
    organisation: Annotated[str, typer.Option("--organisation", help="Your organisation.")] = "",
    role: Annotated[str, typer.Option("--role", help="What you do there.")] = "",
    country: Annotated[str, typer.Option("--country", help="The country you work in.")] = "",
    credential_file: CredentialFile = "",
    keyring: Keyring = False,
    as_json: AsJson = False,
) -> None:
    """Make your identity on this computer.

    You are asked for a passphrase, which seals the keys; nobody can recover it. On a server, --credential-file seals them with a
    file of random bits instead, which is made when it is not there; keep it where only this user can read it.
    """
    from labxchange.node.verbs import Verbs

    name = asking.text("Your name", given=name, option="--name")
    organisation = asking.text("Your organisation", given=organisation, option="--organisation")
    passphrase, file = _seal(credential_file, keyring)
    me = reach.call(
        Verbs.key_create,
        name=name,
        organisation=organisation,
        role=role,
        country=country,
        passphrase=passphrase,
        credential_file=file,
        keyring=keyring,
    )
    screen.show(me, _draw, as_json=as_json)
    if not as_json:
        screen.remark("Keep a copy of it: `labxchange key backup FILE`. Meet somebody: `labxchange contact invite`.")


@app.command(epilog=example("labxchange key show"))
def show(as_json: AsJson = False) -> None:
    """Show your name, fingerprint and six words.

    Read the six words to a contact by telephone; they type them into `labxchange contact verify`.
    """
    from labxchange.node.verbs import Verbs

    screen.show(reach.call(Verbs.key_show), _draw, as_json=as_json)


@app.command(epilog=example("labxchange key backup ~/labxchange-key-backup.json"))
def backup(
    file: Annotated[str, typer.Argument(metavar="FILE", help="A new file.")],
    as_json: AsJson = False,
) -> None:
    """Write your keys to a file, sealed under a passphrase of its own.

    It gives back the identity, not the audit trail, the receipts or the contacts: `labxchange node backup` keeps everything.
    """
    from labxchange.node.verbs import Verbs

    target = reach.absolute(file)
    sealing = asking.new_passphrase("New passphrase for the backup")
    me = reach.needing_passphrase(
        lambda opening: reach.call(Verbs.key_backup, path=target, backup_passphrase=sealing, passphrase=opening)
    )
    screen.show(me, lambda _: screen.line(f"The keys are in {target}. Keep it and its passphrase apart."), as_json=as_json)


@app.command(epilog=example("labxchange key restore ~/labxchange-key-backup.json"))
def restore(
    file: Annotated[str, typer.Argument(metavar="FILE", help="The file of `labxchange key backup`.")],
    credential_file: CredentialFile = "",
    keyring: Keyring = False,
    as_json: AsJson = False,
) -> None:
    """Take up the identity of a backup on a computer that has none.

    The audit trail starts anew, and your contacts are shown that it did.
    """
    from labxchange.node.verbs import Verbs

    opening = asking.passphrase("Passphrase of the backup")
    passphrase, credential = _seal(credential_file, keyring)
    me = reach.call(
        Verbs.key_restore,
        path=reach.absolute(file),
        backup_passphrase=opening,
        passphrase=passphrase,
        credential_file=credential,
        keyring=keyring,
    )
    screen.show(me, _draw, as_json=as_json)
