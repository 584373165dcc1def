"""The whole dataflow on one screen."""

import apache_beam as beam

from pipeline.aggregate.fold import FoldReadings
from pipeline.decode.decoder import TIMESTAMP
from pipeline.launch.job import Job
from pipeline.rows import MakeRows
from pipeline.silences import SILENT_SINCE, NoticeSilences
from pipeline.sinks.rejected_rows import RejectedRowsToDeadLetters


def build(
    pipeline: beam.Pipeline,
    job: Job,
    source: beam.PTransform,
    write_rows: beam.PTransform,
    write_dead_letters: beam.PTransform,
    write_silences: beam.PTransform | None = None,
) -> None:
    """Connect source to sinks. Labels are the contract for updating a running job: never rename one.

    The one of `intervals` is "EmitIntervals", and what an update must not change: see `labels`.

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
        job.sensors, job.max_future_skew, job.intervals, job.silence_after
    )
    intervals = (folded.sums, folded.maybe_expired) | job.intervals.label >> job.intervals.emit()
    averaged = intervals | "MakeRows" >> MakeRows(
        job.sensors, job.group_by_device, job.revise or job.upsert, job.rows_since, job.statistics
    )
    rejected_rows = averaged.rows | "WriteRows" >> write_rows
    insert_dead_letters = rejected_rows | "RejectedRows" >> RejectedRowsToDeadLetters("insert", TIMESTAMP)
    all_dead_letters = [folded.dead_letters, averaged.dead_letters, insert_dead_letters]

    if job.silence_after and write_silences:
        silences = folded.activity | "NoticeSilences" >> NoticeSilences(job.silence_after, job.grace_period)
        rejected_silences = silences | "WriteSilences" >> write_silences
        all_dead_letters.append(
            rejected_silences | "RejectedSilences" >> RejectedRowsToDeadLetters("silence", SILENT_SINCE)
        )

    dead_letters = all_dead_letters | "AllDeadLetters" >> beam.Flatten()
    _ = dead_letters | "WriteDeadLetters" >> write_dead_letters
