"""Quix Streams: a Python library on Kafka and RocksDB.

    idiomatic  apply(expand), a branch for what is refused, group_by, tumbling_window with a Mean per sensor, final
    tuned      each message folded by itself, no branches, its sums reduced in one window

Real here: its run loop, deserialization, dataframe, windows, RocksDB state and checkpoints. Not real: Kafka. The
consumer and producer are the few methods below, and there are no changelog topics, which would need a broker.

Messages reach user code one at a time. Whoever kept some back to fold them together would lose them in a rebalance,
because their offsets are committed; so there is no form that folds batches.
"""

import logging
import tempfile
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import partial
from types import SimpleNamespace
from typing import Any

from confluent_kafka import TopicPartition  # type: ignore[import-not-found]
from quixstreams import Application  # type: ignore[import-not-found]
from quixstreams.dataframe.windows.aggregations import Mean  # type: ignore[import-not-found]
from quixstreams.models import TopicConfig, TopicManager  # type: ignore[import-not-found]

from benchmarks.contenders import Outcome
from benchmarks.load import INTERVAL, SENSORS, Load
from benchmarks.loop import Partial, add, fold, means
from benchmarks.peers.engine import LATENESS, Form, Reading, Sinks, read

_TOPIC = "readings"


def _messages(load: Load, sent: Sequence[tuple[float, bytes]]) -> list["_Message"]:
    # A window closes when a later reading comes; there is no end of a stream.
    after = sent[-1][0] + 60
    last = b'{"Timestamp": %.3f, "Temp": 0.5}' % after
    return [_Message(offset, at, data) for offset, (at, data) in enumerate([*sent, (after, last)])]


def _run(build: Callable[[Any, bool, Sinks], None], load: Load, messages: list["_Message"]) -> Callable[[], Outcome]:
    logging.getLogger("quixstreams").setLevel(logging.ERROR)
    sinks = Sinks()
    with tempfile.TemporaryDirectory(prefix="quix-state-") as state:
        app = _Application(messages, state)
        build(app.dataframe(app.topic(_TOPIC, value_deserializer="bytes")), load.by_device, sinks)
        app.run()
    return sinks.outcome


def _idiomatic(messages: Any, by_device: bool, sinks: Sinks) -> None:
    outcomes = messages.apply(read, expand=True)
    refused = outcomes.filter(lambda outcome: not isinstance(outcome, Reading))
    refused.update(lambda outcome: sinks.dead_letters.append(outcome.payload))
    readings = outcomes.filter(lambda outcome: isinstance(outcome, Reading))
    readings = readings.set_timestamp(lambda reading, *_: reading.at // 1000)
    keyed = readings.group_by(lambda reading: reading.device if by_device else "", name="device")
    windows = keyed.apply(lambda reading: reading.values).tumbling_window(INTERVAL * 1000, LATENESS * 1000)
    rows = windows.agg(**{name: Mean(name) for name in SENSORS}).final(closing_strategy="partition")

    def collect(window: dict[str, Any], device: str, *_: Any) -> None:
        row = {name: window[name] for name in SENSORS if window[name] is not None}
        sinks.rows.append((window["start"] // 1000, device, row))

    rows.update(collect, metadata=True)


def _tuned(messages: Any, by_device: bool, sinks: Sinks) -> None:
    def fold_message(payload: bytes) -> list[Partial]:
        partials, refused = fold((payload,), by_device)
        sinks.dead_letters.extend(refused)
        return partials

    partials = messages.apply(fold_message, expand=True)
    partials = partials.set_timestamp(lambda partial, *_: partial.latest // 1000)
    keyed = partials.group_by(lambda partial: partial.device, name="device")
    rows = keyed.tumbling_window(INTERVAL * 1000, LATENESS * 1000).reduce(
        lambda cells, partial: add(cells, partial.cells), lambda partial: partial.cells
    )

    def collect(window: dict[str, Any], device: str, *_: Any) -> None:
        sinks.rows.append((window["start"] // 1000, device, means(window["value"])))

    rows.final(closing_strategy="partition").update(collect, metadata=True)


class _Message:
    """As confluent_kafka.Message."""

    def __init__(self, offset: int, at: float, data: bytes):
        self._offset, self._timestamp, self._data = offset, (1, int(at * 1000)), data

    def __len__(self) -> int:
        return len(self._data)

    def value(self) -> bytes:
        return self._data

    def offset(self) -> int:
        return self._offset

    def timestamp(self) -> tuple[int, int]:
        return self._timestamp

    topic, partition = staticmethod(lambda: _TOPIC), staticmethod(lambda: 0)
    key = headers = leader_epoch = staticmethod(lambda: None)


class _Client(nullcontext):
    """As Quix's consumer and producer in one; what is not defined here does nothing."""

    def __init__(self, messages: Sequence[_Message], stop: Callable[[], None]):
        super().__init__()
        self._left, self._stop = iter(messages), stop

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *_, **__: None

    def subscribe(self, topics: list[Any], on_assign: Callable[[Any, list[Any]], None], **_: Any) -> None:
        (self._topic,) = topics
        on_assign(self, [TopicPartition(_TOPIC, 0)])

    def committed(self, partitions: list[Any], timeout: float) -> list[Any]:
        return partitions

    def get_watermark_offsets(self, partition: Any, timeout: float) -> tuple[int, int]:
        return 0, 0

    def poll_row(self, **_: Any) -> Any:
        message = next(self._left, None)
        return self._stop() if message is None else self._topic.row_deserialize(message)

    def flush(self, timeout: float | None = None) -> int:
        return 0


class _Application(Application):
    def __init__(self, messages: Sequence[_Message], state_dir: str):
        self._client = _Client(messages, self.stop)
        config = TopicConfig(1, 1, {"retention.ms": "604800000", "retention.bytes": "-1"})
        admin = SimpleNamespace(inspect_topics=lambda names, timeout=None: dict.fromkeys(names, config))
        super().__init__(
            broker_address="none:9092",
            consumer_group="bench",
            state_dir=state_dir,
            use_changelog_topics=False,
            topic_manager=TopicManager(admin, "bench", auto_create_topics=False),
            broker_availability_timeout=0,
            loglevel=None,
        )

    def _get_internal_consumer(self, *_: Any, **__: Any) -> Any:
        return self._client

    _get_internal_producer = _get_internal_consumer


FORMS = {
    "quix idiomatic": Form(partial(_run, _idiomatic), _messages),
    "quix tuned": Form(partial(_run, _tuned), _messages),
}
