"""The report of a check: its verdict follows from its counts, and its list of findings is bounded."""

from __future__ import annotations

import pytest

from labxchange.dataset.check import Finding, FindingKind, Findings, NotRun, Report, Verdict


def report_of(*kinds: FindingKind, limit: int = 1000) -> Report:
    found = Findings(limit)
    found.match(100)
    for number, kind in enumerate(kinds):
        found.add(Finding(path=f"f{number}", kind=kind))
    return found.report(checks_run=("a",), checks_not_run=(NotRun("b", "why"),))


@pytest.mark.parametrize(
    ("kinds", "verdict"),
    [
        ([], Verdict.INTACT),
        ([FindingKind.UNEXPECTED], Verdict.INTACT_WITH_EXTRA),
        ([FindingKind.DIFFER], Verdict.NOT_INTACT),
        ([FindingKind.MISSING], Verdict.NOT_INTACT),
        ([FindingKind.ERROR], Verdict.NOT_INTACT),
        ([FindingKind.UNEXPECTED, FindingKind.ERROR], Verdict.NOT_INTACT),
    ],
)
def test_verdict(kinds: list[FindingKind], verdict: Verdict) -> None:
    assert report_of(*kinds).verdict is verdict


def test_findings_are_bounded_and_counts_are_not() -> None:
    report = report_of(*[FindingKind.DIFFER] * 50, *[FindingKind.MISSING] * 50, limit=60)
    assert (report.matched, report.differ, report.missing, report.bytes) == (1, 50, 50, 100)
    assert len(report.findings) == 60
    assert report.truncated
    assert not report_of(FindingKind.DIFFER).truncated


def test_nothing_checked_is_not_a_verdict_of_damage_but_says_what_was_left_out() -> None:
    found = Findings()
    found.leave_out()
    report = found.report(checks_run=(), checks_not_run=())
    assert (report.verdict, report.left_out, report.matched) == (Verdict.INTACT, 1, 0)
