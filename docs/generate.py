"""The parts of the documentation that are read from the source: commands, error codes, settings, events, exit codes; the
Python API by way of ``python_reference``.

Each function returns Markdown. The command line is asked through Typer, the rest is read from the syntax trees, so nothing here
runs a node and nothing can be forgotten.
"""

from __future__ import annotations

import ast
import inspect
import re
from collections import defaultdict
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import python_reference

SOURCE = Path(__file__).resolve().parent.parent / "src" / "labxchange"
ERROR_KINDS = {
    "InputError": "You: correct what was given and try again",
    "NodeLocked": "You: unlock the node",
    "RefusedError": "A rule, here or at the other party",
    "PeerError": "The other node",
    "IntegrityError": "Something does not verify",
    "UnavailableError": "Something is absent now",
}


def modules() -> Iterator[tuple[Path, ast.Module]]:
    """Every module of the package with its syntax tree."""
    for path in sorted(SOURCE.rglob("*.py")):
        yield path, ast.parse(path.read_text(encoding="utf-8"))


def version() -> str:
    return str(import_module("labxchange.settings").VERSION)


# --- errors -----------------------------------------------------------------------------------------------------------
class Code(NamedTuple):
    """One stable code: the class that carries it, its sentence and its hint, with ``…`` where a value goes."""

    code: str
    kind: str
    sentence: str
    hint: str


