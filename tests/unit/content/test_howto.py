"""The examples of the page on tables run as written, one after the other."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.unit.content.samples import pilot

PAGE = Path(__file__).resolve().parents[3] / "docs" / "howto" / "tables.md"


def test_the_examples_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    Path("adsl.xpt").write_bytes(pilot("adsl.xpt"))
    page = PAGE.read_text(encoding="utf-8")
    code = "\n".join(re.findall(r"```python\n(.*?)```", page, re.DOTALL))
    held: dict[str, object] = {}
    exec(code, held)
    assert "254 rows before, 253 after" in capsys.readouterr().out
    for expression, said in re.findall(r"^(adsl\.attrs.*?)  # (.*)$", page, re.MULTILINE):
        assert repr(eval(expression, held)) == said
    assert Path("women.xpt").stat().st_size < len(pilot("adsl.xpt")) / 4
