"""Messages of any form to readings, by a mapping."""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from typing import Any
from zoneinfo import ZoneInfo

from pipeline.decode.avro import AvroReader, FetchSchema
from pipeline.decode.decoder import Decoder, checked_device
from pipeline.decode.documents import Documents, OneDocument
from pipeline.decode.envelope import Envelope
from pipeline.decode.errors import (
    BadTimestamp,
    BadValue,
    InvalidReading,
    NoKnownSensor,
    Rejection,
    SchemaUnavailable,
    as_reason,
)
from pipeline.decode.formats import Reader, csv_reader, read_form, read_json, read_text, unwrapped
from pipeline.decode.influx import read_influx
from pipeline.decode.mapping import Mapping
from pipeline.decode.plan import Plan
from pipeline.decode.quick import quick
from pipeline.decode.reading import DEVICE, MAX_DEVICE, TIMESTAMP, Reading
from pipeline.decode.rejections import BadValues, Rejections
from pipeline.decode.schemas import SchemaService
from pipeline.decode.senml import read_senml
from pipeline.decode.timestamps import EARLIEST, LocalTimes, cached_fractions, cached_seconds, out_of_range

_NO_ENVELOPE = Envelope()


def decoder_for(mapping: Mapping) -> "Decoder | MappedDecoder":
    """Return what decodes messages by a mapping: for the message contract, the faster decoder."""
    if mapping.is_contract:
        return Decoder(tuple(mapping.sensors))
    return MappedDecoder(mapping, SchemaService().fetch if mapping.format == "avro" else None)


