"""How cost grows with readings, devices and sensors: CPU, memory, state, and the records that reach one interval.

    python -m benchmarks.growth    about five minutes; BENCH_QUICK=1 takes one, to see that it works

The shipped graph on Beam's own worker, of sessions up to where they are kept. All messages are good and in order, from
devices that take turns, and are made while they are sent: no stamp comes twice, and none waits in memory.
"""

import gc
import itertools
import math
import os
import re
import statistics
import sys
import time
import tracemalloc
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import apache_beam as beam
from apache_beam.internal import pickler
from apache_beam.portability import common_urns
from apache_beam.portability.api import beam_runner_api_pb2
from apache_beam.runners.pipeline_context import PipelineContext
from matplotlib.figure import Figure

from benchmarks.contenders import Contender, build, job
from benchmarks.load import Load, bundles, past
from benchmarks.report import CONSOLE, Panel, Rows, draw, lines, publish
from benchmarks.rounds import QUICK, cpu_micros, settle, take_turns
from pipeline.sums import CombineSums

SENSORS = (4, 16, 64)
DEVICES = (1, 10, 100, 1_000, 10_000, 100_000)
WINDOWS = ("fixed", "session")
CPU = "us CPU per reading"
_PAGE = os.sysconf("SC_PAGE_SIZE")
_HOUR = 3600


def shape(sensors: int = 4, present: int = 0, flags: tuple[str, ...] = (), **load: Any) -> Load:
    """Return a load of so many sensors, of which so many are `present` in each reading: all, unless said otherwise."""
    names = tuple(f"Sensor{number:02}" for number in range(sensors))
    # No grace, so that a window is its interval. Months of stamps are sent in seconds, and are not to be late.
    flags = ("--grace_period=0s", "--allowed_lateness=8000h", *flags)
    return Load(sensors=names, in_turn=present or sensors, flags=flags, **load)


def worker(load: Load) -> Contender:
    """Return the shipped graph on a worker, up to its first shuffle or, of sessions, before their state."""
    return Contender("fold" if job(load).window == "session" else "shipped", load)


def run(load: Load, count: int, start: float) -> Iterator[list[Any]]:
    """Process so many bundles; yield what each shuffles, as windowed (device, sums)."""
    contender = worker(load)
    for bundle in bundles(load, count, start):
        yield [element for _, element in contender.records(contender.run(contender.prepare(bundle)))]


# --- readings: a worker that goes on for long ---

ENDURED = {
    "one by one": shape(),
    "packed by 100": shape(packed=100, bundle=100),
    # Each reading in a second of its own, with a fraction of its own, from one of very many devices.
    "one by one, four months": shape(rate=0.09999, devices=100_000, flags=("--interval=1h", "--group_by_device=false")),
}


