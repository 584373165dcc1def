"""Entry point of the template launcher and of `python -m pipeline.main`."""

import logging
import os
import sys
import time
from collections.abc import Iterator
from typing import Any

import apache_beam as beam
from apache_beam.options.pipeline_options import GoogleCloudOptions, PipelineOptions
from google.auth.exceptions import GoogleAuthError
from google.cloud import bigquery

from pipeline import graph
from pipeline.errors import SensorStreamError
from pipeline.launch import one_line, options, preflight, tables, views
from pipeline.launch.job import Job
from pipeline.sinks import console, pubsub, storage_write, streaming_inserts
from pipeline.sinks.bigquery import TableId
from pipeline.source import ReadMessages

_LOGGER = logging.getLogger(__name__)


def main(argv: list[str] | None = None, runner_removes_duplicates: bool = False) -> int:
    """Check the parameters and the resources they name, then start the job. A local run ends when the job ends.

    Args:
      argv: the flags; None for those of the process.
      runner_removes_duplicates: whether the local runner removes duplicates, as Dataflow does. Beam's own does not.

    Returns:
      The exit code: 0, or 2 if a parameter or a resource is wrong. Each error is one line on stderr that says how to
      fix it.
    """
    try:
        job, beam_options = options.parse(sys.argv[1:] if argv is None else argv)
        on_dataflow = options.runs_on_dataflow(beam_options)
        missing = _check_resources(job, _region(beam_options) if on_dataflow else None)
        # Beam checks its own flags here. Nothing is created before everything is checked.
        pipeline = _build(job, beam_options, on_dataflow or runner_removes_duplicates)
        _create_resources(job, missing)
    except GoogleAuthError as error:
        return _refuse(preflight.credentials_advice(error))
    except SensorStreamError as error:
        return _refuse(str(error))

    if on_dataflow:
        _LOGGER.info(
            "Dataflow refuses to update a job whose open intervals are in a step other than %s: drain that job, then "
            "start this one with --rows_since, as docs/operate.md describes",
            job.intervals.label,
        )
    result = pipeline.run()
    # The template launcher must return once the job is submitted; a local runner runs in this process.
    if not on_dataflow:
        result.wait_until_finish()
    return 0


def _refuse(message: str) -> int:
    print(f"error: {message}", file=sys.stderr)
    return 2


def _region(beam_options: PipelineOptions) -> str | None:
    # As Beam finds the region, except that Beam also asks gcloud, which is not in the image of the template.
    return beam_options.view_as(GoogleCloudOptions).region or os.environ.get("CLOUDSDK_COMPUTE_REGION")


def _build(job: Job, beam_options: PipelineOptions, runner_removes_duplicates: bool) -> beam.Pipeline:
    try:
        pipeline = beam.Pipeline(options=beam_options)
    except (ImportError, ValueError) as error:
        raise options.UsageError(f"Apache Beam rejects the flags: {one_line.reason(error)}") from None
    silence_sink = _silence_sink(job) if job.silence_after else None
    source = _source(job, runner_removes_duplicates)
    graph.build(pipeline, job, source, _row_sink(job), _dead_letter_sink(job), silence_sink)
    return pipeline


def _source(job: Job, runner_removes_duplicates: bool) -> beam.PTransform[Any, Any]:
    return ReadMessages(
        job.input_topic,
        job.input_subscription,
        job.timestamp_attribute,
        job.id_attribute,
        job.keep_attributes or bool(job.mapping.attributes),
        runner_removes_duplicates,
    )


def _row_sink(job: Job) -> beam.PTransform[Any, Any]:
    sink = _rows_to(job, job.output_table, _row_columns(job), tables.row_key(job.group_by_device))
    if job.output_table and job.window == "session" and job.write_method != "streaming_inserts":
        # A retried bundle may merge a session with readings that the first attempt did not have. Its row then has
        # another Timestamp, and would not replace the row of the first attempt.
        return storage_write.AfterReshuffle(sink)
    return sink


