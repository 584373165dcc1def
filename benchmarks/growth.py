"""How cost grows with readings, devices and sensors: CPU, memory, state, and the records that reach one interval.

    python -m benchmarks.growth    about five minutes; BENCH_QUICK=1 takes one, to see that it works

The shipped graph on Beam's own worker; sessions up to the step that holds them. All messages are valid and in order,
from devices in turn. They are generated while they are sent, each with its own Timestamp, so none waits in memory.
"""

import gc
import itertools
import math
import statistics
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from functools import partial
from types import SimpleNamespace
from typing import Any

from matplotlib.figure import Figure

from benchmarks.contenders import Contender, job
from benchmarks.frame import CONSOLE, QUICK, Panel, Rows, cpu_micros, draw, lines, publish, settle, take_turns
from benchmarks.load import Load, bundles, past
from benchmarks.stalled import memory
from pipeline.aggregate.shards import ShardCoder, merge_devices
from pipeline.aggregate.sums import CombineSums, add_sums
from pipeline.windows.session import _EmitSessions

SENSORS = (4, 16, 64)
DEVICES = (1, 10, 100, 1_000, 10_000, 100_000)
WINDOWS = ("fixed", "session")
CPU = "us CPU per reading"


def shape(sensors: int = 4, present: int = 0, window: str = "fixed", flags: tuple[str, ...] = (), **load: Any) -> Load:
    """Return a load of so many sensors, of which `present` are in each reading; 0 for all."""
    names = tuple(f"Sensor{number:02}" for number in range(sensors))
    # No grace, so that a window is its interval. Months of event time are sent in seconds, and must not be late.
    flags = (f"--window={window}", "--grace_period=0s", "--allowed_lateness=8000h", *flags)
    return Load(sensors=names, in_turn=present or sensors, flags=flags, **load)


def run(load: Load, count: int, start: float) -> Iterator[list[Any]]:
    """Process so many bundles; yield the windowed records that each shuffles."""
    contender = Contender("shipped", load)
    for bundle in bundles(load, count, start):
        yield [element for _, element in contender.records(contender.run(contender.prepare(bundle)))]


ENDURED = {
    "one by one": shape(),
    "packed by 100": shape(packed=100, bundle=100),
    # Each reading has its own second and its own fraction, from one of very many devices.
    "one by one, four months": shape(rate=0.09999, devices=100_000, flags=("--interval=1h", "--group_by_device=false")),
}


