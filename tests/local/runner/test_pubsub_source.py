"""The Pub/Sub source: on the emulator with small pipelines, and its reader with a scripted client."""

import json
import queue
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import apache_beam as beam
import pytest
from apache_beam.io.gcp.pubsub import PubsubMessage, ReadFromPubSub
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.runners.direct import executor, transform_evaluator
from apache_beam.transforms import core
from apache_beam.transforms.window import FixedWindows, TimestampedValue
from apache_beam.utils.timestamp import Timestamp
from google.api_core.exceptions import ServiceUnavailable
from google.pubsub_v1 import PullResponse

from local.runner import beam_patches, pubsub_source, watermark
from local.runner.pubsub_source import Reader
from local.stack import emulators

# The output of the pipelines, which run in another thread of this process.
OUTPUT: "queue.Queue[Any]" = queue.Queue()


class Collect(beam.DoFn):
    def process(self, element, window=beam.DoFn.WindowParam, pane=beam.DoFn.PaneInfoParam):
        OUTPUT.put((element, window, pane))


class CollectBundle(beam.DoFn):
    def __init__(self, name):
        self.name = name

    def process(self, element):
        pass

    def finish_bundle(self):
        OUTPUT.put(self.name)


@pytest.fixture
def place(pubsub_server: str, project: str, request, monkeypatch) -> Iterator[SimpleNamespace]:
    """A topic, a subscription and a publisher client for one test."""
    monkeypatch.setenv("PUBSUB_EMULATOR_HOST", pubsub_server)
    monkeypatch.setattr("apache_beam.runners.direct.executor._ExecutorService._ExecutorServiceWorker.TIMEOUT", 0.1)
    install(monkeypatch)
    while not OUTPUT.empty():
        OUTPUT.get()
    name = f"source-{time.time_ns()}"
    topic = emulators.create_topic(pubsub_server, project, name)
    subscription = emulators.create_subscription(pubsub_server, project, name, name)
    with emulators.publisher_client(pubsub_server) as publisher:
        yield SimpleNamespace(
            host=pubsub_server,
            project=project,
            topic=topic,
            subscription=subscription,
            publish=lambda messages: publisher.publish(topic=topic, messages=messages),
        )


