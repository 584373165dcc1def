"""The whole dataflow on one screen."""

import apache_beam as beam

from pipeline.fold import FoldReadings
from pipeline.options import Job
from pipeline.rows import AverageRows


def build(
    pipeline: beam.Pipeline,
    job: Job,
    source: beam.PTransform,
    write_rows: beam.PTransform,
    write_dead_letters: beam.PTransform,
) -> None:
    """Connect source to sinks. Labels are the contract for updating a running job: never rename one.

    The one of `intervals` is "EmitIntervals", and what an update must not change: see `labels`.

    Args:
      pipeline: where the steps are added.
      job: the validated parameters.
      source: yields messages, as bytes or as PubsubMessage.
      write_rows: takes rows, returns the dead letters of those it could not write.
      write_dead_letters: takes dead letters.
    """
    messages = pipeline | "ReadMessages" >> source

    folded = messages | "FoldReadings" >> FoldReadings(
        job.sensors, job.max_future_skew, job.intervals, job.group_by_device
    )
    intervals = folded.sums | job.intervals.label >> job.intervals.emit()
    averaged = intervals | "AverageRows" >> AverageRows(
        job.sensors, job.group_by_device, job.revise or job.upsert, job.rows_since
    )
    unwritten = averaged.rows | "WriteRows" >> write_rows

    dead_letters = (folded.dead_letters, averaged.dead_letters, unwritten) | "AllDeadLetters" >> beam.Flatten()
    _ = dead_letters | "WriteDeadLetters" >> write_dead_letters