def endure(name: str, load: Load, decades: Sequence[int]) -> list[dict[str, Any]]:
    """Process readings with increasing Timestamps; return a row for each of `decades`, after 10 ** that many readings.

    Each row has the days of event time, the CPU since the row before, the memory of the process, and the blocks that
    Python has in use.
    """
    contender, total = Contender("shipped", load), 10 ** decades[-1]
    sent = bundles(load, total // load.readings, past(total / load.rate, multiple_of=3600))
    rows: list[dict[str, Any]] = []
    done = 0
    for decade in decades:
        more = itertools.islice(sent, (10**decade - done) // load.readings)
        cpu = [cpu_micros([partial(contender.run, contender.prepare(one))], load.readings) for one in more]
        done = 10**decade
        gc.collect()
        row = {"": name, "readings": done, "days": done / load.rate / 86_400, CPU: statistics.mean(cpu)}
        rows.append(row | {"resident MB": memory(), "blocks in use": sys.getallocatedblocks()})
    return rows


def compare(loads: Sequence[Load], rounds: int, seconds: float) -> list[dict[str, Any]]:
    """Measure bundles of each load, in turns of so many seconds of CPU; return a row for each."""
    turns, rows = {}, []
    for load in loads:
        contender = Contender("shipped", load)
        # As many bundles as each device needs for a reading.
        count = max(8, -(-load.devices // load.readings))
        turns[load] = contender.turn(bundles(load, count, past(3600)), seconds)
        present = "all sensors" if load.in_turn == len(load.sensors) else str(load.in_turn)
        row = {"window": job(load).window, "sensors": len(load.sensors), "in a reading": present}
        records = statistics.mean(len(records) for records in run(load, count, past(3600)))
        rows.append(row | {"devices": load.devices, "records": records})
    return [{**row, CPU: found} for row, found in zip(rows, take_turns(turns, rounds).values(), strict=True)]


def state_per_device(load: Load, readings: int = 10_000) -> int:
    """Return the bytes of one device's open interval or session in a runner's state, after so many readings.

    For a fixed interval these are of its encoded accumulator, for a session of its device's encoded state. The runner's
    own keys and indexes come on top.
    """
    bundles_left = run(load, -(-readings // load.readings), past(3600))
    records = [element.value for bundle in bundles_left for element in bundle]
    if job(load).window == "fixed":
        return len(CombineSums().get_accumulator_coder().encode(CombineSums().apply(sums for _, sums in records)))
    emit, kept = _EmitSessions(job(load).intervals), [None]
    # A state cell, and timers that never fire.
    state = SimpleNamespace(read=lambda: kept[0], write=partial(kept.__setitem__, 0))
    timers = SimpleNamespace(set=lambda when, dynamic_timer_tag: None)
    for record in records:
        emit.process(record, state, timers)
    return len(_EmitSessions.SESSIONS.coder.encode(state.read()))


def crowded_interval(devices: int, rounds: int) -> dict[str, Any]:
    """Return the size of an open interval of so many devices, and what one more bundle of 1,000 readings adds to it.

    Each device has sent one reading, of four sensors. Until the row is due a runner keeps the records as they arrived,
    and then adds them up, key by key.
    """
    load = shape(devices=devices, rate=devices)
    arrived: dict[str, list[Any]] = defaultdict(list)
    for records in run(load, devices // load.readings, past(3600)):
        for key, shard in (element.value for element in records):
            arrived[key].append(shard)
    combine, encode = CombineSums(partial(merge_devices, add_sums)), ShardCoder().encode
    held = {key: combine.apply(shards) for key, shards in arrived.items()}
    largest = max(held, key=lambda key: len(held[key]))
    add = partial(combine.add_input, held[largest], arrived[largest][-1])
    return {
        "devices": devices,
        "keys": len(held),
        "state, MB": sum(len(encode(shard)) for shards in arrived.values() for shard in shards) / 1e6,
        "devices of the largest key": len(held[largest]),
        "kB when added up": len(encode(held[largest])) / 1e3,
        "devices of a record": statistics.mean(len(shards[-1]) for shards in arrived.values()),
        "us CPU to add one": [cpu_micros([add], 1, 0.05) for _ in range(rounds)],
    }


def open_day(devices: int, sent: Sequence[int]) -> list[dict[str, Any]]:
    """Return the size of a day's open interval after so many readings of each device, with a row for each of `sent`.

    Beam leaves it to the runner whether it combines the records of an open window as they arrive, or when the window
    fires. If it keeps them, an interval that is one window grows with bundles. One that consists of panes holds the
    records of the open pane, and for each pane before it one record per key. Each device sends a reading every 10 s.
    """
    load = shape(devices=devices, rate=devices / 10, flags=("--interval=24h",))
    combine, encode = CombineSums(partial(merge_devices, add_sums)), ShardCoder().encode
    combined: dict[str, Any] = defaultdict(combine.create_accumulator)
    pane_combined: dict[str, Any] = {}
    pane = None
    # Records, and their bytes.
    as_they_come, open_pane, panes_before = (0, 0), (0, 0), (0, 0)
    rows: list[dict[str, Any]] = []
    bundles_left = run(load, devices * sent[-1] // load.readings, past(2 * 86_400, multiple_of=86_400))
    for number, records in enumerate(bundles_left, 1):
        for element in records:
            if element.windows[0] != pane:
                panes_before = _with(panes_before, *(encode(shard) for shard in pane_combined.values()))
                pane, pane_combined, open_pane = element.windows[0], defaultdict(combine.create_accumulator), (0, 0)
            key, shard = element.value
            as_they_come, open_pane = _with(as_they_come, encode(shard)), _with(open_pane, encode(shard))
            combined[key] = combine.add_input(combined[key], shard)
            pane_combined[key] = combine.add_input(pane_combined[key], shard)
        each, rest = divmod(number * load.readings, devices)
        if not rest and each in sent:
            in_panes = open_pane[0] + panes_before[0], open_pane[1] + panes_before[1]
            row = {"devices": devices, "readings of each": each, "bundles": number}
            for name, (count, size) in (("one window", as_they_come), ("panes", in_panes)):
                row |= {f"{name}: records": count, f"{name}: MB": size / 1e6}
            rows.append(row | {"combined, MB": sum(len(encode(one)) for one in combined.values()) / 1e6})
    return rows


def _with(held: tuple[int, int], *encoded: bytes) -> tuple[int, int]:
    count, size = held
    return count + len(encoded), size + sum(len(record) for record in encoded)


def fan_in(load: Load, rounds: int) -> dict[str, Any]:
    """Count the records of one interval, which begins and ends in the middle of a bundle, and time adding one."""
    span, interval = load.readings / load.rate, job(load).interval
    start = past(4 * 3600, interval)
    elements = itertools.chain.from_iterable(run(load, math.ceil(interval / span) + 2, start - span / 2))
    sums = [element.value[1] for element in elements if element.windows[0].start == start]
    add_up = partial(CombineSums().apply, sums[:1] * 10_000)
    return {
        "": f"{load.rate:,}/s, {load.bundle:,} messages of {load.packed}",
        "interval": f"{interval} s",
        "readings": load.rate * interval,
        # As many bundles as fit, and those across its two ends.
        "by rule": load.rate * interval / load.readings + 1,
        "records": len(sums),
        "per s": len(sums) / interval,
        "us CPU to add one": [cpu_micros([add_up], 10_000) for _ in range(rounds)],
    }


def main() -> None:
    """Measure, print, and write build/bench/growth.json and growth.png."""
    settle()
    # Long enough for garbage collections to be in every turn.
    rounds, seconds = (1, 0.05) if QUICK else (7, 0.6)
    CONSOLE.print("[dim]readings")
    endured = []
    for name, load in ENDURED.items():
        endured += endure(name, load, range(4, (8 if load.packed > 1 else 7) - QUICK))
    CONSOLE.print("[dim]sensors, devices")
    by_sensors = compare([shape(count, present) for count in SENSORS for present in (count, 1)], rounds, seconds)
    by_devices = compare([shape(window=one, devices=count) for one in WINDOWS for count in DEVICES], rounds, seconds)
    CONSOLE.print("[dim]state and fan-in")
    crowded = [shape(rate=rate, bundle=bundle) for rate in (1_000, 10_000) for bundle in (100, 1_000, 10_000)]
    crowded += [shape(flags=("--interval=5m",)), shape(rate=100_000, packed=100)]
    crowded += [] if QUICK else [shape(rate=100_000)]
    tables = {
        "Readings": endured,
        "Sensors: a bundle of 1,000 readings": by_sensors,
        "Devices: a bundle of 1,000 readings": by_devices,
        "State of an open window, bytes for each device": [
            {"window": one, **{f"{count} sensors": state_per_device(shape(count, window=one)) for count in SENSORS}}
            for one in WINDOWS
        ],
        "An open interval of many devices": [crowded_interval(count, rounds) for count in DEVICES if count >= 1_000],
        "A day's open interval, by when a runner combines": open_day(10_000, (1, 3) if QUICK else (1, 10, 100)),
        "Records at the one key of an interval": [fan_in(load, rounds) for load in crowded],
    }
    publish("growth", tables, chart=chart(endured, by_sensors, by_devices))


def chart(endured: Rows, by_sensors: Rows, by_devices: Rows) -> Figure:
    """Draw CPU per reading against readings, devices and sensors, and memory against readings."""
    panels = [
        Panel("readings processed", CPU, lines(endured, "", "readings", CPU)),
        Panel("readings processed", "resident MB", lines(endured, "", "readings", "resident MB")),
        Panel("devices, each with its own rows (bundles of 1,000)", CPU, lines(by_devices, "window", "devices", CPU)),
        Panel("sensors configured", CPU, lines(by_sensors, "in a reading", "sensors", CPU)),
    ]
    return draw("Growth of cost up to the first shuffle, on Beam's own worker", panels)


if __name__ == "__main__":
    main()