def _rows_to(
    job: Job, table: TableId | None, columns: tuple[bigquery.SchemaField, ...], key: tuple[str, ...]
) -> beam.PTransform[Any, Any]:
    if not table:
        return console.PrintRows()
    if job.write_method == "streaming_inserts":
        return streaming_inserts.InsertRows(table)
    if job.write_method == "storage_write":
        return storage_write.AppendRows(table, columns)
    # An update also starts a new job, whose rows replace those of the job that it updates.
    return storage_write.UpsertRows(table, columns, key, job_start=int(time.time() * 1000))


def _row_columns(job: Job) -> tuple[bigquery.SchemaField, ...]:
    return tables.row_columns(job.sensors, job.group_by_device, job.revisions_in_table, job.statistics)


def _dead_letter_sink(job: Job) -> beam.PTransform[Any, Any]:
    table = job.dead_letter_table
    if not table:
        sink: beam.PTransform[Any, Any] = console.PrintDeadLetters()
    elif job.write_method == "streaming_inserts":
        sink = streaming_inserts.InsertDeadLetters(table)
    else:
        sink = storage_write.AppendDeadLetters(table, tables.DEAD_LETTER_COLUMNS)
    return pubsub.WriteDeadLetters(sink, job.dead_letter_topic)


def _silence_sink(job: Job) -> beam.PTransform[Any, Any]:
    sink = _rows_to(job, job.silence_table, tables.SILENCE_COLUMNS, tables.SILENCE_KEY)
    return pubsub.WriteSilences(sink, job.silence_topic, job.upsert)


def _check_resources(job: Job, region: str | None) -> list[tables.TableSpec]:
    """Check every resource that the job names and change nothing; return the tables that do not exist."""
    if not job.check_before_launch:
        return []
    if not _only_emulators(job):
        preflight.check_credentials()
    preflight.check_pubsub(job)
    preflight.check_datasets(job, region)
    preflight.check_storage_write(job)
    missing = [spec for spec in _table_specs(job) if not tables.check_table(spec)]
    for view_id, query in _views(job):
        views.check_view(view_id, query)
    return missing


def _create_resources(job: Job, missing: list[tables.TableSpec]) -> None:
    for spec in missing:
        tables.create_table(spec)
    if job.check_before_launch:
        for view_id, query in _views(job):
            views.create_view(view_id, query)


def _only_emulators(job: Job) -> bool:
    used = ["PUBSUB_EMULATOR_HOST", *(["BIGQUERY_EMULATOR_HOST"] if job.named_tables else [])]
    return all(map(os.environ.get, used))


def _table_specs(job: Job) -> Iterator[tables.TableSpec]:
    if job.output_table:
        cluster_by = tables.DEVICE if job.group_by_device else None
        key = tables.row_key(job.group_by_device) if job.upsert else ()
        yield tables.TableSpec(job.output_table, _row_columns(job), tables.TIMESTAMP, cluster_by, key)
    if job.silence_table:
        key = tables.SILENCE_KEY if job.upsert else ()
        yield tables.TableSpec(job.silence_table, tables.SILENCE_COLUMNS, tables.SILENT_SINCE, tables.DEVICE, key)
    if job.dead_letter_table:
        yield tables.TableSpec(job.dead_letter_table, tables.DEAD_LETTER_COLUMNS, "received_at")


def _views(job: Job) -> Iterator[tuple[TableId, str]]:
    """Yield each view with its query; a view may read the view before it."""
    columns = _row_columns(job)
    if job.output_table and job.latest_view:
        yield job.latest_view, views.latest_query(job.output_table, columns)
    if job.output_table and job.filled_view:
        rows = job.latest_view or job.output_table
        yield job.filled_view, views.filled_query(rows, columns, job.hop or job.interval)


if __name__ == "__main__":
    logging.getLogger().setLevel(logging.INFO)
    sys.exit(main())