class MappedDecoder:
    """Turns message bytes into readings and rejections, by a mapping; raises only what fetching a schema raises.

    Args:
      mapping: where times, devices and values are.
      fetch_schema: returns the text of an Avro schema; needed with `format=avro`.

    Attributes:
      readings: how many there were so far.
      ignored_keys: none; what a mapping does not name is not looked at.
      without_reading: how many documents were passed over because no sensor was found in them.
    """

    def __init__(self, mapping: Mapping, fetch_schema: FetchSchema | None = None):
        self.readings = self.ignored_keys = self.without_reading = 0
        self._mapping = mapping
        # A document in canonical form has both; one of them is enough to find that it may be in it.
        self._plan = Plan(mapping, DEVICE if mapping.timestamp.text == TIMESTAMP else TIMESTAMP)
        self._canonical = Plan(Mapping.of_columns(tuple(mapping.sensors)))
        self._canonical.read_value = self._plan.read_value
        self._names = {TIMESTAMP, DEVICE, *mapping.sensors}
        self._seconds = cached_seconds()
        self._fractions = cached_fractions()
        self._parse_other = LocalTimes(ZoneInfo(mapping.time_zone)).parse
        self._read = reader_for(mapping, fetch_schema)
        self._quick = quick(self._plan, self._event_time)
        places = ", ".join(mapping.sensors.values())
        self._no_sensor = f"no sensor found: {'no such name' if mapping.sensor_name else 'nothing'} at {places}"[:300]

    def decode(
        self,
        payloads: Iterable[bytes],
        latest: int,
        rejections: list[Rejection],
        envelopes: Sequence[Envelope] = (),
    ) -> Iterator[Reading]:
        """Yield the readings, in order, and add what is refused to `rejections`.

        Args:
          payloads: the data of messages.
          latest: no event time may be after this, microseconds since the epoch.
          rejections: the list to add to.
          envelopes: what each message carries beside its data, if the mapping asks for it.
        """
        rejected = Rejections(rejections)
        shape, decode_quickly = self._plan.shape, self._quick
        for number, payload in enumerate(payloads):
            # The joint walk reads messages of another shape, and those with invalid values.
            if decode_quickly:
                try:
                    reading = decode_quickly(payload, latest)
                except Exception:
                    pass
                else:
                    self.readings += 1
                    yield reading
                    continue
            envelope = envelopes[number] if envelopes else _NO_ENVELOPE
            readings: Iterable[Reading] = ()
            if shape:
                with suppress(Exception):
                    readings = self._valid_readings(shape.rows(payload, self._plan.row(envelope)), latest)
            for reading in readings or self._readings(number, payload, envelope, latest, rejected):
                self.readings += 1
                yield reading
        rejected.end()

    def _valid_readings(self, rows: Iterable[Sequence[Any]], latest: int) -> list[Reading]:
        """Return the readings of a message whose values are all valid.

        Raises:
          InvalidReading: something in it is invalid.
        """
        plan = self._plan
        readings = []
        for row in rows:
            values = self._values(plan, row)
            if values:
                readings.append((*self._origin(plan, row, latest), values))
        return list(_merged(readings)) if plan.name else readings

    def _values(self, plan: Plan, row: Sequence[Any], bad: BadValues | None = None) -> dict[str, float]:
        """Return the values of a row, and add invalid values to `bad`.

        Raises:
          BadValue: a value is none, and `bad` is not given.
        """
        values = {}
        for column, value in plan.raw_values(row):
            if type(value) is float:
                values[column] = value
                continue
            try:
                number = plan.read_value(column, value)
            except BadValue as error:
                if bad is None:
                    raise
                bad[column] = value, as_reason(error)
            else:
                if number is not None:
                    values[column] = number
        return values

    def _origin(self, plan: Plan, row: Sequence[Any], latest: int) -> tuple[int, str]:
        """Return the event time and the device of a row.

        Raises:
          BadTimestamp, BadDevice: it has none, or one that cannot be used.
        """
        event_time = self._event_time(plan.timestamp(row), latest)
        device = plan.device(row)
        if type(device) is str and len(device) <= MAX_DEVICE:
            return event_time, device
        if isinstance(device, int | float):
            device = json.dumps(device, allow_nan=False)
        return event_time, checked_device(device)

    def _event_time(self, stamp: Any, latest: int) -> int:
        try:
            event_time = self._seconds[stamp[:19]] + self._fractions[stamp[19:]]
        except (BadTimestamp, LookupError, TypeError):
            event_time = self._parse_other(stamp)
        if not EARLIEST <= event_time <= latest:
            raise out_of_range(event_time, stamp)
        return event_time

    def _readings(
        self, number: int, payload: bytes, envelope: Envelope, latest: int, rejected: Rejections
    ) -> Iterator[Reading]:
        """Yield the readings of a message, and add what is refused to `rejected`."""
        documents: Documents = OneDocument(None, payload)
        try:
            documents = self._documents(payload, envelope)
            readings = self._read_documents(
                documents, envelope, latest, _MessageRejections(rejected, number, payload, documents)
            )
            yield from _merged(readings) if self._plan.name else readings
        except SchemaUnavailable:
            raise
        except Exception as error:
            rejected.begin(number, payload, documents)
            rejected.add(0, error)

    def _documents(self, payload: bytes, envelope: Envelope) -> Documents:
        """Return the documents of a message, which may be a dead letter in canonical form whatever the format."""
        if b'"Timestamp"' in payload and (self._mapping.format != "json" or self._mapping.array_is_document):
            with suppress(InvalidReading):
                documents = read_json(payload)
                if all(map(self._is_canonical, documents)):
                    return documents
        return unwrapped(lambda inner: self._read(inner, envelope), payload)

    def _read_documents(
        self, documents: Documents, envelope: Envelope, latest: int, rejected: "_MessageRejections"
    ) -> Iterator[Reading]:
        for index, document in enumerate(documents):
            rejected.begin_document(index)
            if isinstance(document, InvalidReading):
                rejected.add(document)
                continue
            plan = self._plan_for(document, envelope)
            found = good = False
            for row in plan.walk.rows(document, plan.row(envelope)):
                bad: BadValues = {}
                values = self._values(plan, row, bad)
                if not values and not bad:
                    continue
                found = True
                try:
                    event_time, device = self._origin(plan, row, latest)
                except InvalidReading as error:
                    rejected.add_part(error, plan.timestamp(row), plan.device(row), dict(plan.raw_values(row)))
                    continue
                for column, (value, reason) in bad.items():
                    rejected.add_part(reason, plan.timestamp(row), device or None, {column: value})
                if values:
                    good = True
                    yield event_time, device, values
            if not found and self._mapping.ignore_no_reading:
                self.without_reading += 1
            elif not found:
                rejected.add(NoKnownSensor(self._no_sensor))
            elif not good:
                rejected.replace_parts()

    def _plan_for(self, document: Any, envelope: Envelope) -> Plan:
        if not self._is_canonical(document):
            return self._plan
        if self._mapping.ambiguous:
            # A document in which the mapping finds a sensor is read by the mapping.
            with suppress(InvalidReading):
                for row in self._plan.walk.rows(document, self._plan.row(envelope)):
                    if any(value is not None for _, value in self._plan.raw_values(row)):
                        return self._plan
        return self._canonical

    def _is_canonical(self, document: Any) -> bool:
        """Return whether a document is a dead letter's payload: time, device and columns, and nothing else."""
        if type(document) is not dict or TIMESTAMP not in document or not document.keys() <= self._names:
            return False
        values = [value for name, value in document.items() if name not in (TIMESTAMP, DEVICE)]
        return bool(values) and not any(isinstance(value, dict | list) for value in values)


