"""`labxchange contact`: the people one exchanges data with."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from labxchange import times
from labxchange.cli import asking, reach, screen
from labxchange.cli.options import AsJson, Reason, example, group
from labxchange.cli.words import ask_words, split_words
from labxchange.errors import InputError

if TYPE_CHECKING:
    from labxchange.node.values import ContactInfo, InvitationInfo, InvitationMade

app = group("The people you exchange data with: meet, verify, block.")

_MAX_BYTES = 8000
_EVIDENCE = {
    "diverged": "their audit trail told two histories",
    "rolled-back": "their audit trail had lost entries",
    "accepted": "you went on with them after that; this is what was seen last before",
}

Name = Annotated[str, typer.Argument(metavar="NAME", help="The contact's name, or the beginning of their fingerprint.")]


def _draw(contact: ContactInfo) -> None:
    screen.fields(
        [
            ("name", contact.name),
            ("organisation", contact.organisation),
            ("role", contact.role),
            ("country", contact.country),
            ("state", contact.state),
            ("fingerprint", contact.fingerprint),
            ("addresses", ", ".join(contact.addresses)),
            ("connected", "yes" if contact.connected else "no"),
            ("waiting for them", screen.number(contact.waiting, "message") if contact.waiting else ""),
            ("they offer", _offers(contact)),
            ("alert", contact.alert),
            ("their trail", contact.trail),
            ("evidence", _evidence(contact)),
            ("added", times.moment(contact.added)),
            ("verified", times.moment(contact.verified) if contact.verified else ""),
        ]
    )


def _evidence(contact: ContactInfo) -> str:
    """How much of it is kept; `contact show` prints it."""
    return screen.number(len(contact.evidence), "record") + " kept" if contact.evidence else ""


def _draw_shown(contact: ContactInfo) -> None:
    _draw(contact)
    for item in contact.evidence:
        screen.line()
        screen.line(f"{times.moment(item.utc)}: {_EVIDENCE[item.kind]}")
        for title, note in (("seen before", item.first), ("shown then", item.second)):
            if note:
                screen.line()
                screen.line(f"--- {title}")
                for text in note.splitlines():
                    screen.line(text)
    if contact.evidence:
        screen.remark("Their own signature is on each of these checkpoints, so they convince others too.")


def _draw_invitations(made: list[InvitationInfo]) -> None:
    screen.table(
        ["invitation", "for", "state", "until", "used by", "note"],
        [
            (
                item.id[:12],
                item.made_for or "anybody",
                item.state,
                times.moment(item.expires),
                item.used_by,
                f"tried again {screen.number(item.reused, 'time')} by other keys: it may be in wrong hands"
                if item.reused
                else "",
            )
            for item in made
        ],
        empty="You have made no invitation yet: `labxchange contact invite`.",
    )


def _offers(contact: ContactInfo) -> str:
    """What waits at theirs and cannot come yet."""
    return f"{screen.number(contact.offers, 'offer')}, once they have verified you" if contact.offers else ""


def _draw_met(contact: ContactInfo) -> None:
    _draw(contact)
    if contact.state == "unverified":
        screen.remark(f"Nothing can be exchanged until you both verify: `labxchange contact verify {contact.name!r}`.")


def _draw_list(contacts: list[ContactInfo]) -> None:
    screen.table(
        ["name", "organisation", "state", "connected", "fingerprint", "note"],
        [
            (
                contact.name,
                contact.organisation,
                contact.state,
                "yes" if contact.connected else "no",
                contact.fingerprint.partition("-")[0],
                contact.alert or (f"their trail: {contact.trail}" if contact.trail else _offers(contact)),
            )
            for contact in contacts
        ],
        empty="There is no contact yet. Invite somebody: `labxchange contact invite`.",
    )


def _draw_invitation(made: InvitationMade) -> None:
    screen.line(made.text)
    screen.remark(f"Send this text to the one person you want to meet. It works once, until {times.moment(made.expires)}.")
    screen.remark(made.advice)


@app.command(epilog=example("labxchange contact invite", "labxchange contact invite > invitation.txt"))
def invite(
    made_for: Annotated[
        str, typer.Option("--for", metavar="FINGERPRINT", help="The fingerprint of the person, if you know it: it verifies them.")
    ] = "",
    as_json: AsJson = False,
) -> None:
    """Make an invitation: a text that lets one person's node meet yours, once.

    It gives access to nothing. Afterwards, verify each other.
    """
    from labxchange.node.verbs import Verbs

    screen.show(reach.call(Verbs.contact_invite, made_for=made_for), _draw_invitation, as_json=as_json)


@app.command(epilog=example("labxchange contact accept", "labxchange contact accept invitation.txt"))
def accept(
    file: Annotated[str, typer.Argument(metavar="[FILE]", help="A file with the invitation; without it, paste the text.")] = "",
    as_json: AsJson = False,
) -> None:
    """Meet the person who sent you an invitation.

    The text is pasted, piped in, or read from a file; it is never an argument, which other users could see.
    """
    from labxchange.node.verbs import Verbs

    screen.show(reach.call(Verbs.contact_accept, text=_invitation(file)), _draw_met, as_json=as_json)


def _invitation(file: str) -> str:
    if file and file != "-":
        from labxchange.files.disk_errors import mapping

        with mapping(file), Path(file).expanduser().open("rb") as stream:
            return stream.read(_MAX_BYTES).decode(errors="replace")
    if not asking.person_there():
        return sys.stdin.read(_MAX_BYTES)
    return _pasted()


def _pasted() -> str:
    """An invitation from the terminal; mail programs break it into lines."""
    from labxchange.identity.invitation import parse_invitation

    screen.remark("Paste the invitation; an empty line ends it.")
    text = ""
    while (line := sys.stdin.readline()).strip():
        text += line
        with contextlib.suppress(InputError):
            parse_invitation(text)
            break
    return text


@app.command(epilog=example('labxchange contact verify "Ben Okafor"', 'labxchange contact verify "Ben Okafor" --words "..."'))
def verify(
    name: Name,
    words: Annotated[str, typer.Option("--words", metavar="SIX WORDS", help="The words that you heard; for scripts.")] = "",
    as_json: AsJson = False,
) -> None:
    """Say that a contact is who they claim to be, by the six words that they read to you.

    Hear them over a channel you trust: a telephone number you knew before, or in person; never the mail that brought the
    invitation. The words are typed here, one by one, and are never shown to be confirmed.
    """
    from labxchange.node.verbs import Verbs

    heard = split_words(words) if words else ask_words(name)
    screen.show(reach.call(Verbs.contact_verify, contact=name, words=heard), _draw, as_json=as_json)


@app.command("list", epilog=example("labxchange contact list"))
def all_contacts(as_json: AsJson = False) -> None:
    """List your contacts: who they are, whether verified, whether connected."""
    from labxchange.node.verbs import Verbs

    screen.show(reach.call(Verbs.contact_list), _draw_list, as_json=as_json)


@app.command(epilog=example('labxchange contact show "Ben Okafor"', 'labxchange contact show "Ben Okafor" --json'))
def show(name: Name, as_json: AsJson = False) -> None:
    """Show one contact, and the evidence that your node keeps of their audit trail.

    When their trail told two histories or lost entries, both signed checkpoints are here; they convince others too.
    """
    from labxchange.node.verbs import Verbs

    screen.show(reach.call(Verbs.contact_show, contact=name), _draw_shown, as_json=as_json)


@app.command(epilog=example("labxchange contact invitations"))
def invitations(as_json: AsJson = False) -> None:
    """List the invitations that you made: who used each, and how often others tried it after."""
    from labxchange.node.verbs import Verbs

    screen.show(reach.call(Verbs.contact_invitations), _draw_invitations, as_json=as_json)


@app.command(epilog=example('labxchange contact block "Ben Okafor" --reason "laptop stolen"'))
def block(name: Name, reason: Reason = "", as_json: AsJson = False) -> None:
    """Refuse a contact from now on; transfers under way with them end."""
    from labxchange.node.verbs import Verbs

    screen.show(reach.call(Verbs.contact_block, contact=name, reason=reason), _draw, as_json=as_json)


@app.command(epilog=example('labxchange contact unblock "Ben Okafor" --reason "laptop found"'))
def unblock(name: Name, reason: Reason = "", as_json: AsJson = False) -> None:
    """Let a blocked contact connect again; they are unverified then."""
    from labxchange.node.verbs import Verbs

    screen.show(reach.call(Verbs.contact_unblock, contact=name, reason=reason), _draw_met, as_json=as_json)


@app.command(epilog=example('labxchange contact accept-trail "Ben Okafor" --reason "restored from last week\'s backup"'))
def accept_trail(
    name: Name,
    reason: Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why you accept it; kept in your audit trail.")],
    as_json: AsJson = False,
) -> None:
    """Go on with a contact whose audit trail was rolled back or told two histories; the evidence is kept."""
    from labxchange.node.verbs import Verbs

    screen.show(reach.call(Verbs.contact_accept_trail, contact=name, reason=reason), _draw, as_json=as_json)
