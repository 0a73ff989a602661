"""Rates as people type them, limits of transfers, and the way that a transfer takes as it is shown."""

from __future__ import annotations

import json

import pytest

from labxchange.cli import following
from labxchange.cli.rates import parse_rate
from labxchange.errors import InputError
from tests.unit.cli.fake import FakeNode, Step, main, sample, values

ID = "8c01d2" + "0" * 26
LANES = values.PathInfo(
    plane="lanes",
    cipher="AES-256-GCM",
    lanes=2,
    rate=12_500_000,
    rtt_ms=100.44,
    loss=0.0123,
    resent_bytes=4_000_000,
    datagram_bytes=1_472,
    datagrams_per_call=27.31,
    dropped_here=3,
    limit="network",
)


def a_transfer(state: str, **given: object) -> values.TransferInfo:
    told: values.TransferInfo = sample(
        values.TransferInfo, transfer=ID, direction="in", peer="Ben", state=state, bytes=100, files=1, **given
    )
    return told


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ("100M", 100_000_000),
        ("12.5 MB/s", 12_500_000),
        ("800 Mbit/s", 100_000_000),
        ("800Mbps", 100_000_000),
        ("1Gbit", 125_000_000),
        ("50k", 50_000),
        ("50kB", 50_000),
        ("20000", 20_000),
        ("20000 B/s", 20_000),
        (" 1G ", 10**9),
        ("0", 0),
        ("off", 0),
        ("OFF", 0),
        ("none", 0),
    ],
)
def test_rates_that_are_meant_one_way(text: str, rate: int) -> None:
    assert parse_rate(text) == rate


@pytest.mark.parametrize(
    "text", ["", "fast", "-5M", "5 m", "100Mb", "100Mb/s", "1,5M", "1e6", "5MB/h", "5 MiB", "M", "5MM", "٣M", "1.M", "0x10"]
)
def test_rates_that_could_mean_something_else_are_refused(text: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_rate(text)
    assert caught.value.code == "rate-malformed"
    assert "12.5 MB/s" in caught.value.hint


def test_a_rate_that_is_more_than_nothing_is_never_taken_for_no_limit() -> None:
    assert parse_rate("1bit") == 1
    assert parse_rate("0.000001k") == 1


def test_receiving_with_limits(node: FakeNode, capsys: pytest.CaptureFixture[str]) -> None:
    node.answers["receive"] = a_transfer("waiting", limits=values.LimitsInfo(rate=50_000_000, priority="high", lanes=4))
    assert main(["receive", "x", "--rate", "50M", "--priority", "high", "--lanes", "4", "--detach"]) == 0
    (given,) = node.asked("receive")
    assert (given["rate"], given["priority"], given["lanes"]) == (50_000_000, "high", 4)
    assert "at most 50.0 MB/s, high priority, 4 lanes" in capsys.readouterr().out
    assert main(["receive", "x", "--rate", "fast", "--detach"]) == 2
    assert "[rate-malformed]" in capsys.readouterr().err
    assert len(node.asked("receive")) == 1


def test_setting_says_only_what_was_given(node: FakeNode, capsys: pytest.CaptureFixture[str]) -> None:
    node.answers["transfer_limit"] = a_transfer("running")
    assert main(["transfer", "set", ID, "--rate", "off", "--reason", "the night"]) == 0
    assert main(["transfer", "set", ID, "--priority", "low", "--lanes", "0"]) == 0
    nothing = {"rate": None, "priority": None, "lanes": None, "reason": ""}
    assert node.asked("transfer_limit") == [
        nothing | {"transfer": ID, "rate": 0, "reason": "the night"},
        nothing | {"transfer": ID, "priority": "low", "lanes": 0},
    ]
    assert main(["transfer", "set", ID]) == 2
    assert "[nothing-to-change]" in capsys.readouterr().err


def test_the_way_in_full_and_in_brief(node: FakeNode, capsys: pytest.CaptureFixture[str]) -> None:
    running = a_transfer("running", path=LANES, rate=12_000_000, eta=5)
    assert following.progress(running).endswith("12.0 MB/s, 5 s left, 100 ms, 1.2 % lost, 2 lanes, limit network")
    assert following.way(LANES) == (
        "lanes, AES-256-GCM, 12.5 MB/s on the wire, 100 ms, 1.2 % lost, 2 lanes, limit network, 4.0 MB sent again, "
        "datagrams of 1,472 bytes, 27.3 a call, 3 dropped by this machine"
    )
    fallen = values.PathInfo(plane="quic-stream", reason="lane-silent", cipher="TLS", rate=50_000, limit="cap")
    assert following.way(fallen) == "quic-stream (lane-silent), TLS, 50.0 kB/s on the wire, limit cap"
    assert following.progress(a_transfer("running", path=fallen, rate=5, eta=-1)).endswith("5 bytes/s, over QUIC, limit cap")
    assert following.way(values.PathInfo()) == ""
    node.answers["transfer_show"] = running
    assert main(["transfer", "show", ID]) == 0
    assert "12.5 MB/s on the wire" in capsys.readouterr().out
    assert main(["transfer", "show", ID, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["path"]["limit"] == "network"


def test_watching_ends_with_the_transfer(
    node: FakeNode, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "_AGAIN_S", 0.0)
    steps = [a_transfer("waiting"), a_transfer("running", path=LANES), a_transfer("completed")]
    node.answers["transfer_show"] = [Step(step) for step in steps]
    assert main(["transfer", "show", ID, "--watch"]) == 0
    assert [line.split()[1] for line in capsys.readouterr().out.splitlines() if line.startswith("state")] == [
        "waiting",
        "running",
        "completed",
    ]
    node.answers["transfer_show"] = [Step(step) for step in steps]
    assert main(["transfer", "show", ID, "--watch", "--json"]) == 0
    assert [json.loads(line)["state"] for line in capsys.readouterr().out.splitlines()] == ["waiting", "running", "completed"]