def _text(node: ast.expr | None) -> str:
    """A string of the source, with an ellipsis for each part that is only known when it runs; empty when it is no string."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(_text(part) if isinstance(part, ast.Constant) else "…" for part in node.values)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return _text(node.left) + _text(node.right)
    if isinstance(node, ast.Call | ast.IfExp | ast.Name | ast.Attribute):
        return "…"
    return ""


def _said(call: ast.Call) -> Code | None:
    name = call.func.id if isinstance(call.func, ast.Name) else call.func.attr if isinstance(call.func, ast.Attribute) else ""
    words = {word.arg: word.value for word in call.keywords if word.arg}
    if name in ERROR_KINDS and len(call.args) >= 2:
        return Code(_text(call.args[0]), name, _text(call.args[1]), _text(words.get("hint")))
    if name == "Deny":
        return Code(_text(words["code"]), "RefusedError", _text(words["sentence"]), _text(words["hint"]))
    return None


def codes() -> list[Code]:
    """Every code that the source can raise, one row for each code and class; the fullest sentence wins."""
    best: dict[tuple[str, str], Code] = {
        ("node-locked", "NodeLocked"): Code(
            "node-locked",
            "NodeLocked",
            "The node is locked: its keys are sealed until you unlock it.",
            "`labxchange node unlock`",
        )
    }
    for _, tree in modules():
        for node in ast.walk(tree):
            said = _said(node) if isinstance(node, ast.Call) else None
            if said is None or not re.fullmatch(r"[a-z0-9-]+", said.code):
                continue
            held = best.get((said.code, said.kind))
            if held is None or len(said.sentence) > len(held.sentence):
                best[said.code, said.kind] = said
    for code, kind in _promised():
        if all(code != held for held, _ in best):
            best[code, kind] = Code(code, kind, "", "")
    return sorted(best.values())


def _promised() -> Iterator[tuple[str, str]]:
    """Codes that docstrings name under ``Raises``; some are put together only when they are raised."""
    for path, _ in modules():
        for kind, names in re.findall(
            rf"({'|'.join(ERROR_KINDS)})[:,]? ((?:``[a-z0-9-]+``(?:,\s+)?)+)", path.read_text(encoding="utf-8")
        ):
            yield from ((code, kind) for code in re.findall(r"``([a-z0-9-]+)``", names))


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")


def _table(heads: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [heads, tuple("---" for _ in heads), *rows]
    return "\n".join(f"| {' | '.join(_cell(cell) for cell in line)} |" for line in lines)


def errors() -> str:
    rows = defaultdict(list)
    for item in codes():
        rows[item.kind].append((f"`{item.code}`", item.sentence, item.hint))
    return "\n\n".join(
        f"## {kind}\n\n{fault}.\n\n{_table(('code', 'sentence', 'hint'), rows[kind])}"
        for kind, fault in ERROR_KINDS.items()
        if rows[kind]
    )


# --- settings and limits ----------------------------------------------------------------------------------------------
LIMITS = (
    ("dataset.names", "PATH_MAX_BYTES", "bytes of a path"),
    ("dataset.names", "PATH_MAX_PARTS", "folders deep"),
    ("identity.sealing", "PASSPHRASE_MIN_LENGTH", "characters that a passphrase has at least"),
    ("identity.fingerprint", "WORD_COUNT", "words that verify a contact"),
    ("sharing.grant", "MAX_RECIPIENTS", "persons that one grant names"),
    ("net.endpoint", "HALF_OPEN_MAX", "connections that have not proven who they are"),
    ("net.endpoint", "HALF_OPEN_PER_SOURCE", "of them from one address (IPv6: one /64)"),
    ("net.quic", "WINDOW_BEFORE_BYTES", "bytes that such a connection can make a node hold"),
    ("net.quic", "WINDOW_BYTES", "bytes that a contact's connection can make a node hold"),
    ("wire.control.records", "MESSAGE_MAX_BYTES", "bytes of a control message"),
    ("wire.control.handshake", "MESSAGE_MAX_BYTES", "bytes of a handshake message"),
    ("node.local", "MAX_BODY_BYTES", "bytes of a call to the node from a program of its user"),
    ("node.clock", "JUMP_RUNNING_MS", "milliseconds that the clock may jump forward while the node runs, without being doubted"),
    ("node.clock", "JUMP_BETWEEN_RUNS_MS", "milliseconds between two runs, without being doubted"),
)


def settings() -> str:
    """Names, values and reasons of ``settings.py``, in its order. A text stands for the lines right above it."""
    tree = ast.parse((SOURCE / "settings.py").read_text(encoding="utf-8"))
    values = vars(import_module("labxchange.settings"))
    rows: list[tuple[str, ...]] = []
    block: list[str] = []
    end = 0
    for node in tree.body:
        if node.lineno > end + 1:
            block = []
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            block.append(node.target.id)
        elif isinstance(node, ast.Expr):
            rows += [(f"`{name}`", _number(values[name]), _text(node.value).replace("``", "`")) for name in block]
        end = node.end_lineno or node.lineno
    return _table(("name", "value", "what it is"), rows)


def limits() -> str:
    rows = [(_number(getattr(import_module(f"labxchange.{module}"), name)), text) for module, name, text in LIMITS]
    return _table(("limit", "of what"), rows)


def _number(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) and value >= 100_000 else str(value)


# --- events -----------------------------------------------------------------------------------------------------------
def written_events() -> set[str]:
    """Names of the members of ``Event`` that some code uses, outside the list itself and what only reads trails."""
    used: set[str] = set()
    for path, tree in modules():
        if path.parent.name != "audit":
            used |= {
                node.attr
                for node in ast.walk(tree)
                if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "Event"
            }
    return used


def events() -> str:
    used = written_events()
    groups = defaultdict(list)
    for event in import_module("labxchange.audit.events").Event:
        if event.name in used:
            groups[event.value.partition(".")[0]].append(event.value.partition(".")[2])
    return _table(("object", "what can have happened"), [(f"`{name}`", ", ".join(verbs)) for name, verbs in groups.items()])


# --- the command line -------------------------------------------------------------------------------------------------
def command_tree() -> Any:
    """The command `labxchange` as Typer makes it."""
    typer_main = import_module("typer.main")
    return typer_main.get_command(import_module("labxchange.cli.main").app)


def commands(command: Any = None, name: str = "labxchange") -> Iterator[tuple[str, Any]]:
    """Every command that can be run, with its full name."""
    command = command or command_tree()
    if not hasattr(command, "commands"):
        yield name, command
        return
    for sub, child in command.commands.items():
        yield from commands(child, f"{name} {sub}")


def _paragraphs(text: str) -> str:
    return re.sub(r"(?<!\n)\n(?!\n)", " ", inspect.cleandoc(text or ""))


def _parameter(parameter: Any) -> tuple[str, str]:
    names = [*parameter.opts, *parameter.secondary_opts]
    if parameter.param_type_name == "argument":
        names = [parameter.metavar or parameter.name.upper()]
    return ", ".join(f"`{name}`" for name in names), getattr(parameter, "help", "") or ""


def _command(name: str, command: Any) -> str:
    parts = [f"### {name}", _paragraphs(command.help)]
    rows: list[tuple[str, ...]] = [_parameter(parameter) for parameter in command.params if parameter.name != "help"]
    if rows:
        parts.append(_table(("given", ""), rows))
    if command.epilog:
        example = inspect.cleandoc(command.epilog.replace("\b", "")).removeprefix("Example:")
        parts.append(f"```console\n{chr(10).join('$ ' + line.strip() for line in example.strip().splitlines())}\n```")
    return "\n\n".join(parts)


def cli() -> str:
    groups: dict[str, list[str]] = defaultdict(list)
    root = command_tree()
    for name, command in commands(root):
        words = name.split()
        groups[words[1] if len(words) > 2 else ""].append(_command(name, command))
    parts = []
    for group, pages in groups.items():
        title = f"## labxchange {group} …\n\n{_paragraphs(root.commands[group].help)}" if group else "## Commands without a group"
        parts += [title, *pages]
    return "\n\n".join(parts)


def exit_codes() -> str:
    """The indented table in the docstring of ``cli/exit_codes.py``."""
    text = inspect.getdoc(import_module("labxchange.cli.exit_codes")) or ""
    rows: list[tuple[str, ...]] = re.findall(r"^ {4}(\d+) +(\S.*)$", text, re.MULTILINE)
    return _table(("exit code", "meaning"), rows)


# --- the pages at the top of the repository ---------------------------------------------------------------------------
PLACES = {
    "ARCHITECTURE.md": "../explain/architecture.md",
    "CHANGELOG.md": "../project/changelog.md",
    "CONTRIBUTING.md": "../project/contributing.md",
    "SECURITY.md": "../project/security.md",
    "docs/": "../",
}


def top(name: str) -> str:
    """A page of the repository's top, with its links as they are seen from a folder of the documentation."""
    text = (SOURCE.parent.parent / name).read_text(encoding="utf-8")
    for here, there in PLACES.items():
        text = text.replace(f"]({here}", f"]({there}")
    return text


PARTS: dict[str, Callable[[], str]] = {
    "architecture": lambda: top("ARCHITECTURE.md"),
    "changelog": lambda: top("CHANGELOG.md"),
    "contributing": lambda: top("CONTRIBUTING.md"),
    "security": lambda: top("SECURITY.md"),
    "cli": cli,
    "errors": errors,
    "events": events,
    "exit_codes": exit_codes,
    "limits": limits,
    "python": python_reference.page,
    "settings": settings,
}
