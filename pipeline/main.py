"""Entry point, of the template launcher and of `python -m pipeline.main`."""

import logging
import sys
import time

import apache_beam as beam
from apache_beam.options.pipeline_options import GoogleCloudOptions, StandardOptions
from google.auth.exceptions import GoogleAuthError

from pipeline import checks, graph, options, sinks, storage_write, tables
from pipeline.source import ReadMessages

_LOGGER = logging.getLogger(__name__)


def main(argv: list[str] | None = None) -> int:
    """Check the parameters and what they name, then start the job; wait for it only when it runs on this machine.

    Returns:
      The exit code: 0, or 2 with one line on stderr when a parameter, or something it names, is wrong.
    """
    try:
        job, beam_options = options.parse(sys.argv[1:] if argv is None else argv)
        on_dataflow = beam_options.view_as(StandardOptions).runner == "DataflowRunner"
        if job.check_before_launch:
            _prepare_launch(job, beam_options.view_as(GoogleCloudOptions).region if on_dataflow else None)
    except (options.UsageError, checks.CheckError, tables.TableError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2

    if on_dataflow:
        _LOGGER.info(
            "An update of a job that holds open intervals in another step than %s is refused: drain that job, then "
            "start this one with --rows_since, as docs/operate.md says",
            job.intervals.label,
        )
    pipeline = beam.Pipeline(options=beam_options)
    graph.build(pipeline, job, _source(job, on_dataflow), _row_sink(job), _dead_letter_sink(job))
    result = pipeline.run()
    # The template launcher must return once the job is submitted; a local runner lives in this process.
    if not on_dataflow:
        result.wait_until_finish()
    return 0


def _source(job: options.Job, on_dataflow: bool) -> beam.PTransform:
    return ReadMessages(
        job.input_topic,
        job.input_subscription,
        job.timestamp_attribute,
        job.id_attribute,
        job.keep_attributes,
        service_removes_duplicates=on_dataflow,
    )


def _row_sink(job: options.Job) -> beam.PTransform:
    if not job.output_table:
        return sinks.PrintRows()
    if job.write_method == "streaming_inserts":
        return sinks.BigQueryRows(job.output_table)
    columns = tables.row_columns(job.sensors, job.group_by_device, job.revisions_in_table)
    if job.write_method == "storage_write":
        return storage_write.AppendRows(job.output_table, columns)
    # An update starts anew too: what it writes comes after all that the job before it wrote.
    key, job_start = tables.row_key(job.group_by_device), int(time.time() * 1000)
    return storage_write.UpsertRows(job.output_table, columns, key, job_start)


def _dead_letter_sink(job: options.Job) -> beam.PTransform:
    table = job.dead_letter_table
    if not table:
        sink: beam.PTransform = sinks.PrintDeadLetters()
    elif job.write_method == "streaming_inserts":
        sink = sinks.BigQueryDeadLetters(table)
    else:
        sink = storage_write.AppendDeadLetters(table, tables.DEAD_LETTER_COLUMNS)
    return sinks.DeadLetters(sink, job.dead_letter_topic)


def _prepare_launch(job: options.Job, region: str | None) -> None:
    try:
        checks.check_pubsub(job)
        checks.check_locations(job, region)
        checks.check_storage_write(job)
        _prepare_tables(job)
    except GoogleAuthError as error:
        raise checks.CheckError(
            f"no Google credentials ({error}); run: gcloud auth application-default login"
        ) from None


def _prepare_tables(job: options.Job) -> None:
    if job.output_table:
        row_columns = tables.row_columns(job.sensors, job.group_by_device, job.revisions_in_table)
        cluster_by = tables.DEVICE if job.group_by_device else None
        key = tables.row_key(job.group_by_device) if job.upsert else ()
        tables.prepare(job.output_table, row_columns, tables.TIMESTAMP, cluster_by, key)
        if job.revisions_in_table:
            tables.create_latest_view(job.output_table, job.sensors, job.group_by_device)
    if job.dead_letter_table:
        tables.prepare(job.dead_letter_table, tables.DEAD_LETTER_COLUMNS, "received_at", None)


if __name__ == "__main__":
    logging.getLogger().setLevel(logging.INFO)
    sys.exit(main())
