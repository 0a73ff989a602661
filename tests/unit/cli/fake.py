"""A node that answers what a test says, and remembers what it was asked."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from labxchange.cli import reach
from labxchange.cli.main import main
from labxchange.node import values

HOSTILE = "[red]\x1b[31m\u202egnp\u009b[/red]\n"
"""Markup, an escape sequence, a direction mark, a C1 control and a line break, as a peer may name things."""

_SAMPLES: dict[type, Any] = {str: "", int: 0, bool: False}


class FakeNode:
    """Stands in for ``Client``. ``answers``: verb name -> value, error, or a function of the parameters; a list of ``Step``."""

    def __init__(self) -> None:
        self.answers: dict[str, Any] = {"contact_list": []}
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.stopped = False

    async def call(self, verb: Callable[..., Any], **given: Any) -> Any:
        name = verb.__name__
        self.calls.append((name, given))
        answer = self.answers[name]
        if isinstance(answer, list) and answer and isinstance(answer[0], Step):
            answer = (answer.pop(0) if len(answer) > 1 else answer[0]).value
        if callable(answer) and not isinstance(answer, type):
            answer = answer(**given)
        if isinstance(answer, BaseException):
            raise answer
        return answer

    async def stop_node(self) -> None:
        self.stopped = True

    def asked(self, name: str) -> list[dict[str, Any]]:
        return [given for called, given in self.calls if called == name]


class Step:
    """One answer of a list of them; the last one repeats."""

    def __init__(self, value: Any) -> None:
        self.value = value


def install(monkeypatch: pytest.MonkeyPatch) -> FakeNode:
    node = FakeNode()
    monkeypatch.setattr(reach, "_client", lambda start: node)
    return node


def sample(kind: type[msgspec.Struct], **given: Any) -> Any:
    """A value of ``kind`` with plain contents."""
    filled: dict[str, Any] = {}
    for field in msgspec.structs.fields(kind):
        if field.name in given:
            filled[field.name] = given.pop(field.name)
        elif field.required:
            filled[field.name] = _plain(field.type)
    assert not given, f"{kind.__name__} has no {list(given)}"
    return kind(**filled)


def _plain(kind: Any) -> Any:
    if kind in _SAMPLES:
        return _SAMPLES[kind]
    choices = getattr(kind, "__args__", ())
    if isinstance(choices, tuple) and choices and isinstance(choices[0], str):
        return choices[0]
    return {} if "dict" in str(kind) else ()


def person(*, present: bool, monkeypatch: pytest.MonkeyPatch, typed: list[str] | None = None) -> list[str]:
    """Whether somebody is at the terminal, and what they type at hidden prompts; returns the prompts they saw."""
    prompts: list[str] = []
    answers = list(typed or [])

    def hidden(prompt: str) -> str:
        prompts.append(prompt)
        return answers.pop(0)

    monkeypatch.setattr("labxchange.cli.asking.person_there", lambda: present)
    monkeypatch.setattr("getpass.getpass", hidden)
    return prompts


__all__ = ["HOSTILE", "FakeNode", "Step", "install", "main", "person", "sample", "values"]