def endure(name: str, load: Load, decades: Sequence[int]) -> list[dict[str, Any]]:
    """Process readings with ever later stamps; return what the worker is like after 10 ** each of `decades` of them.

    Each row has the days of event time, CPU since the one before, the memory of the process, and the blocks that Python
    has in use.
    """
    total = 10 ** decades[-1]
    contender = worker(load)
    sent = bundles(load, total // load.readings, past(total / load.rate, _HOUR))
    found: list[dict[str, Any]] = []
    done = 0
    for decade in decades:
        cpu, before = 0.0, done
        while done < 10**decade:
            bundle = contender.prepare(next(sent))
            cpu += cpu_micros([partial(contender.run, bundle)], 1)
            done += load.readings
        gc.collect()
        resident = int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE
        row = {"": name, "readings": done, "days": done / load.rate / 24 / _HOUR, CPU: cpu / (done - before)}
        found.append(row | {"resident MB": resident / 1e6, "blocks in use": sys.getallocatedblocks()})
    return found


# --- devices and sensors: one bundle ---


def compare(loads: Sequence[Load], rounds: int, seconds: float) -> list[dict[str, Any]]:
    """Measure bundles of each load, in turns of so many seconds of CPU; return a row for each.

    Besides CPU per reading, the part of it that Python's garbage collector took, records and bytes shuffled (with keys
    and windows), and how much Python's objects grow while a bundle is processed.
    """
    turns, rows = {}, []
    for load in loads:
        contender = worker(load)
        # So many bundles that each device has its turn.
        count = max(8, -(-load.devices // load.readings))
        prepared = [contender.prepare(bundle) for bundle in bundles(load, count, past(_HOUR))]
        left = [contender.run(bundle) for bundle in prepared]
        turns[load] = partial(_turn, contender, prepared, seconds)
        what = {"window": job(load).window, "sensors": len(load.sensors), "devices": load.devices}
        what |= {"in a reading": "all sensors" if load.in_turn == len(load.sensors) else f"{load.in_turn}"}
        size = statistics.mean(sum(len(data) for _, data in one) for one in left)
        what |= {"records": statistics.mean(len(contender.records(one)) for one in left)}
        what |= {"bytes per reading": size / load.readings}
        rows.append(what | {"peak kB": _peak(partial(contender.run, prepared[0])) / 1e3})
    for row, found in zip(rows, take_turns(turns, rounds).values(), strict=True):
        row |= {CPU: [micros for micros, _ in found], "collecting, %": [part * 100 for _, part in found]}
    return rows


def _turn(contender: Contender, prepared: Sequence[Any], seconds: float) -> tuple[float, float]:
    """Return the microseconds of CPU per reading, and the part of them that the garbage collector took."""
    collecting = 0.0

    def clock(phase: str, info: Any) -> None:
        nonlocal collecting
        collecting += time.process_time() * (1 if phase == "stop" else -1)

    gc.callbacks.append(clock)
    start = time.process_time()
    micros = cpu_micros([partial(contender.run, bundle) for bundle in prepared], contender.load.readings, seconds)
    spent = time.process_time() - start
    gc.callbacks.remove(clock)
    return micros, collecting / spent


def _peak(call: Callable[[], Any]) -> int:
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    call()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return peak - before


# --- state and fan-in ---


def state_per_device(load: Load, readings: int) -> int:
    """Return the bytes that one device's open interval or session is in a runner's state, after so many readings.

    A fixed interval's are those of its accumulator, a session's those of its device's state cell; both with the coder
    that the graph names. The runner's own keys and indexes come on top.
    """
    pipeline = beam.Pipeline()
    build("shipped", pipeline, load)
    proto = pipeline.to_runner_api()
    coders = PipelineContext(proto.components).coders
    [step] = [
        found
        for found in proto.components.transforms.values()
        if re.fullmatch(r"EmitIntervals(\([^/]*\))?(/CombineSums)?", found.unique_name)
        and found.spec.urn in (common_urns.composites.COMBINE_PER_KEY.urn, common_urns.primitives.PAR_DO.urn)
    ]
    records = [one.value for bundle in run(load, -(-readings // load.readings), past(_HOUR)) for one in bundle]
    if step.spec.urn == common_urns.composites.COMBINE_PER_KEY.urn:
        payload = beam_runner_api_pb2.CombinePayload.FromString(step.spec.payload)
        return len(coders.get_by_id(payload.accumulator_coder_id).encode(_combined(sums for _, sums in records)))
    payload = beam_runner_api_pb2.ParDoPayload.FromString(step.spec.payload)
    emit = pickler.loads(payload.do_fn.payload)[0]
    [(name, spec)] = payload.state_specs.items()
    cell = Cell()
    for record in records:
        emit.process(record, **{name: cell}, due=cell)
    return len(coders.get_by_id(spec.read_modify_write_spec.coder_id).encode(cell.value))


def _combined(sums: Iterable[Any]) -> Any:
    """Return what bundles' sums are when they are added up, as the runner does."""
    combine = CombineSums()
    return combine.add_inputs(combine.create_accumulator(), sums)


def combine_micros(rounds: int) -> list[float]:
    """Return the microseconds of CPU that `CombineSums` takes for each such record, of four sensors, one per round."""
    [[record]] = run(shape(), 1, past(_HOUR))
    add = partial(_combined, itertools.repeat(record.value[1], 100_000))
    return [cpu_micros([add], 100_000) for _ in range(rounds)]


def fan_in(load: Load) -> dict[str, Any]:
    """Count the records of one whole interval, which begins and ends in the middle of a bundle."""
    span, interval = load.readings / load.rate, job(load).interval
    start = past(4 * _HOUR, interval)
    found: Counter[int] = Counter()
    for records in run(load, math.ceil(interval / span) + 2, start - span / 2):
        found.update(int(element.windows[0].start) for element in records)
    return {
        "": f"{load.rate:,}/s, {load.bundle:,} messages of {load.packed}",
        "interval": f"{interval} s",
        "readings": load.rate * interval,
        "records": found[int(start)],
        # As many bundles as fit, and those across its two ends.
        "by rule": load.rate * interval / load.readings + 1,
        "per s": found[int(start)] / interval,
    }


class Cell:
    """A state cell, and the timer beside it, which never fires."""

    value: Any = None

    def read(self) -> Any:
        """Return what was written last."""
        return self.value

    def write(self, value: Any) -> None:
        """Keep a value."""
        self.value = value

    def set(self, when: Any) -> None:
        """Set the timer."""


# --- report ---


def main() -> None:
    """Measure, print, and write build/bench/growth.json and growth.png."""
    settle()
    # Long enough for garbage collections to be in every turn.
    rounds, seconds = (1, 0.05) if QUICK else (5, 0.8)
    CONSOLE.print("[dim]readings")
    most = {name: (7 if load.packed > 1 else 6) - QUICK for name, load in ENDURED.items()}
    endured = [row for name, load in ENDURED.items() for row in endure(name, load, range(4, most[name] + 1))]
    CONSOLE.print("[dim]sensors")
    by_sensors = compare([shape(count, present) for count in SENSORS for present in (count, 1)], rounds, seconds)
    CONSOLE.print("[dim]devices")
    devices = [shape(devices=count, flags=(f"--window={window}",)) for window in WINDOWS for count in DEVICES]
    by_devices = compare(devices, rounds, seconds)
    CONSOLE.print("[dim]state and fan-in")
    crowded = [shape(rate=rate, bundle=bundle) for rate in (1_000, 10_000) for bundle in (100, 1_000, 10_000)]
    crowded += [
        shape(flags=("--interval=5m",)),
        shape(rate=100_000, packed=100),
        *([] if QUICK else [shape(rate=100_000)]),
    ]
    tables = {
        "Readings": endured,
        "Sensors: a bundle of 1,000 readings": by_sensors,
        "Devices: a bundle of 1,000 readings": by_devices,
        "State of an open window, bytes": [_state(window, count) for window in WINDOWS for count in SENSORS],
        "Records at the one key of an interval": list(map(fan_in, crowded)),
        "To add one such record up": [{"": "CombineSums", CPU: combine_micros(rounds)}],
    }
    publish("growth", tables, chart=chart(endured, by_sensors, by_devices))


def _state(window: str, sensors: int) -> dict[str, Any]:
    size = state_per_device(shape(sensors, flags=(f"--window={window}",)), 10_000)
    return {"window": window, "sensors": sensors} | {f"{count:,} devices": size * count for count in (1, 1000, 100_000)}


def chart(endured: Rows, by_sensors: Rows, by_devices: Rows) -> Figure:
    """Draw CPU per reading against readings, devices and sensors, and memory against readings."""
    panels = [
        Panel("readings processed", CPU, lines(endured, "", "readings", CPU)),
        Panel("readings processed", "resident MB", lines(endured, "", "readings", "resident MB")),
        Panel("devices, kept apart (bundles of 1,000)", CPU, lines(by_devices, "window", "devices", CPU)),
        Panel("sensors configured", CPU, lines(by_sensors, "in a reading", "sensors", CPU)),
    ]
    return draw("What grows, and what does not, up to the first shuffle on Beam's own worker", panels)


if __name__ == "__main__":
    main()
