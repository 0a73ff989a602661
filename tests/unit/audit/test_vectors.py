"""The committed vectors are what the code makes, and scopes follow their formula."""

from __future__ import annotations

import hmac
import json
from hashlib import sha256

import pytest

from labxchange.audit import verifier
from labxchange.encoding import frame
from tests.vectors.make_audit import PATH, vectors

COMMITTED = json.loads(PATH.read_text(encoding="utf-8"))


def test_the_generator_gives_the_committed_file() -> None:
    assert vectors() == COMMITTED


@pytest.mark.parametrize("case", COMMITTED["bundles"], ids=lambda case: str(case["name"]))
def test_bundle_vectors(case: dict[str, object]) -> None:
    result = verifier.verify(str(case["file"]).encode(), trust=case["trust"])  # type: ignore[arg-type]
    assert result.verdict.value == case["verdict"]
    assert [reason.code for reason in result.reasons] == case["codes"]
    assert [reason.entry for reason in result.reasons] == case["entries"]


@pytest.mark.parametrize("case", COMMITTED["scopes"], ids=lambda case: str(case["name"]))
def test_scope_vectors(case: dict[str, str]) -> None:
    own = bytes.fromhex(case["trail_scope_key"])
    key = hmac.new(own, frame(case["kind"], case["name"]), sha256).digest()
    tag = sha256(frame("labxchange scope v1", key, case["kind"], case["name"])).digest()[:16]
    assert (key.hex(), tag.hex()) == (case["scope_key"], case["tag"])
