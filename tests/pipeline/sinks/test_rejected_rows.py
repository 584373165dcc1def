"""Dead letters of rows that BigQuery rejected."""

import apache_beam as beam
from apache_beam.coders import FastPrimitivesCoder
from apache_beam.options.pipeline_options import PipelineOptions

from pipeline.sinks.rejected_rows import RejectedRow, RejectedRowsToDeadLetters
from tests.pipeline.conftest import captured

ROW = {"Timestamp": "2024-11-22T13:00:00.000000Z", "Temp": 5.0, "Revision": 1}


def dead_letters_of(rejected: list[RejectedRow], stage: str = "insert", time_column: str = "Timestamp") -> list[dict]:
    with captured() as (dead_letters, to_list):
        with beam.Pipeline(options=PipelineOptions(["--runner=FnApiRunner"])) as pipeline:
            rows = pipeline | beam.Create(rejected, reshuffle=False)
            _ = rows | RejectedRowsToDeadLetters(stage, time_column) | to_list
        return list(dead_letters)


class TestRejectedRowsToDeadLetters:
    def test_takes_event_time_from_the_column(self):
        row = {"Device": "a", "SilentSince": "2024-11-22T13:00:00.000000Z", "Timestamp": "never"}
        [found] = dead_letters_of([RejectedRow("t", row, [{"reason": "invalid"}])], "silence", "SilentSince")
        assert (found["stage"], found["event_time"]) == ("silence", "2024-11-22T13:00:00.000000Z")
        assert (found["device"], found["error"], found["message"]) == ("a", "invalid", '[{"reason": "invalid"}]')

    def test_derives_id_from_table_and_contents_whenever_row_was_created(self):
        change = {"_CHANGE_TYPE": "UPSERT", "_CHANGE_SEQUENCE_NUMBER": "1/2/3"}
        attempts = [
            ROW | {"WrittenAt": "2024-11-22T13:00:20.000000Z"},
            ROW | {"WrittenAt": "2024-11-22T13:00:21.000000Z"},
            ROW | change,
            ROW | change | {"_CHANGE_SEQUENCE_NUMBER": "1/2/4"},
        ]
        other = [("other_rows", ROW), ("rows", ROW | {"Revision": 2}), ("rows", ROW | {"Temp": 6.0})]
        rejected = [
            RejectedRow(table, row, [{"reason": "invalid"}])
            for table, row in [*(("rows", attempt) for attempt in attempts), *other]
        ]
        of_a_job, of_another = ([found["dead_letter_id"] for found in dead_letters_of(rejected)] for _ in range(2))
        first, first_again, second, second_again, *others = of_a_job
        assert (first, second) == (first_again, second_again)
        assert len({first, second, *others}) == 5
        assert not set(of_a_job) & set(of_another)

    def test_reads_rejected_row_that_was_encoded(self):
        rejected = RejectedRow("t", ROW, [{"reason": "invalid"}])
        decoded = FastPrimitivesCoder().decode(FastPrimitivesCoder().encode(rejected))
        assert (type(decoded), decoded) == (RejectedRow, rejected)
