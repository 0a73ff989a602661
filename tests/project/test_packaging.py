"""What is pinned: nobody with a Python that the project promises to work with is refused by a package."""

from __future__ import annotations

import tomllib
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

ROOT = Path(__file__).resolve().parents[2]


def test_the_lowest_python_can_have_every_pinned_version() -> None:
    """Debian 12 has 3.11.2: a package that wants 3.11.5 ends ``make test`` there."""
    promised = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["requires-python"]
    lowest = promised.removeprefix(">=") + ".0"
    pinned = [Requirement(line) for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines() if "==" in line]
    seen, refusing = 0, []
    for item in pinned:
        try:
            found = distribution(item.name)
        except PackageNotFoundError:
            continue  # of another system
        seen += 1
        if not SpecifierSet(found.metadata["Requires-Python"] or "").contains(lowest):
            refusing.append(f"{found.name} {found.version}: {found.metadata['Requires-Python']}")
    assert seen > 100
    assert not refusing