def install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Patch the runner for one test."""
    for place, name in (
        (transform_evaluator, "_PubSubReadEvaluator"),
        (executor._ExecutorServiceParallelExecutor, "schedule_consumers"),
        (core, "get_function_args_defaults"),
    ):
        monkeypatch.setattr(place, name, getattr(place, name))
    beam_patches.install()


@contextmanager
def running(build: Callable[[beam.Pipeline], Any]) -> Iterator[None]:
    """Run the pipeline that `build` builds for the length of the block."""
    options = PipelineOptions(["--runner=BundleBasedDirectRunner", "--streaming"])
    pipeline = beam.Pipeline(options=options)
    build(pipeline)
    result = pipeline.run()
    try:
        yield
    finally:
        result.cancel()


def rfc3339(moment: datetime) -> str:
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def reading(moment: datetime, device: str) -> dict[str, Any]:
    data = json.dumps({"Timestamp": rfc3339(moment), "Device": device}).encode()
    return {"data": data, "attributes": {"timestamp": rfc3339(moment), "device": device}}


def with_own_timestamp(data: bytes) -> TimestampedValue:
    value = json.loads(data)
    return TimestampedValue(value["Device"], Timestamp.from_rfc3339(value["Timestamp"]))


def count_by_window(source: ReadFromPubSub, seconds: int) -> Callable[[beam.Pipeline], Any]:
    return lambda pipeline: (
        pipeline
        | source
        | beam.Map(with_own_timestamp)
        | beam.WindowInto(FixedWindows(seconds))
        | beam.Map(lambda device: ("all", device))
        | beam.GroupByKey()
        | beam.MapTuple(lambda _, devices: sorted(devices))
        | beam.ParDo(Collect())
    )


@pytest.mark.parametrize("timestamp_attribute", ["timestamp", None])
def test_backlog_published_device_after_device_is_complete(place, timestamp_attribute) -> None:
    start = datetime.now(UTC).replace(second=0, microsecond=0) - timedelta(minutes=12)
    moments = [start + timedelta(seconds=0.4 * i) for i in range(1500)]
    for device in ("device-1", "device-2"):
        for batch in range(0, 1500, 500):
            place.publish([reading(moment, device) for moment in moments[batch : batch + 500]])

    source = ReadFromPubSub(subscription=place.subscription, timestamp_attribute=timestamp_attribute)
    with running(count_by_window(source, seconds=60)):
        panes = [OUTPUT.get(timeout=30) for _ in range(10)]
        time.sleep(0.5)  # for panes that should not be emitted
    assert OUTPUT.empty()
    assert {window.start.micros for _, window, _ in panes} == {
        round((start + timedelta(minutes=i)).timestamp()) * 1_000_000 for i in range(10)
    }
    for devices, _, pane in panes:
        assert devices == ["device-1"] * 150 + ["device-2"] * 150
        assert pane.is_first


def test_live_reading_is_emitted_within_eight_seconds_without_another(place) -> None:
    source = ReadFromPubSub(subscription=place.subscription, timestamp_attribute="timestamp")
    with running(count_by_window(source, seconds=1)):
        for _ in range(2):  # the second time after the reader was idle
            moment = datetime.now(UTC)
            place.publish([reading(moment, "device-1")])
            devices, window, _ = OUTPUT.get(timeout=15)
            assert devices == ["device-1"]
            assert time.time() - float(window.end) < 8


def test_message_of_nine_megabytes_is_read_and_does_not_delay_others(place) -> None:
    moment = datetime.now(UTC) - timedelta(minutes=10)
    large = {"data": reading(moment, "d" * 9_000_000)["data"], "attributes": {"timestamp": rfc3339(moment)}}
    source = ReadFromPubSub(subscription=place.subscription, timestamp_attribute="timestamp")
    with running(count_by_window(source, seconds=60)):
        place.publish([large])
        place.publish([reading(moment, "device-1")])
        devices: list[str] = []
        while len(devices) < 2:
            devices += OUTPUT.get(timeout=30)[0]
    assert sorted(map(len, devices)) == [8, 9_000_000]


class Slow(beam.DoFn):
    """Slows bundles down so that the reader stays behind."""

    def process(self, element):
        yield element

    def finish_bundle(self):
        time.sleep(0.6)


def test_windows_are_complete_when_the_reader_is_always_behind(place, monkeypatch) -> None:
    monkeypatch.setattr(watermark, "CATCH_UP", watermark.SECOND // 4)
    source = ReadFromPubSub(subscription=place.subscription, timestamp_attribute="timestamp")
    published: list[datetime] = []
    stop = threading.Event()

    def publish() -> None:
        while not stop.wait(0.1):
            published.append(datetime.now(UTC))
            place.publish([reading(published[-1], "device-1")])

    publishing = threading.Thread(target=publish)
    with running(count_by_window(source | beam.ParDo(Slow()), seconds=1)):
        publishing.start()
        try:
            panes = [OUTPUT.get(timeout=40) for _ in range(5)]
        finally:
            stop.set()
            publishing.join()
    for devices, window, pane in panes:
        expected = [moment for moment in published if window.start <= Timestamp.of(moment.timestamp()) < window.end]
        assert (len(devices), pane.is_first) == (len(expected), True)


def test_messages_with_attributes_equal_those_of_beams_reader(place) -> None:
    place.publish([{"data": b"one", "attributes": {"a": "b"}, "ordering_key": ""}])

    def build(pipeline: beam.Pipeline) -> None:
        read = ReadFromPubSub(subscription=place.subscription, with_attributes=True)
        _ = pipeline | read | beam.ParDo(Collect())

    with running(build):
        message, _, _ = OUTPUT.get(timeout=15)
    assert type(message) is PubsubMessage
    assert (message.data, message.attributes) == (b"one", {"a": "b"})
    assert message.message_id
    assert abs(message.publish_time.timestamp() - time.time()) < 30


def test_duplicates_are_removed_and_acknowledged(place, monkeypatch) -> None:
    # Each message is delivered twice, as after a late acknowledgement.
    pull, acknowledge = emulators.pull, emulators.SubscriberClient.acknowledge
    acknowledged: queue.Queue[str] = queue.Queue()

    def record(self, *args, ack_ids, **kwargs):
        acknowledge(self, *args, ack_ids=ack_ids, **kwargs)
        for ack_id in ack_ids:
            acknowledged.put(ack_id)

    monkeypatch.setattr(pubsub_source, "pull", lambda *args: [one for one in pull(*args) for _ in range(2)])
    monkeypatch.setattr(emulators.SubscriberClient, "acknowledge", record)

    def build(pipeline: beam.Pipeline) -> None:
        read = ReadFromPubSub(subscription=place.subscription, id_label="reading_id")
        _ = pipeline | read | beam.ParDo(Collect())

    def arriving(count: int) -> list[bytes]:
        return [OUTPUT.get(timeout=15)[0] for _ in range(count)]

    with running(build):
        place.publish([{"data": b"%d" % i, "attributes": {"reading_id": f"r{i % 3}"}} for i in range(6)])
        assert arriving(3) == [b"0", b"1", b"2"]
        place.publish([{"data": b"again", "attributes": {"reading_id": "r1"}}])
        # Without the attribute, or with an empty one, Pub/Sub's id is used.
        place.publish([{"data": b"same"}, {"data": b"same"}, {"data": b"last", "attributes": {"reading_id": ""}}])
        assert arriving(3) == [b"same", b"same", b"last"]
        assert len([acknowledged.get(timeout=15) for _ in range(20)]) == 20
    assert OUTPUT.empty()


def test_unreadable_timestamp_attribute_falls_back_to_the_publish_time(place) -> None:
    bad = ["", "yesterday", "9" * 40, "2026-13-45T00:00:00Z", "0001-01-01T00:00:00+05:00"]
    place.publish([{"data": text.encode() or b"empty", "attributes": {"timestamp": text}} for text in bad])
    place.publish([{"data": b"missing"}, {"data": b"good", "attributes": {"timestamp": "1763816401250"}}])

    def build(pipeline: beam.Pipeline) -> None:
        read = ReadFromPubSub(subscription=place.subscription, timestamp_attribute="timestamp")
        _ = pipeline | read | beam.Map(lambda data, at=beam.DoFn.TimestampParam: (data, at)) | beam.ParDo(Collect())

    with running(build):
        seen = dict(OUTPUT.get(timeout=15)[0] for _ in range(7))
    assert seen.pop(b"good") == Timestamp(1763816401.25)
    assert all(abs(float(at) - time.time()) < 30 for at in seen.values())


def test_messages_are_acknowledged_after_all_steps(place, monkeypatch) -> None:
    acknowledge = emulators.SubscriberClient.acknowledge

    def record(self, *args, ack_ids, **kwargs):
        OUTPUT.put(("acknowledged", len(ack_ids), None))
        return acknowledge(self, *args, ack_ids=ack_ids, **kwargs)

    monkeypatch.setattr(emulators.SubscriberClient, "acknowledge", record)
    place.publish([{"data": b"%d" % i} for i in range(250)])

    def build(pipeline: beam.Pipeline) -> None:
        _ = pipeline | ReadFromPubSub(subscription=place.subscription) | beam.ParDo(Collect())

    done = acknowledged = 0
    with running(build):
        while acknowledged < 250:
            what, count, _ = OUTPUT.get(timeout=15)
            if what == "acknowledged":
                acknowledged += count
                assert acknowledged <= done
            else:
                done += 1
    assert done == 250


def test_topic_is_read_through_a_subscription_that_close_deletes(place) -> None:
    def subscriptions() -> list[str]:
        with emulators.publisher_client(place.host) as client:
            return [s for s in client.list_topic_subscriptions(topic=place.topic) if s != place.subscription]

    def build(pipeline: beam.Pipeline) -> None:
        _ = pipeline | ReadFromPubSub(topic=place.topic) | beam.ParDo(Collect())

    with running(build):
        deadline = time.monotonic() + 15
        while not subscriptions() and time.monotonic() < deadline:
            time.sleep(0.05)
        place.publish([{"data": b"hello"}])
        assert OUTPUT.get(timeout=15)[0] == b"hello"
    pubsub_source.close()
    assert not subscriptions()


def test_step_without_input_is_not_run(place) -> None:
    def build(pipeline: beam.Pipeline) -> None:
        read = pipeline | ReadFromPubSub(subscription=place.subscription)
        _ = read | beam.Filter(lambda _: False) | "never" >> beam.ParDo(CollectBundle("never"))
        _ = read | "always" >> beam.ParDo(CollectBundle("always"))

    with running(build):
        for _ in range(3):
            place.publish([{"data": b"one"}])
            assert OUTPUT.get(timeout=15) == "always"
    assert OUTPUT.empty()


@pytest.mark.parametrize(
    "text",
    [
        "1763816401250",
        "0",
        "-5",
        " 12 ",
        "1960-01-01T00:00:00Z",
        "2026-11-22T13:00:01.250Z",
        "2026-11-22t13:00:01z",
        "2026-11-22T13:00:01+05:30",
        "2026-11-22T13:00:01.1234567Z",
        "2026-11-22T13:00:01",
    ],
)
def test_parse_equals_beams_reader(text) -> None:
    try:
        stock = Timestamp(micros=int(text) * 1000)
    except ValueError:
        stock = Timestamp.from_rfc3339(text)
    if stock.precision() > Timestamp.MICROS_PRECISION:
        stock = stock.to_precision(Timestamp.MICROS_PRECISION, allow_lossy_conversion=True)
    assert pubsub_source._parse(text) == stock.micros


class Subscription:
    """A scripted client and its subscription: messages are in `queue`, then leased, then acknowledged."""

    def __init__(self, *ack_ids: str) -> None:
        self.queue = list(ack_ids)
        self.acknowledged: list[str] = []
        self.returned: list[str] = []
        self.rejections: list[Exception] = []

    def pull(self, request, **_) -> PullResponse:
        taken, self.queue = self.queue[: request.max_messages], self.queue[request.max_messages :]
        messages = [{"ack_id": ack_id, "message": {"data": ack_id.encode()}} for ack_id in taken]
        return PullResponse(received_messages=messages)

    def acknowledge(self, *, subscription, ack_ids) -> None:
        if self.rejections:
            raise self.rejections.pop()
        self.acknowledged += ack_ids

    def modify_ack_deadline(self, *, subscription, ack_ids, ack_deadline_seconds) -> None:
        assert ack_deadline_seconds == 0
        self.returned += ack_ids
        self.queue = [*ack_ids, *self.queue]


@pytest.fixture
def bundles_of_one(monkeypatch) -> None:
    monkeypatch.setattr(pubsub_source, "BUNDLE_MESSAGES", 1)


@pytest.mark.usefixtures("bundles_of_one")
class TestReader:
    def bundle(self, reader: Reader) -> list[str]:
        """Return the next bundle, after the pull of the one after it has ended."""
        bundle = [one.message.data.decode() for one in reader.next_bundle().received]
        reader._ahead.exception(15)
        return bundle

    def test_next_bundle_pulls_one_bundle_ahead(self) -> None:
        subscription = Subscription("a", "b", "c", "d")
        reader = Reader(subscription, "s")
        assert self.bundle(reader) == ["a"]
        assert subscription.queue == ["c", "d"]
        assert [self.bundle(reader) for _ in range(4)] == [["b"], ["c"], ["d"], []]

    def test_next_bundle_acknowledges_only_processed_bundles(self) -> None:
        subscription = Subscription("a", "b", "c")
        reader = Reader(subscription, "s")
        for bundle, processed in (("a", []), ("b", ["a"]), ("c", ["a", "b"])):
            assert self.bundle(reader) == [bundle]
            assert subscription.acknowledged == processed

    def test_next_bundle_retries_a_failed_acknowledgement(self) -> None:
        subscription = Subscription("a", "b", "c")
        reader = Reader(subscription, "s")
        assert self.bundle(reader) == ["a"]
        subscription.rejections.append(ServiceUnavailable("no"))
        assert self.bundle(reader) == ["b"]
        with pytest.raises(ServiceUnavailable):
            reader.next_bundle()
        # The runner calls again.
        assert [self.bundle(reader) for _ in range(2)] == [["c"], []]
        assert subscription.acknowledged == ["a", "b", "c"]

    def test_next_bundle_returns_messages_that_were_held_too_long(self, monkeypatch) -> None:
        now = pubsub_source._now()
        monkeypatch.setattr(pubsub_source, "_now", lambda: now)
        subscription = Subscription("a", "b", "c")
        reader = Reader(subscription, "s")
        assert self.bundle(reader) == ["a"]
        now += 9 * pubsub_source.SECOND
        assert [self.bundle(reader) for _ in range(3)] == [["b"], ["c"], []]
        assert subscription.returned == ["b"]
        assert subscription.acknowledged == ["a", "b", "c"]

    def test_next_bundle_acknowledges_before_it_replaces_returned_messages(self, monkeypatch) -> None:
        now = pubsub_source._now()
        monkeypatch.setattr(pubsub_source, "_now", lambda: now)
        subscription = Subscription("a", "b", "c")
        acknowledged_at_pull: list[list[str]] = []
        pull = subscription.pull

        def recording_pull(request: Any, **options: Any) -> PullResponse:
            acknowledged_at_pull.append(list(subscription.acknowledged))
            return pull(request, **options)

        subscription.pull = recording_pull  # type: ignore[method-assign]
        reader = Reader(subscription, "s")
        assert self.bundle(reader) == ["a"]
        now += 9 * pubsub_source.SECOND
        assert self.bundle(reader) == ["b"]
        # For a, b, b again, and c.
        assert acknowledged_at_pull == [[], [], ["a"], ["a"]]
