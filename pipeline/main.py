"""Entry point, of the template launcher and of `python -m pipeline.main`."""

import logging
import sys
import time

import apache_beam as beam
from apache_beam.options.pipeline_options import GoogleCloudOptions, StandardOptions
from google.auth.exceptions import GoogleAuthError
from google.cloud import bigquery

from pipeline import checks, graph, options, sinks, storage_write, tables, views
from pipeline.bigquery import TableId
from pipeline.source import ReadMessages

_LOGGER = logging.getLogger(__name__)


def main(argv: list[str] | None = None, runner_removes_duplicates: bool = False) -> int:
    """Check the parameters and what they name, then start the job; wait for it only when it runs on this machine.

    Args:
      argv: the flags; those of the process if None.
      runner_removes_duplicates: whether a runner on this machine does, as Dataflow does. Beam's own does not.

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
    source = _source(job, on_dataflow or runner_removes_duplicates)
    silence_sink = _silence_sink(job) if job.silence_after else None
    graph.build(pipeline, job, source, _row_sink(job), _dead_letter_sink(job), silence_sink)
    result = pipeline.run()
    # The template launcher must return once the job is submitted; a local runner lives in this process.
    if not on_dataflow:
        result.wait_until_finish()
    return 0


def _source(job: options.Job, runner_removes_duplicates: bool) -> beam.PTransform:
    return ReadMessages(
        job.input_topic,
        job.input_subscription,
        job.timestamp_attribute,
        job.id_attribute,
        job.keep_attributes,
        runner_removes_duplicates,
    )


def _row_sink(job: options.Job) -> beam.PTransform:
    return _rows_to(job, job.output_table, _row_columns(job), tables.row_key(job.group_by_device))


def _rows_to(
    job: options.Job, table: TableId | None, columns: tuple[bigquery.SchemaField, ...], key: tuple[str, ...]
) -> beam.PTransform:
    if not table:
        return sinks.PrintRows()
    if job.write_method == "streaming_inserts":
        return sinks.BigQueryRows(table)
    if job.write_method == "storage_write":
        return storage_write.AppendRows(table, columns)
    # An update starts anew too: what it writes comes after all that the job before it wrote.
    return storage_write.UpsertRows(table, columns, key, job_start=int(time.time() * 1000))


def _row_columns(job: options.Job) -> tuple[bigquery.SchemaField, ...]:
    return tables.row_columns(job.sensors, job.group_by_device, job.revisions_in_table, job.statistics)


def _dead_letter_sink(job: options.Job) -> beam.PTransform:
    table = job.dead_letter_table
    if not table:
        sink: beam.PTransform = sinks.PrintDeadLetters()
    elif job.write_method == "streaming_inserts":
        sink = sinks.BigQueryDeadLetters(table)
    else:
        sink = storage_write.AppendDeadLetters(table, tables.DEAD_LETTER_COLUMNS)
    return sinks.DeadLetters(sink, job.dead_letter_topic)


def _silence_sink(job: options.Job) -> beam.PTransform:
    sink = _rows_to(job, job.silence_table, tables.SILENCE_COLUMNS, tables.SILENCE_KEY)
    return sinks.Silences(sink, job.silence_topic, job.upsert)


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
        cluster_by = tables.DEVICE if job.group_by_device else None
        key = tables.row_key(job.group_by_device) if job.upsert else ()
        tables.prepare(job.output_table, _row_columns(job), tables.TIMESTAMP, cluster_by, key)
        if job.revisions_in_table:
            views.create_latest_view(job.output_table, job.sensors, job.group_by_device, job.statistics)
        if job.fill_gaps:
            views.create_filled_view(job.output_table, _row_columns(job), job.hop or job.interval)
    if job.silence_table:
        key = tables.SILENCE_KEY if job.upsert else ()
        tables.prepare(job.silence_table, tables.SILENCE_COLUMNS, tables.SILENT_SINCE, tables.DEVICE, key)
    if job.dead_letter_table:
        tables.prepare(job.dead_letter_table, tables.DEAD_LETTER_COLUMNS, "received_at", None)


if __name__ == "__main__":
    logging.getLogger().setLevel(logging.INFO)
    sys.exit(main())
