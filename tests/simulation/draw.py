"""Draw how rate control behaves over modelled paths, and tabulate it: ``python -m tests.simulation.draw --out DIRECTORY``.

Each column is a run; its rows are the rates in Mbit/s, the wait in the queue in ms, and what was lost in %. The same runs are the
tests of ``test_rate_control``. The tables of the page about rate control are printed.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from PIL import Image

from tests.simulation.test_rate_control import BENCH, FOREIGN, bound_s, doubles, halves, transfer
from tests.support.path.lane import Lane
from tests.support.path.loss import Bursts, Nothing, Silence
from tests.support.path.scenario import MBIT, LyingLane, Run, shared, solo

COLOURS = ("#1f6feb", "#d1242f", "#8250df", "#bf8700", "#1a7f37")


def _series(run: Run, place: int, step_s: float) -> tuple[list[float], list[float], list[float]]:
    """Times, rates of arrival, and parts lost, over steps."""
    times, rates, lost = [], [], []
    last = run.link.samples[0]
    for sample in run.link.samples:
        if sample.now - last.now >= step_s:
            now, before = sample.tallies[place], last.tallies[place]
            times.append(sample.now)
            rates.append((now.delivered - before.delivered) / (sample.now - last.now) / MBIT)
            gone = now.dropped + now.lost - before.dropped - before.lost
            lost.append(100 * gone / max(now.sent - before.sent, 1))
            last = sample
    return times, rates, lost


def figure(path: Path, columns: Sequence[tuple[str, Run, Sequence[str]]]) -> None:
    """A file of columns, each a title, a run and the names of its flows."""
    size = (3.6 * len(columns), 5.2)
    made, axes = plt.subplots(3, len(columns), figsize=size, dpi=75, sharex="col", squeeze=False, height_ratios=(3, 2, 1.4))
    for column, (title, run, names) in enumerate(columns):
        rate, queue, loss = axes[:, column]
        samples = run.link.samples
        step_s = max(samples[-1].now / 150, 0.05, run.rtt_s)
        for place, name in enumerate(names):
            times, rates, lost = _series(run, place, step_s)
            colour = COLOURS[place % len(COLOURS)]
            rate.plot(times, rates, color=colour, lw=1.2 if len(names) < 4 else 0.6, label=name)
            loss.plot(times, lost, color=colour, lw=0.9 if len(names) < 4 else 0.5)
        if len(names) == 1:
            rate.plot(
                [s.now for s in samples],
                [s.notes[0] / MBIT for s in samples],
                color="#999999",
                lw=0.6,
                label="paced at",
                zorder=0,
            )
        queue.plot([s.now for s in samples], [1e3 * s.queue_s for s in samples], color="#57606a", lw=0.7)
        rate.set_title(title, fontsize=9)
        rate.set_ylim(0, 1.35 * max(run.rate_bytes_s, run.link.rate_bytes_s) / MBIT)
        loss.set_ylim(0, 20)
        loss.set_xlabel("s")
        if len(names) < 4:
            rate.legend(fontsize=7, loc="upper right", ncols=3, frameon=False)
        for axis in (rate, queue, loss):
            axis.grid(visible=True, lw=0.3)
            axis.tick_params(labelsize=7)
        if not column:
            for axis, label in ((rate, "Mbit/s"), (queue, "queue, ms"), (loss, "lost, %")):
                axis.set_ylabel(label, fontsize=8)
    made.tight_layout()
    drawn = BytesIO()
    made.savefig(drawn)
    plt.close(made)
    Image.open(drawn).convert("RGB").quantize(48).save(path, optimize=True)  # a third of the size


def draw(out: Path) -> None:
    """All figures."""
    one = ["arrives"]
    figure(
        out / "loss.png",
        [
            (f"1 Gbit/s, 100 ms, {100 * p:g} % lost", solo(mbit=1000, rtt_s=0.1, loss=p, seconds=8), one)
            for p in (0.0001, 0.01, 0.05)
        ]
        + [("bursts of 20, 1 %", solo(mbit=1000, rtt_s=0.1, loss=Bursts(0.01, 20, 1), seconds=8), one)],
    )
    figure(
        out / "round-trips.png",
        [
            ("1 Gbit/s, 1 ms, queue 5 ms", solo(mbit=1000, rtt_s=0.001, queue_s=0.005, seconds=2), one),
            ("100 Mbit/s, 20 ms", solo(mbit=100, rtt_s=0.02, seconds=5), one),
            ("1 Gbit/s, 200 ms, 5 %", solo(mbit=1000, rtt_s=0.2, loss=0.05, seconds=12), one),
            ("20 Mbit/s, 600 ms, 1 %", solo(mbit=20, rtt_s=0.6, loss=0.01, seconds=40), one),
        ],
    )
    figure(
        out / "queues.png",
        [
            ("100 Mbit/s, 100 ms, queue 5 ms", solo(mbit=100, rtt_s=0.1, queue_s=0.005, seconds=20), one),
            ("queue 5 ms, 1 % lost", solo(mbit=100, rtt_s=0.1, queue_s=0.005, loss=0.01, seconds=20), one),
            ("50 ms, queue 1 s", solo(mbit=100, rtt_s=0.05, queue_s=1.0, seconds=20), one),
            ("a receiver that lies", solo(mbit=100, rtt_s=0.05, lane=LyingLane, seconds=20), one),
        ],
    )
    figure(
        out / "changes.png",
        [
            ("halves at 10 s, 50 ms", solo(mbit=100, rtt_s=0.05, events=[(10, halves)], seconds=20), one),
            ("doubles at 10 s, 50 ms", solo(mbit=100, rtt_s=0.05, events=[(10, doubles)], seconds=20), one),
            ("doubles at 10 s, 200 ms", solo(mbit=100, rtt_s=0.2, events=[(10, doubles)], seconds=20), one),
            ("silence from 5 s to 15 s", solo(mbit=100, rtt_s=0.05, loss=Silence(5, 15, Nothing()), seconds=20), one),
        ],
    )
    for queue_bdp, name in ((0.5, "half"), (1.0, "one"), (2.0, "two")):
        columns = [
            (f"with {label}, queue {queue_bdp:g} BDP", shared("o" + kind, queue_bdp=queue_bdp), ["ours", label])
            for kind, label in FOREIGN.items()
        ]
        figure(out / f"sharing-{name}.png", columns)
    figure(
        out / "ours.png",
        [
            ("the second starts at 10 s", shared("oo", queue_bdp=1, gap_s=10.0), ["first", "second"]),
            ("ten, queue 1 BDP", shared("o" * 10, queue_bdp=1), [""] * 10),
        ],
    )


def tables() -> str:
    """What the page shows."""
    lines = ["| path | bytes | bound | taken | dropped by excess | allowed |", "|---|---|---|---|---|---|"]
    for path in BENCH:
        run = transfer(path)
        flow = run.flows[0]
        assert isinstance(flow, Lane)
        assert flow.finished_at is not None
        bdp = run.rate_bytes_s * run.rtt_s
        allowed = 1.5 + 0.01 * run.link.tallies[0].sent / bdp
        name = f"{path.mbit} Mbit/s, {1e3 * path.rtt_s:g} ms, {100 * path.loss:g} %"
        lines.append(
            f"| {name} | {path.total_bytes >> 20} MiB | {bound_s(path):.2f} s "
            f"| {flow.finished_at:.2f} s | {run.dropped_bdp:.2f} BDP | {allowed:.2f} BDP |"
        )
    lines += ["", "| other flow | queue | ours, other | ours starts second |", "|---|---|---|---|"]
    for kind, label in FOREIGN.items():
        for queue_bdp in (0.5, 1.0, 2.0):
            first, second = shared("o" + kind, queue_bdp=queue_bdp), shared(kind + "o", queue_bdp=queue_bdp, gap_s=1.3)
            lines.append(
                f"| {label} | {queue_bdp:g} BDP | {100 * first.share(0):.0f} %, {100 * first.share(1):.0f} % "
                f"| {100 * second.share(1):.0f} %, {100 * second.share(0):.0f} % |"
            )
    lines += ["", "| ten of ours | least and most, from 30 s to 60 s | all |", "|---|---|---|"]
    for queue_bdp in (0.5, 1.0, 2.0):
        run = shared("o" * 10, queue_bdp=queue_bdp)
        shares = [run.share(place, 30.0) for place in range(10)]
        lines.append(f"| {queue_bdp:g} BDP | {100 * min(shares):.1f} %, {100 * max(shares):.1f} % | {100 * sum(shares):.1f} % |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    out = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    draw(out)
    print(tables())


if __name__ == "__main__":
    main()
