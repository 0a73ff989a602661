"""What each ring may take from Python and from others, and what `import labxchange` brings and costs.

The order of the packages among themselves is `.importlinter`'s; it is run here too, so that no test run passes without it.
"""

from __future__ import annotations

import ast
import json
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src" / "labxchange"

PURE = ("errors.py", "settings.py", "encoding.py", "merkle.py", "identity", "dataset", "sharing", "audit", "wire")
ALONE = "audit/verifier.py"
"""It reads a file and is a command, so it is not pure; it is judged by a rule of its own."""

PURE_MAY_USE = {
    "__future__",
    "base64",
    "binascii",
    "collections",
    "enum",
    "bisect",
    "functools",
    "hashlib",
    "hmac",
    "itertools",
    "json",
    "math",
    "re",
    "struct",
    "typing",
    "unicodedata",
    "zlib",
    "blake3",
    "cryptography",
    "labxchange",
    "msgspec",
    "numpy",
}
MAY_READ_ITS_DATA = {"identity/fingerprint.py": {"importlib"}}
"""The word list, which comes with the package."""

DRAWS_OR_LOOKS = {"generate", "generate_key", "encapsulate", "urandom", "token_bytes", "random", "now", "today", "utcnow", "open"}
"""Calls that would bring randomness, time or files into a pure module."""

HEAVY = {"aioquic", "alembic", "asyncio", "cryptography", "httpx", "msgspec", "numpy", "rich", "sqlalchemy", "starlette", "typer"}
NAMES = {
    "LabxchangeError",
    "NodeLocked",
    "audit",
    "compare",
    "contacts",
    "fingerprint",
    "inbox",
    "me",
    "receive",
    "share",
    "shares",
    "transfers",
}


def _pure_modules() -> Iterator[Path]:
    for name in PURE:
        place = SOURCE / name
        modules = (place,) if place.is_file() else sorted(place.rglob("*.py"))
        yield from (module for module in modules if module != SOURCE / ALONE)


def _imported(tree: ast.AST) -> set[str]:
    """The top-level names of everything that a module imports, wherever in it."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute here"
            found.add((node.module or "").partition(".")[0])
    return found


@pytest.mark.parametrize("path", list(_pure_modules()), ids=lambda path: str(path.relative_to(SOURCE)))
def test_pure_modules_take_time_randomness_and_files_as_arguments(path: Path) -> None:
    name = str(path.relative_to(SOURCE))
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert _imported(tree) <= PURE_MAY_USE | MAY_READ_ITS_DATA.get(name, set())
    waits = [node.lineno for node in ast.walk(tree) if isinstance(node, ast.AsyncFunctionDef | ast.Await)]
    assert not waits, f"only functions that wait are async, and nothing here waits: lines {waits}"
    signatures = [node.args for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    arguments = {one.arg for signature in signatures for one in (*signature.args, *signature.kwonlyargs)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute | ast.Name):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else node.func.id
            owner = ast.unparse(node.func.value) if isinstance(node.func, ast.Attribute) else ""
            given = owner == "self" or (isinstance(node.func, ast.Name) and called in arguments)
            assert called not in DRAWS_OR_LOOKS or given, f"{name}:{node.lineno} calls {owner}.{called}"


def test_the_verifier_needs_python_and_cryptography_alone() -> None:
    imported = _imported(ast.parse((SOURCE / ALONE).read_text(encoding="utf-8")))
    assert imported <= set(sys.stdlib_module_names) | {"cryptography"}
    assert not imported & {"socket", "urllib", "http", "ssl", "subprocess", "pickle", "zipfile", "tarfile"}


def test_the_verifier_runs_as_a_file_of_its_own(tmp_path: Path) -> None:
    copy = tmp_path / "verifier.py"
    copy.write_bytes((SOURCE / ALONE).read_bytes())
    (tmp_path / "empty.labxtrail").write_bytes(b"")
    told = subprocess.run(
        [sys.executable, "-I", str(copy), str(tmp_path / "empty.labxtrail")], capture_output=True, text=True, timeout=60
    )
    assert told.returncode == 13, told.stderr
    assert told.stdout.startswith("INVALID")


def test_imports_point_inward() -> None:
    told = subprocess.run(
        [str(Path(sys.executable).parent / "lint-imports"), "--no-cache"],
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT / "src"), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert told.returncode == 0, told.stdout + told.stderr


def _fresh(code: str) -> dict[str, object]:
    """What ``code`` stores in ``out``, run in a process that has imported nothing."""
    program = (
        f"import sys, time; sys.path.insert(0, {str(ROOT / 'src')!r}); out = {{}}\n{code}\nimport json; print(json.dumps(out))"
    )
    told = subprocess.run([sys.executable, "-I", "-c", program], capture_output=True, text=True, timeout=60, check=True)
    result: dict[str, object] = json.loads(told.stdout)
    return result


def test_the_public_names_are_these() -> None:
    out = _fresh("import labxchange; out['all'] = labxchange.__all__; out['dir'] = dir(labxchange)")
    assert set(out["all"]) - {"__version__"} == NAMES
    assert out["dir"] == out["all"]
    assert len(out["all"]) <= 15


def test_every_public_name_is_there_and_says_what_it_is() -> None:
    out = _fresh("import labxchange\nfor name in labxchange.__all__: out[name] = getattr(labxchange, name).__doc__ or ''")
    assert all(out[name] for name in NAMES), out


def test_import_loads_next_to_nothing() -> None:
    """The bar is 150 ms. What is counted is what makes the time, and does not depend on how busy the machine is."""
    out = _fresh("before = set(sys.modules); import labxchange; out['loaded'] = sorted(set(sys.modules) - before)")
    loaded = set(out["loaded"])
    assert not {name.partition(".")[0] for name in loaded} & HEAVY
    assert len(loaded) <= 50, loaded


def test_import_takes_far_less_than_150_ms() -> None:
    code = "began = time.perf_counter(); import labxchange; out['s'] = time.perf_counter() - began"
    assert statistics.median(float(str(_fresh(code)["s"])) for _ in range(7)) < 0.150


def test_help_answers_without_loading_the_node() -> None:
    out = _fresh("from labxchange.cli import main; out['loaded'] = sorted(sys.modules)")
    assert not set(out["loaded"]) & {"aioquic", "sqlalchemy", "alembic", "numpy", "starlette", "uvicorn", "labxchange.node.node"}


def test_a_name_of_the_package_stays_what_it_is_when_the_folder_of_that_name_is_imported() -> None:
    code = "import labxchange as lx, labxchange.audit.verifier; from labxchange.audit import entry; assert callable(lx.audit)"
    subprocess.run([sys.executable, "-c", code], check=True)
