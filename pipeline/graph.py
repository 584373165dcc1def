"""The dataflow on one screen: messages to rows, silences and dead letters."""

from typing import Any

import apache_beam as beam

from pipeline.aggregate.fold import FoldReadings
from pipeline.decode.reading import TIMESTAMP
from pipeline.launch.job import Job
from pipeline.rows import MakeRows
from pipeline.silences import SILENT_SINCE, NoticeSilences
from pipeline.sinks.rejected_rows import RejectedRowsToDeadLetters


def build(
    pipeline: beam.Pipeline,
    job: Job,
    source: beam.PTransform[Any, Any],
    write_rows: beam.PTransform[Any, Any],
    write_dead_letters: beam.PTransform[Any, Any],
    write_silences: beam.PTransform[Any, Any] | None = None,
) -> None:
    """Connect the source to the sinks.

    The labels of steps are part of the update contract: when a running job is updated, Dataflow hands the state of each
    step to the step of the same label. The label of the step that emits intervals also contains the parameters that an
    update must not change: see `pipeline.windows.labels`.

    Args:
      pipeline: where the steps are added.
      job: the validated parameters.
      source: yields messages, as bytes or as PubsubMessage.
      write_rows: takes rows, returns a `RejectedRow` for each that it could not write.
      write_dead_letters: takes dead letters.
      write_silences: takes silences, returns a `RejectedRow` for each that it could not write; needed with
        silence_after.
    """
    messages = pipeline | "ReadMessages" >> source

    folded = messages | "FoldReadings" >> FoldReadings(
        job.mapping, job.max_future_skew, job.intervals, job.silence_after
    )
    sums = folded.sums, folded.maybe_expired
    intervals = sums | job.intervals.label >> job.intervals.emit()
    computed = intervals | "MakeRows" >> MakeRows(
        job.sensors, job.group_by_device, job.revise or job.upsert, job.rows_since, job.statistics
    )
    rejected_rows = computed.rows | "WriteRows" >> write_rows
    dead_letters_of_rows = rejected_rows | "RejectedRows" >> RejectedRowsToDeadLetters("insert", TIMESTAMP)
    dead_letters = [folded.dead_letters, computed.dead_letters, dead_letters_of_rows]

    if job.silence_after and write_silences:
        silences = folded.activity | "NoticeSilences" >> NoticeSilences(job.silence_after, job.grace_period)
        rejected_silences = silences | "WriteSilences" >> write_silences
        dead_letters.append(
            rejected_silences | "RejectedSilences" >> RejectedRowsToDeadLetters("silence", SILENT_SINCE)
        )

    all_dead_letters = dead_letters | "AllDeadLetters" >> beam.Flatten()
    _ = all_dead_letters | "WriteDeadLetters" >> write_dead_letters
