"""Quix Streams: a Python library on Kafka and RocksDB.

    idiomatic  apply(expand), a branch for rejections, group_by, tumbling_window with a Mean per sensor, final
    tuned      each message folded alone, no branches, its sums reduced in one window

Real here: its run loop, deserialization, dataframe, windows, RocksDB state and checkpoints. Not real: Kafka, whose
clients are replaced by the few methods below, and changelog topics, which would need a broker.

Messages reach user code one at a time. A form that kept some back to fold them together would lose them in a rebalance,
because their offsets are committed; so no form folds batches.
"""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import partial
from itertools import chain, count
from operator import add
from typing import Any
from unittest.mock import patch

from confluent_kafka import TopicPartition  # type: ignore[import-not-found]
from quixstreams import Application  # type: ignore[import-not-found]
from quixstreams.dataframe.windows.aggregations import Mean  # type: ignore[import-not-found]
from quixstreams.models import TopicConfig  # type: ignore[import-not-found]

from benchmarks.contenders import Outcome
from benchmarks.load import INTERVAL, SENSORS, Load
from benchmarks.loop import averages, by_sensor, fold
from benchmarks.peers.engine import LATENESS, Form, Sinks, read
from local.stack.processes import scratch_folder

_TOPIC = "readings"


def _messages(load: Load, sent: Sequence[tuple[float, bytes]]) -> list["_Message"]:
    # A window closes when a later reading arrives; a stream has no end.
    after = sent[-1][0] + 60
    return [_Message(data) for _, data in [*sent, (after, b'{"Timestamp": %.3f, "Temp": 0.5}' % after)]]


def _run(build: Callable[..., Any], load: Load, messages: list["_Message"]) -> Callable[[], Outcome]:
    sinks, kafka = Sinks(), _Kafka(messages)
    clients = dict.fromkeys(("InternalConsumer", "InternalProducer", "TopicAdmin"), lambda **_: kafka)
    with scratch_folder("quix-") as state, patch.multiple("quixstreams.app", **clients):
        options = {"use_changelog_topics": False, "broker_availability_timeout": 0, "loglevel": None}
        app = Application("none:9092", state_dir=state, **options)
        kafka.stop = app.stop
        topic = app.topic(_TOPIC, value_deserializer="bytes")
        windows, means = build(app.dataframe(topic), load.by_device, sinks.dead_letters)

        def collect(window: dict[str, Any], device: str, *_: Any) -> None:
            sinks.rows.append((window["start"] // 1000, device, means(window)))

        windows.final(closing_strategy="partition").update(collect, metadata=True)
        app.run()
    return sinks.outcome


def _idiomatic(messages: Any, by_device: bool, dead_letters: list[bytes]) -> tuple[Any, Callable[..., Any]]:
    outcomes = messages.apply(lambda payload: [*chain(*read(payload))], expand=True)
    outcomes.filter(lambda outcome: type(outcome) is bytes).update(dead_letters.append)
    readings = outcomes.filter(lambda outcome: type(outcome) is not bytes)
    readings = readings.set_timestamp(lambda reading, *_: reading[0] // 1000)
    keyed = readings.group_by(lambda reading: reading[1] if by_device else "", name="device")
    windows = keyed.apply(lambda reading: reading[2]).tumbling_window(INTERVAL * 1000, LATENESS * 1000)
    means = windows.agg(**{name: Mean(name) for name in SENSORS})
    return means, lambda window: {name: window[name] for name in SENSORS if window[name] is not None}


def _tuned(messages: Any, by_device: bool, dead_letters: list[bytes]) -> tuple[Any, Callable[..., Any]]:
    def fold_message(payload: bytes) -> list[tuple[int, str, list[float]]]:
        partials, rejected = fold((payload,), by_device)
        dead_letters.extend(rejected)
        return [(latest, device, of) for _, latest, cells in partials for device, of in cells.items()]

    parts = messages.apply(fold_message, expand=True).set_timestamp(lambda one, *_: one[0] // 1000)
    windows = parts.group_by(lambda one: one[1], name="device").tumbling_window(INTERVAL * 1000, LATENESS * 1000)
    sums = windows.reduce(lambda cells, one: list(map(add, cells, one[2])), lambda one: one[2])
    return sums, lambda window: averages(by_sensor(window["value"]))


class _Message(bytes):
    """As confluent_kafka.Message. Each form takes the event times from the readings."""

    value = bytes.__bytes__
    offset = staticmethod(count().__next__)
    topic, partition = staticmethod(lambda: _TOPIC), staticmethod(lambda: 0)
    timestamp = staticmethod(lambda: (1, 0))
    key = headers = leader_epoch = staticmethod(lambda: None)


class _Kafka(nullcontext):
    """As Quix's consumer, producer and admin in one; what is not defined here does nothing."""

    committed = staticmethod(lambda partitions, timeout: partitions)
    get_watermark_offsets = staticmethod(lambda partition, timeout: (0, 0))

    def __init__(self, messages: Sequence[_Message]):
        super().__init__()
        self._left = iter(messages)

    def __getattr__(self, name: str) -> Callable[..., int]:
        return lambda *_, **__: 0

    def inspect_topics(self, names: list[str], timeout: float) -> dict[str, TopicConfig]:
        return dict.fromkeys(names, TopicConfig(1, 1, {"retention.ms": "604800000"}))

    def subscribe(self, topics: list[Any], on_assign: Callable[[Any, list[Any]], None], **_: Any) -> None:
        (self._topic,) = topics
        on_assign(self, [TopicPartition(_TOPIC, 0)])

    def poll_row(self, **_: Any) -> Any:
        message = next(self._left, None)
        return self.stop() if message is None else self._topic.row_deserialize(message)


FORMS = {
    "quix idiomatic": Form(partial(_run, _idiomatic), _messages),
    "quix tuned": Form(partial(_run, _tuned), _messages),
}
