"""Quix Streams: a Python library on Kafka and RocksDB.

    idiomatic  apply(expand), a branch for what is refused, group_by, tumbling_window with a Mean per sensor, final
    tuned      each message folded by itself, no branches, its sums reduced in one window

Real here: its run loop, deserialization, dataframe, windows, RocksDB state and checkpoints. Not real: Kafka, of whose
clients there are the few methods below; and there are no changelog topics, which would need a broker.

Messages reach user code one at a time. Whoever kept some back to fold them together would lose them in a rebalance,
because their offsets are committed; so there is no form that folds batches.
"""

import tempfile
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any
from unittest.mock import patch

from confluent_kafka import TopicPartition  # type: ignore[import-not-found]
from quixstreams import Application  # type: ignore[import-not-found]
from quixstreams.dataframe.windows.aggregations import Mean  # type: ignore[import-not-found]
from quixstreams.models import TopicConfig  # type: ignore[import-not-found]

from benchmarks.contenders import Outcome
from benchmarks.load import INTERVAL, SENSORS, Load
from benchmarks.loop import added, averages, by_sensor, fold
from benchmarks.peers.engine import LATENESS, Run, Sent, Sinks, read

_TOPIC = "readings"
_CLIENTS = ("InternalConsumer", "InternalProducer", "TopicAdmin")

# The sensors' means of a window's result.
_Means = Callable[[dict[str, Any]], dict[str, float]]


def _form(build: Callable[[Any, bool, list[bytes]], tuple[Any, _Means]], load: Load, sent: Sent) -> Run:
    # A window closes when a later reading comes; there is no end of a stream.
    last = b'{"Timestamp": %.3f, "Temp": 0.5}' % (sent[-1][0] + 60)
    messages = [_Message(offset, data) for offset, data in enumerate([*(data for _, data in sent), last])]

    def run() -> Callable[[], Outcome]:
        sinks, kafka = Sinks(), _Kafka(messages)
        clients = dict.fromkeys(_CLIENTS, lambda **_: kafka)
        with tempfile.TemporaryDirectory(prefix="quix-") as state, patch.multiple("quixstreams.app", **clients):
            app = Application(
                "none:9092",
                state_dir=state,
                auto_create_topics=False,
                use_changelog_topics=False,
                broker_availability_timeout=0,
                loglevel=None,
            )
            kafka.stop = app.stop
            topic = app.topic(_TOPIC, value_deserializer="bytes")
            windows, means = build(app.dataframe(topic), load.by_device, sinks.dead_letters)

            def collect(window: dict[str, Any], device: str, *_: Any) -> None:
                sinks.rows.append((window["start"] // 1000, device, means(window)))

            windows.final(closing_strategy="partition").update(collect, metadata=True)
            app.run()
        return sinks.outcome

    return run


def _idiomatic(messages: Any, by_device: bool, dead_letters: list[bytes]) -> tuple[Any, _Means]:
    outcomes = messages.apply(read, expand=True)
    outcomes.filter(lambda outcome: type(outcome) is bytes).update(dead_letters.append)
    readings = outcomes.filter(lambda outcome: type(outcome) is not bytes)
    readings = readings.set_timestamp(lambda reading, *_: reading[0] // 1000)
    keyed = readings.group_by(lambda reading: reading[1] if by_device else "", name="device")
    windows = keyed.apply(lambda reading: reading[2]).tumbling_window(INTERVAL * 1000, LATENESS * 1000)
    means = windows.agg(**{name: Mean(name) for name in SENSORS})
    return means, lambda window: {name: window[name] for name in SENSORS if window[name] is not None}


def _tuned(messages: Any, by_device: bool, dead_letters: list[bytes]) -> tuple[Any, _Means]:
    def fold_message(payload: bytes) -> list[tuple[int, str, list[float]]]:
        partials, refused = fold((payload,), by_device)
        dead_letters.extend(refused)
        return [(one.latest, device, cells) for one in partials for device, cells in one.cells.items()]

    sums = messages.apply(fold_message, expand=True).set_timestamp(lambda one, *_: one[0] // 1000)
    windows = sums.group_by(lambda one: one[1], name="device").tumbling_window(INTERVAL * 1000, LATENESS * 1000)
    cells = windows.reduce(lambda cells, one: added(cells, one[2]), lambda one: one[2])
    return cells, lambda window: averages(by_sensor(window["value"]))


class _Message(bytes):
    """As confluent_kafka.Message. Of its times each form takes those in the readings."""

    def __new__(cls, offset: int, data: bytes) -> "_Message":
        message = super().__new__(cls, data)
        message.offset = lambda: offset
        return message

    value = bytes.__bytes__
    topic, partition = staticmethod(lambda: _TOPIC), staticmethod(lambda: 0)
    timestamp = staticmethod(lambda: (1, 0))
    key = headers = leader_epoch = staticmethod(lambda: None)


class _Kafka(nullcontext):
    """As Quix's consumer, producer and admin in one; what is not defined here does nothing."""

    def __init__(self, messages: Sequence[_Message]):
        super().__init__()
        self._left = iter(messages)

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *_, **__: None

    def inspect_topics(self, names: list[str], timeout: float) -> dict[str, Any]:
        return dict.fromkeys(names, TopicConfig(1, 1, {"retention.ms": "604800000"}))

    def subscribe(self, topics: list[Any], on_assign: Callable[[Any, list[Any]], None], **_: Any) -> None:
        (self._topic,) = topics
        on_assign(self, [TopicPartition(_TOPIC, 0)])

    def committed(self, partitions: list[Any], timeout: float) -> list[Any]:
        return partitions

    def get_watermark_offsets(self, partition: Any, timeout: float) -> tuple[int, int]:
        return 0, 0

    def poll_row(self, **_: Any) -> Any:
        message = next(self._left, None)
        return self.stop() if message is None else self._topic.row_deserialize(message)

    def flush(self, timeout: float | None = None) -> int:
        return 0


FORMS = {"quix idiomatic": partial(_form, _idiomatic), "quix tuned": partial(_form, _tuned)}
