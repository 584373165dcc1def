"""The ledger: which dead letters are selected, and which of them have been claimed and sent."""

import argparse
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from google.api_core.exceptions import NotFound
from google.cloud import bigquery

from pipeline.launch import tables
from redrive.targets import RETRY_SECONDS, START_RETRY, DeadLetter, Target

RECORD_COLUMNS = (
    bigquery.SchemaField("dead_letter_id", "STRING"),
    bigquery.SchemaField("redriven_at", "TIMESTAMP"),
    bigquery.SchemaField("target", "STRING"),
    bigquery.SchemaField("state", "STRING"),
)

# Used in place of the record table until it exists; a dry run does not create it.
_NO_RECORDS = (
    "(SELECT '' AS dead_letter_id, '' AS state, CURRENT_TIMESTAMP() AS redriven_at FROM UNNEST([1]) WHERE FALSE)"
)

_PAGE = 1000  # dead letters per page of a query's result

# The most by which a record may be older than its dead letter, because the clocks of worker and service differ.
_CLOCK_SKEW = timedelta(days=1)
_FIRST_TIME = datetime.min.replace(tzinfo=UTC)


class Ledger:
    """The dead letters that the flags select, and the records of their claims and outcomes."""

    def __init__(self, bq: bigquery.Client, args: argparse.Namespace):
        self._bq = bq
        self._dead_letters = args.dead_letter_table
        self._records = replace(self._dead_letters, table=f"{self._dead_letters.table}_redriven")
        filters = (
            ("dead_letter.stage = @stage", bigquery.ScalarQueryParameter("stage", "STRING", args.stage)),
            ("dead_letter.error = @error", bigquery.ScalarQueryParameter("error", "STRING", args.error)),
            ("dead_letter.received_at >= @since", bigquery.ScalarQueryParameter("since", "TIMESTAMP", args.since)),
            ("dead_letter.received_at < @until", bigquery.ScalarQueryParameter("until", "TIMESTAMP", args.until)),
        )
        given = [each for each in filters if each[1].value is not None]
        self._where = " AND ".join(condition for condition, _ in given)
        self._parameters = [parameter for _, parameter in given]
        # Limits a query to the partitions of the record table that can hold records of the selected dead letters.
        earliest = max(args.since, _FIRST_TIME + _CLOCK_SKEW) - _CLOCK_SKEW
        self._earliest_record = bigquery.ScalarQueryParameter("earliest_record", "TIMESTAMP", earliest)
        self._max_bytes = args.maximum_bytes_billed

    def create(self) -> None:
        """Create the record table, or check the existing one; raises TableError if it cannot be used."""
        tables.prepare(self._records, RECORD_COLUMNS, "redriven_at", "dead_letter_id")

    def overview(self) -> list[Any]:
        """Return rows of stage, error, status, dead_letters (their count), oldest and newest."""
        sql = """SELECT stage, error, status, COUNT(*) AS dead_letters, MIN(received_at) AS oldest,
            MAX(received_at) AS newest FROM selected GROUP BY stage, error, status ORDER BY stage, error, status"""
        return list(self._query(self._with_selected() + sql, *self._parameters))

    def dead_letters(self, stages: Iterable[str], statuses: Iterable[str], most: int) -> Iterator[DeadLetter]:
        """Yield up to `most` selected dead letters of these stages and statuses, oldest first; reads them in pages."""
        sql = """SELECT dead_letter_id, stage, payload, attributes, claims FROM selected
            WHERE stage IN UNNEST(@stages) AND status IN UNNEST(@statuses)
            ORDER BY received_at, dead_letter_id LIMIT @most"""
        for row in self._query(
            self._with_selected() + sql,
            *self._parameters,
            bigquery.ArrayQueryParameter("stages", "STRING", list(stages)),
            bigquery.ArrayQueryParameter("statuses", "STRING", list(statuses)),
            bigquery.ScalarQueryParameter("most", "INT64", most),
        ):
            attributes = {each["key"]: each["value"] for each in row.attributes}
            yield DeadLetter(row.dead_letter_id, row.stage, row.payload or b"", attributes, row.claims)

    def claim(self, dead_letters: Sequence[DeadLetter], target: Target) -> list[DeadLetter]:
        """Record that dead letters are about to be sent; return those that no other run has claimed meanwhile."""
        self.record(dead_letters, target, "claimed")
        sql = f"""SELECT dead_letter_id, COUNTIF(state = 'claimed') AS claims FROM {self._records.sql}
            WHERE redriven_at >= @earliest_record AND dead_letter_id IN UNNEST(@ids) GROUP BY dead_letter_id"""
        claims = {row.dead_letter_id: row.claims for row in self._query(sql, _ids(dead_letters))}
        self.record(
            [dead_letter for dead_letter in dead_letters if claims[dead_letter.id] > dead_letter.claims + 1],
            target,
            "released",
        )
        return [dead_letter for dead_letter in dead_letters if claims[dead_letter.id] == dead_letter.claims + 1]

    def record(self, dead_letters: Sequence[DeadLetter], target: Target, state: str) -> None:
        """Record that dead letters are now claimed, done or released."""
        if dead_letters:
            # By SQL, because rows streamed into a new table can be lost, and become visible only after seconds.
            self._query(
                f"""INSERT INTO {self._records.sql} (dead_letter_id, redriven_at, target, state)
                SELECT id, CURRENT_TIMESTAMP(), @target, @state FROM UNNEST(@ids) AS id""",
                _ids(dead_letters),
                bigquery.ScalarQueryParameter("target", "STRING", target.name),
                bigquery.ScalarQueryParameter("state", "STRING", state),
            )

    def _with_selected(self) -> str:
        """Return the start of a query that defines `selected`: one row per dead letter, even if it was stored twice."""
        try:
            self._bq.get_table(self._records.reference, retry=START_RETRY)
            records = self._records.sql
        except NotFound:
            records = _NO_RECORDS
        return f"""WITH past AS (
                SELECT dead_letter_id, COUNTIF(state = 'claimed') AS claims, COUNTIF(state = 'released') AS releases,
                    COUNTIF(state = 'done') AS dones
                FROM {records} WHERE redriven_at >= @earliest_record GROUP BY dead_letter_id
            ), selected AS (
                SELECT dead_letter.dead_letter_id, stage, error, received_at, payload, attributes,
                    IFNULL(past.claims, 0) AS claims, CASE WHEN dead_letter.parts > 1 THEN 'in parts'
                    WHEN past.dones > 0 THEN 'done'
                    WHEN past.claims > past.releases THEN 'unconfirmed' ELSE 'waiting' END AS status
                FROM {self._dead_letters.sql} AS dead_letter
                LEFT JOIN past ON dead_letter.dead_letter_id = past.dead_letter_id
                WHERE {self._where}
                QUALIFY ROW_NUMBER() OVER (PARTITION BY dead_letter.dead_letter_id ORDER BY dead_letter.received_at) = 1
            ) """

    def _query(self, sql: str, *parameters: Any) -> Any:
        config = bigquery.QueryJobConfig(
            query_parameters=[self._earliest_record, *parameters], maximum_bytes_billed=self._max_bytes
        )
        retry = bigquery.DEFAULT_RETRY.with_timeout(RETRY_SECONDS)
        return self._bq.query(sql, job_config=config, retry=retry).result(page_size=_PAGE, retry=retry)


def _ids(dead_letters: Iterable[DeadLetter]) -> bigquery.ArrayQueryParameter:
    return bigquery.ArrayQueryParameter("ids", "STRING", [dead_letter.id for dead_letter in dead_letters])
