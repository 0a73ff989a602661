"""The page of the Python API, from signatures and docstrings: every name of ``lx``, and of what its functions return every
method, property and field.

What is public is found here and not listed by hand, but for the order: a class of ours that a public signature names has to stand
in ``CLASSES``, and ``missing`` says what has none of a docstring, an example, or a word for an argument or a field. Docstrings
have the sections ``Args``, ``Fields``, ``Raises`` and ``Example``; examples are lines of one story, which a test carries out in
the order of the page.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any, NamedTuple

import msgspec

NAMES = (
    *("me", "contacts", "share", "shares", "inbox", "receive", "transfers", "audit", "compare", "fingerprint"),
    *("LabxchangeError", "NodeLocked"),
)
CLASSES = {
    "Share": "notebook.share",
    "Transfer": "notebook.handles",
    "Receipt": "notebook.shown",
    "ReceiptInfo": "node.values",
    "Contacts": "notebook.lists",
    "Shares": "notebook.lists",
    "Inbox": "notebook.lists",
    "Transfers": "notebook.lists",
    "Trail": "notebook.lists",
    "ShareForm": "notebook.share_form",
    "InboxPanel": "notebook.inbox_panel",
    "TrailPanel": "notebook.trail_panel",
    "Me": "node.values",
    "ContactInfo": "node.values",
    "EvidenceInfo": "node.values",
    "ShareInfo": "node.values",
    "RecipientStatus": "node.values",
    "WithheldInfo": "node.values",
    "InboxItem": "node.values",
    "TransferInfo": "node.values",
    "LimitsInfo": "node.values",
    "PathInfo": "node.values",
    "Report": "dataset.check",
    "Finding": "dataset.check",
    "NotRun": "dataset.check",
    "EntryInfo": "node.values",
    "Comparison": "content.compare",
    "CellChange": "content.compare",
    "Change": "content.compare",
    "Fingerprint": "content.fingerprint",
}
"""What the functions return, and what that holds -> where it is defined."""

ALIASES = {"ShownMe": "Me", "ShownReport": "Report"}
"""A value with a display -> the value that it is."""

_PANELS = ("ShareForm", "InboxPanel", "TrailPanel")
"""Of a panel only its end is for people; the rest keeps it true."""

_SECTION = re.compile(r"^(Args|Fields|Raises|Example):$", re.MULTILINE)


class Entry(NamedTuple):
    """One public thing: its full name as people write it, its signature, its docstring, and what has to have a word there."""

    name: str
    signature: str
    doc: str
    words: tuple[str, ...]
    field_types: dict[str, str]


class Doc(NamedTuple):
    """A docstring in its parts."""

    text: str
    args: list[tuple[str, str]]
    fields: list[tuple[str, str]]
    raises: list[tuple[str, str]]
    example: str


def split(doc: str) -> Doc:
    """The parts of a docstring that was cleaned of its indentation."""
    text, *rest = _SECTION.split(doc)
    parts = {name: inspect.cleandoc(body.strip("\n")) for name, body in zip(rest[::2], rest[1::2], strict=True)}
    return Doc(
        text=text.strip(),
        args=_words(parts.get("Args", "")),
        fields=_words(parts.get("Fields", "")),
        raises=_words(parts.get("Raises", "")),
        example=parts.get("Example", ""),
    )


def _words(section: str) -> list[tuple[str, str]]:
    """``name: what it is``, whose lines go on indented."""
    joined = re.sub(r"\n\s+", " ", section)
    return [(name, said) for name, _, said in (line.partition(": ") for line in joined.splitlines() if line)]


def owned(kind: type) -> bool:
    return kind.__module__.startswith("labxchange")


def _annotation(note: Any) -> str:
    text = note if isinstance(note, str) else getattr(note, "__name__", str(note))
    for shown, plain in ALIASES.items():
        text = re.sub(rf"\b{shown}\b", plain, text)
    return re.sub(r"\bpandas\.DataFrame\b", "DataFrame", text)


def _signature(name: str, called: Callable[..., Any], *, bound: bool) -> str:
    parameters = list(inspect.signature(called).parameters.values())[1 if bound else 0 :]
    parts: list[str] = []
    for one in parameters:
        if one.kind is one.KEYWORD_ONLY and "*" not in parts:
            parts.append("*")
        default = "" if one.default is one.empty else f" = {one.default!r}"
        parts.append(f"{one.name}: {_annotation(one.annotation)}{default}")
    line = f"{name}({', '.join(parts)})"
    if len(line) > 100:
        line = f"{name}(\n" + "".join(f"    {part},\n" for part in parts) + ")"
    return f"{line} -> {_annotation(inspect.signature(called).return_annotation)}"


def _arguments(called: Callable[..., Any], *, bound: bool) -> tuple[str, ...]:
    return tuple(inspect.signature(called).parameters)[1 if bound else 0 :]


def functions() -> Iterator[Entry]:
    """The functions of ``lx``, in the order in which they are needed."""
    module = import_module("labxchange")
    for name in NAMES:
        found = getattr(module, name)
        if not isinstance(found, type):
            signature = _signature(f"lx.{name}", found, bound=False)
            words = tuple(word for word in _arguments(found, bound=False) if word not in ("a", "b", "table"))
            yield Entry(f"lx.{name}", signature, inspect.getdoc(found) or "", words, {})


def errors() -> Iterator[Entry]:
    """The root of all errors, and the one that people catch."""
    module = import_module("labxchange")
    for name in NAMES:
        found = getattr(module, name)
        if isinstance(found, type):
            hints = {word: _annotation(note) for word, note in vars(found).get("__annotations__", {}).items()}
            yield Entry(f"lx.{name}", "", inspect.getdoc(found) or "", tuple(hints), hints)


def classes() -> Iterator[tuple[str, list[Entry]]]:
    """What is returned: the class itself, then its members."""
    for name, place in CLASSES.items():
        kind = getattr(import_module(f"labxchange.{place}"), name)
        yield name, [_class(name, kind), *_members(name, kind)]


def _class(name: str, kind: type) -> Entry:
    notes = vars(kind).get("__annotations__", {}) if issubclass(kind, msgspec.Struct) else {}
    types = {word: _annotation(note) for word, note in notes.items() if not word.startswith("_")}
    return Entry(name, "", inspect.getdoc(kind) or "", tuple(types), types)


def _members(name: str, kind: type) -> Iterator[Entry]:
    seen: set[str] = set()
    bases = [one for one in kind.__mro__ if owned(one)]
    for one in bases:
        for word, found in vars(one).items():
            public = not word.startswith("_") and word not in seen and (name not in _PANELS or word == "close")
            if not public:
                continue
            seen.add(word)
            owner = {"Share": "shared", "Transfer": "received"}.get(name, name)
            if isinstance(found, property) and found.fget is not None:
                given = _annotation(inspect.signature(found.fget).return_annotation)
                yield Entry(f"{name}.{word}", f"{owner}.{word} -> {given}", inspect.getdoc(found) or "", (), {})
            elif inspect.isfunction(found):
                signature = _signature(f"{owner}.{word}", found, bound=True)
                yield Entry(f"{name}.{word}", signature, inspect.getdoc(found) or "", _arguments(found, bound=True), {})


def entries() -> list[Entry]:
    """Everything public, in the order of the page."""
    return [*functions(), *(entry for _, found in classes() for entry in found), *errors()]


def missing() -> list[str]:
    """What somebody would look for in vain."""
    return [said for entry in entries() for said in judged(entry)]


def judged(entry: Entry) -> list[str]:
    """What is missing of one."""
    doc = split(entry.doc)
    told = {name for name, _ in (*doc.args, *doc.fields)}
    texts = (entry.signature, *entry.field_types.values())
    named = {word for text in texts for word in re.findall(r"\b[A-Z]\w+", re.sub(r"'[^']*'|\"[^\"]*\"", "", text))}
    lacks = [
        *["no docstring"] * (not doc.text),
        *["no example"] * (not doc.example),
        *(f"no word on {word}" for word in entry.words if word not in told),
        *(f"has no {word}" for word in sorted(told - {*entry.words, *entry.field_types})),
        *(f"{word} is not described" for word in sorted(named - {*CLASSES, *_FOREIGN})),
    ]
    return [f"{entry.name}: {lack}" for lack in lacks]


_FOREIGN = {"DataFrame", "Path", "Iterable", "Sequence", "Literal", "None", "Verdict", "FindingKind"}
"""Types that are not ours, and two enumerations whose words stand where they are used."""


# --- Markdown ---------------------------------------------------------------------------------------------------------
def _prose(text: str) -> str:
    """Of reStructuredText that docstrings use to Markdown: double backticks only."""
    return text.replace("``", "`")


def _cell(text: str) -> str:
    return _prose(text).replace("|", "\\|")


def _linked(kind: str) -> str:
    """A type, with a link to each class of ours."""
    parts = re.split(r"(\b[A-Z]\w+\b)", kind)
    if not any(part in CLASSES for part in parts):
        return f"`{kind}`".replace("|", "\\|")
    shown = "".join(f"[{part}](#{part.lower()})" if part in CLASSES else part for part in parts)
    return shown.replace("|", "\\|").replace("...", "…")


def _table(heads: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [heads, tuple("---" for _ in heads), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _body(entry: Entry) -> list[str]:
    doc = split(entry.doc)
    parts = [f"```text\n{entry.signature}\n```"] if entry.signature else []
    returned = entry.signature.rpartition(" -> ")[2]
    parts.append(_prose(doc.text))
    if returned in CLASSES and returned != entry.name.partition(".")[0]:
        parts.append(f"Gives {_linked(returned)}.")
    if doc.args:
        parts.append(_table(("given", ""), [(f"`{name}`", _cell(said)) for name, said in doc.args]))
    if doc.fields:
        rows = [(f"`{name}`", _linked(entry.field_types.get(name, "")), _cell(said)) for name, said in doc.fields]
        parts.append(_table(("field", "type", ""), rows))
    if doc.raises:
        parts.append(_table(("raises", ""), [(f"`{name}`", _cell(said)) for name, said in doc.raises]))
    if doc.example:
        parts.append(f"```python\n{doc.example}\n```")
    return parts


def page() -> str:
    """The whole page below its introduction."""
    parts = ["## Functions"]
    for entry in functions():
        parts += [f"### {entry.name}", *_body(entry)]
    parts.append("## What they return")
    for name, (first, *members) in classes():
        parts += [f"### {name}", *_body(first)]
        for entry in members:
            parts += [f"#### {entry.name}", *_body(entry)]
    parts.append("## Errors")
    for entry in errors():
        parts += [f"### {entry.name}", *_body(entry)]
    return "\n\n".join(parts)