class _MessageRejections:
    """Rejections of one message, document by document.

    A document of which nothing is read is kept as its own bytes; of any other, parts are kept in canonical form.
    """

    def __init__(self, rejected: Rejections, number: int, payload: bytes, documents: Documents):
        self._rejected = rejected
        self._begin = partial(rejected.begin, number, payload, documents)
        self._index = 0
        self._first: InvalidReading | None = None
        self._mark: Any = None

    def begin_document(self, index: int) -> None:
        self._index, self._first = index, None

    def add(self, error: InvalidReading) -> None:
        self._begin()
        self._rejected.add(self._index, error)

    def add_part(self, error: InvalidReading, timestamp: Any, device: Any, columns: dict[str, Any]) -> None:
        self._begin()
        if not self._first:
            self._first, self._mark = as_reason(error), self._rejected.mark()
        self._rejected.add_part(self._index, error, timestamp, device, columns)

    def replace_parts(self) -> None:
        """Keep the document instead of its parts."""
        errors = self._rejected.undo(self._mark)
        if self._first:
            self._rejected.add(self._index, self._first, errors)


def _merged(readings: Iterable[Reading]) -> Iterator[Reading]:
    """Yield readings; consecutive ones of the same time and device are merged if they share no column."""
    last: Reading | None = None
    for reading in readings:
        if last and last[:2] == reading[:2] and last[2].keys().isdisjoint(reading[2]):
            last[2].update(reading[2])
            continue
        if last:
            yield last
        last = reading
    if last:
        yield last


def reader_for(mapping: Mapping, fetch_schema: FetchSchema | None) -> Callable[[bytes, Envelope], Documents]:
    """Return what reads the documents of a format."""
    if mapping.format == "avro":
        if not fetch_schema:
            raise ValueError("format=avro needs fetch_schema")
        avro = AvroReader(fetch_schema)
        return lambda payload, envelope: avro.read(payload, envelope.attributes)
    if mapping.format == "senml":
        return lambda payload, envelope: read_senml(payload, envelope.time or 0)
    readers: dict[str, Reader] = {
        "json": partial(read_json, array_is_document=mapping.array_is_document),
        "influx": read_influx,
        "csv": csv_reader(mapping.csv_columns),
        "form": read_form,
        "text": read_text,
    }
    read = readers[mapping.format]
    return lambda payload, envelope: read(payload)
