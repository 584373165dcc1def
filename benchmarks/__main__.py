"""Run with `make bench`. BENCH_QUICK=1 takes a minute: enough to see that it works, too short for reliable figures."""

import statistics
from collections.abc import Mapping, Sequence
from functools import partial
from multiprocessing import get_context
from typing import Any, NamedTuple

from matplotlib.figure import Figure

from benchmarks import frame, mapping, variants
from benchmarks.contenders import NAMES, Contender, Outcome, compare
from benchmarks.load import INTERVAL, Load, bundles, past
from deploy.cost import cpu
from local.stack.processes import end_with_parent

TEN, HUNDRED, UNPACKED, PACKED, CROWD = Load(bundle=10), Load(bundle=100), Load(), Load(packed=100), Load(devices=1000)
LOADS = (
    *(TEN, HUNDRED, UNPACKED, Load(bundle=10_000)),
    *(Load(packed=10), PACKED),
    *(Load(devices=10), CROWD, Load(size=1000)),
)
READINGS = 15_000  # sent per load at least, so that an interval is as full as on a worker
RATIOS = (("seed", "shipped"), ("shipped", "floor"), ("loop", "shipped"))
RATES = (1_000, 100_000, 1_000_000)  # readings per second
_COLOURS = (frame.RED, frame.ORANGE, frame.BLUE, frame.GREY, frame.GREEN)
_STYLES = {name: {"color": colour} for name, colour in zip(NAMES, _COLOURS, strict=True)}


class Measured(NamedTuple):
    """One load, all contenders; the figures are microseconds of CPU per reading, one per round."""

    load: Load
    readings: int
    outcomes: Mapping[str, Outcome]
    micros: Mapping[str, list[float]]


GOALS: tuple[tuple[str, Load, str, dict[str, float]], ...] = (
    ("bundles of 10", TEN, "CPU of shipped / floor", {"at_most": 1.25}),
    ("bundles of 100", HUNDRED, "CPU of shipped / floor", {"at_most": 1.4}),
    ("unpacked", UNPACKED, "shuffled records of seed / shipped", {"at_least": 300}),
    ("packed by 100", PACKED, "CPU of loop / shipped", {"at_least": 0.5}),
    ("packed by 100", PACKED, "shuffled records of seed / shipped", {"at_least": 300}),
    ("1,000 devices", CROWD, "us of CPU", {"at_most": 6}),
    # The same goal as a ratio: it was set on a machine whose floor took 1.8 us.
    ("1,000 devices", CROWD, "CPU of shipped / floor", {"at_most": 3.3}),
    ("1,000 devices", CROWD, "shuffled records of a bundle", {"at_most": 64}),
)


def main() -> None:
    """Measure every load, print, and write build/bench/bench.json and bench.png."""
    frame.settle()
    rounds, seconds = (1, 0.05) if frame.QUICK else (7, 0.3)
    measured = []
    # A process for each, as a worker has one job: objects that other loads left behind would slow it by a tenth.
    with get_context("fork").Pool(1, end_with_parent, maxtasksperchild=1) as pool:
        for load in LOADS:
            frame.CONSOLE.print(f"[dim]{load}")
            measured.append(pool.apply(measure, (load, rounds, seconds)))
    options = variants.options(rounds=3 if frame.QUICK else 25)
    mapped = mapping.costs(rounds=3 if frame.QUICK else 100)
    tables = {
        "CPU per reading, microseconds: median (range)": [_costs(one) for one in measured],
        "What a reading's CPU goes into, microseconds": variants.parts(rounds=3 if frame.QUICK else 100),
        "The fold alone, microseconds of CPU per reading": variants.alone(rounds=3 if frame.QUICK else 25),
        "Decoding a message, microseconds of CPU": mapped,
        "Options, CPU to the first shuffle / plain": options,
        "What the shipped graph costs": [_bill(one) for one in measured],
    }
    frame.publish(
        "bench", tables, [*goals(measured), *variants.goals(options), *mapping.goals(mapped)], chart(measured)
    )


def measure(load: Load, rounds: int, seconds: float, readings: int = READINGS) -> Measured:
    """Compare all contenders under one load.

    Args:
      load: what is sent.
      rounds: turns of each contender.
      seconds: CPU time of a turn.
      readings: how many are sent at least.

    Raises:
      DifferentRows: two contenders yield different rows; nothing is timed then.
    """
    sent = list(bundles(load, max(2, -(-readings // load.readings)), past()))
    count = len(sent) * load.readings
    outcomes, turns = {}, {}
    for name in NAMES:
        contender = Contender(name, load)
        left = [contender.run(contender.prepare(bundle)) for bundle in sent]
        outcomes[name] = contender.outcome(left)
        parts = [contender.turn(sent, seconds)]
        parts += [partial(frame.cpu_micros, [call], count, seconds / 10) for call in contender.after(left)]
        turns[name] = lambda parts=parts: sum(part() for part in parts)
    compare(load, outcomes, "seed")
    return Measured(load, count, outcomes, frame.take_turns(turns, rounds))


def figures(one: Measured) -> dict[str, list[float]]:
    """Return the figures that have goals: one for each round, or a single exact number."""
    seed, shipped = (one.outcomes[name].shuffled for name in ("seed", "shipped"))
    return {
        **{f"CPU of {name} / {to}": frame.ratios(one.micros, name, to) for name, to in RATIOS},
        "us of CPU": one.micros["shipped"],
        "shuffled records of a bundle": [shipped * one.load.readings / one.readings],
        "shuffled records of seed / shipped": [seed / shipped],
    }


def goals(measured: Sequence[Measured]) -> list[frame.Goal]:
    """Return the goals of the measured loads."""
    return [
        frame.Goal(f"{name}: {what}", figures(one)[what], **bounds)
        for one in measured
        for name, load, what, bounds in GOALS
        if load == one.load
    ]


def _costs(one: Measured) -> dict[str, Any]:
    return {
        "messages x readings": str(one.load),
        **one.micros,
        **{f"{name} / {to}": frame.ratios(one.micros, name, to) for name, to in RATIOS},
        "records": f"{one.outcomes['seed'].shuffled:,} : {one.outcomes['shipped'].shuffled:,}",
    }


def _bill(one: Measured) -> dict[str, Any]:
    # Of the worker's Python alone; `python -m deploy.cost` computes the rest.
    micros = statistics.median(one.micros["shipped"])
    return {
        "messages x readings": str(one.load),
        "CPU s per million": micros,
        "MB shuffled per million": one.outcomes["shipped"].shuffled_bytes / one.readings,
        **{f"cores at {rate:,}/s": cpu.cores(micros, rate) for rate in RATES},
        "rows/h": cpu.rows_per_hour(one.load.devices, INTERVAL),
    }


def chart(measured: Sequence[Measured]) -> Figure:
    """Draw the cost per reading against bundle size and against packing."""
    fields = {"bundle": "messages per bundle, of one reading", "packed": "readings per message"}
    return frame.draw_costs("From message bytes to means, on Beam's own worker", measured, fields, _STYLES)


if __name__ == "__main__":
    main()
