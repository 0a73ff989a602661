"""What a check of a dataset found, as a value: counts, findings, which checks ran and which did not.

A report says *intact* only when every file of the manifest matched; files that are there and not listed are named and are a
verdict of their own. The list of findings is bounded, the counts never are. Doing the check is left to ``files.verify``.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

import msgspec

MAX_FINDINGS: Final = 1000


class FindingKind(StrEnum):
    """In what way a file is not as its manifest says."""

    DIFFER = "differ"
    MISSING = "missing"
    UNEXPECTED = "unexpected"
    ERROR = "error"


class Verdict(StrEnum):
    """The one word of a report."""

    INTACT = "intact"
    """Every file of the manifest is there and matches; nothing else is there."""
    INTACT_WITH_EXTRA = "intact-with-extra"
    """Every file of the manifest is there and matches; other files are there too."""
    NOT_INTACT = "not-intact"
    """At least one file differs, is missing or could not be read."""


class Finding(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One file that is not as it should be.

    Fields:
        path: the file, in the dataset.
        kind: differ, missing, unexpected or error.
        offset: the first byte of the first chunk that differs; -1 when it is not known.
        expected: the digest in hexadecimal (of the chunk when ``offset`` is known, else of the file), or the size ("12 bytes").
        got: what was found instead.
        text: all of it as a sentence.

    Example:
        [(one.path, one.text) for one in received.report.findings]
    """

    path: str
    kind: FindingKind
    offset: int = -1
    expected: str = ""
    got: str = ""
    text: str = ""


class NotRun(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A check that did not run, and why.

    Fields:
        name: the check.
        why: the reason.

    Example:
        [(one.name, one.why) for one in received.report.checks_not_run]
    """

    name: str
    why: str


class Report(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The result of a check of all files against what the sender signed.

    Fields:
        verdict: intact; intact-with-extra: other files are there too; not-intact: at least one differs, is missing or unreadable.
        matched: files that match.
        differ: files whose bytes are others.
        missing: files that are not there.
        unexpected: files that are there and not in the manifest.
        error: files that could not be read.
        left_out: files that the sender's node could not read, so that there is nothing to check them against.
        bytes: bytes that were read and match.
        findings: the first thousand files that are not as they should be.
        truncated: whether there are more of them.
        checks_run: what was checked, in words.
        checks_not_run: what was not, and why.
        reused_bytes: bytes of a transfer that were here already, in earlier versions.

    Example:
        print(received.report.verdict, received.report.matched)
    """

    verdict: Verdict
    matched: int
    differ: int
    missing: int
    unexpected: int
    error: int
    left_out: int
    bytes: int
    findings: tuple[Finding, ...]
    truncated: bool
    checks_run: tuple[str, ...]
    checks_not_run: tuple[NotRun, ...]
    reused_bytes: int = 0


class Findings:
    """Collects what a check finds: counts all, keeps the first ``limit``, gives the report."""

    def __init__(self, limit: int = MAX_FINDINGS) -> None:
        self._limit = limit
        self._kept: list[Finding] = []
        self._counts = dict.fromkeys(FindingKind, 0)
        self._matched = 0
        self._bytes = 0
        self._left_out = 0

    def match(self, size: int) -> None:
        """A file matched."""
        self._matched += 1
        self._bytes += size

    def leave_out(self) -> None:
        """A listed file has no digest to be checked against."""
        self._left_out += 1

    def add(self, finding: Finding) -> None:
        self._counts[finding.kind] += 1
        if len(self._kept) < self._limit:
            self._kept.append(finding)

    def report(self, *, checks_run: tuple[str, ...], checks_not_run: tuple[NotRun, ...]) -> Report:
        counts = self._counts
        if counts[FindingKind.DIFFER] or counts[FindingKind.MISSING] or counts[FindingKind.ERROR]:
            verdict = Verdict.NOT_INTACT
        elif counts[FindingKind.UNEXPECTED]:
            verdict = Verdict.INTACT_WITH_EXTRA
        else:
            verdict = Verdict.INTACT
        return Report(
            verdict=verdict,
            matched=self._matched,
            differ=counts[FindingKind.DIFFER],
            missing=counts[FindingKind.MISSING],
            unexpected=counts[FindingKind.UNEXPECTED],
            error=counts[FindingKind.ERROR],
            left_out=self._left_out,
            bytes=self._bytes,
            findings=tuple(sorted(self._kept, key=lambda finding: (finding.path, finding.kind))),
            truncated=sum(counts.values()) > len(self._kept),
            checks_run=checks_run,
            checks_not_run=checks_not_run,
        )
