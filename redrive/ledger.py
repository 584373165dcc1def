"""Which dead letters there are to send, and the record of what became of them."""

import argparse
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from google.api_core.exceptions import NotFound
from google.cloud import bigquery

from pipeline.launch import tables
from redrive.targets import IMPATIENT, RETRY_SECONDS, Letter, Target

RECORD_COLUMNS = (
    bigquery.SchemaField("dead_letter_id", "STRING"),
    bigquery.SchemaField("redriven_at", "TIMESTAMP"),
    bigquery.SchemaField("target", "STRING"),
    bigquery.SchemaField("state", "STRING"),
)

# Stands in for the record table until there is one; a dry run makes nothing.
_NO_RECORDS = (
    "(SELECT '' AS dead_letter_id, '' AS state, CURRENT_TIMESTAMP() AS redriven_at FROM UNNEST([1]) WHERE FALSE)"
)

# Letters read at once.
_PAGE = 1000

# How much earlier than the dead letter a record of it may seem to be made, by the clocks of worker and service.
_CLOCK_SKEW = timedelta(days=1)
_FIRST_TIME = datetime.min.replace(tzinfo=UTC)


class Ledger:
    """The dead letters that the flags select, and the record of what became of them."""

    def __init__(self, bq: bigquery.Client, args: argparse.Namespace):
        self._bq = bq
        self._letters = args.dead_letter_table
        self._records = replace(self._letters, table=f"{self._letters.table}_redriven")
        filters = (
            ("letter.stage = @stage", bigquery.ScalarQueryParameter("stage", "STRING", args.stage)),
            ("letter.error = @error", bigquery.ScalarQueryParameter("error", "STRING", args.error)),
            ("letter.received_at >= @since", bigquery.ScalarQueryParameter("since", "TIMESTAMP", args.since)),
            ("letter.received_at < @until", bigquery.ScalarQueryParameter("until", "TIMESTAMP", args.until)),
        )
        given = [each for each in filters if each[1].value is not None]
        self._where = " AND ".join(condition for condition, _ in given)
        self._parameters = [parameter for _, parameter in given]
        # With it BigQuery reads only the partitions of the record table that can hold a selected dead letter's.
        earliest = max(args.since, _FIRST_TIME + _CLOCK_SKEW) - _CLOCK_SKEW
        self._earliest_record = bigquery.ScalarQueryParameter("earliest_record", "TIMESTAMP", earliest)
        self._max_bytes = args.maximum_bytes_billed

    def create(self) -> None:
        """Create the record table unless it exists; raises tables.TableError."""
        tables.prepare(self._records, RECORD_COLUMNS, "redriven_at", "dead_letter_id")

    def overview(self) -> list[Any]:
        """Return the selection in rows of stage, error, status, letters (their count), oldest, newest."""
        sql = """SELECT stage, error, status, COUNT(*) AS letters, MIN(received_at) AS oldest,
            MAX(received_at) AS newest FROM selected GROUP BY stage, error, status ORDER BY stage, error, status"""
        return list(self._query(self._with_selected() + sql, *self._parameters))

    def letters(self, stages: Iterable[str], statuses: Iterable[str], most: int) -> Iterator[Letter]:
        """Yield at most `most` selected letters of these stages and statuses, oldest first, read page by page."""
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
            yield Letter(row.dead_letter_id, row.stage, row.payload or b"", attributes, row.claims)

    def claim(self, letters: Sequence[Letter], target: Target) -> list[Letter]:
        """Record that these are about to be sent; return those that no other run has claimed meanwhile."""
        self.record(letters, target, "claimed")
        sql = f"""SELECT dead_letter_id, COUNTIF(state = 'claimed') AS claims FROM {self._records.sql}
            WHERE redriven_at >= @earliest_record AND dead_letter_id IN UNNEST(@ids) GROUP BY dead_letter_id"""
        claims = {row.dead_letter_id: row.claims for row in self._query(sql, _ids(letters))}
        self.record([letter for letter in letters if claims[letter.id] > letter.claims + 1], target, "released")
        return [letter for letter in letters if claims[letter.id] == letter.claims + 1]

    def record(self, letters: Sequence[Letter], target: Target, state: str) -> None:
        """Record that these letters are now claimed, done or released."""
        if letters:
            # A query, because rows streamed into a table just made can be lost, and others are seen seconds later.
            self._query(
                f"""INSERT INTO {self._records.sql} (dead_letter_id, redriven_at, target, state)
                SELECT id, CURRENT_TIMESTAMP(), @target, @state FROM UNNEST(@ids) AS id""",
                _ids(letters),
                bigquery.ScalarQueryParameter("target", "STRING", target.name),
                bigquery.ScalarQueryParameter("state", "STRING", state),
            )

    def _with_selected(self) -> str:
        """Begin a query with `selected`: a row per letter, also where a retried insert had stored the letter twice."""
        try:
            self._bq.get_table(self._records.reference, retry=IMPATIENT)
            records = self._records.sql
        except NotFound:
            records = _NO_RECORDS
        return f"""WITH past AS (
                SELECT dead_letter_id, COUNTIF(state = 'claimed') AS claims, COUNTIF(state = 'released') AS releases,
                    COUNTIF(state = 'done') AS dones
                FROM {records} WHERE redriven_at >= @earliest_record GROUP BY dead_letter_id
            ), selected AS (
                SELECT letter.dead_letter_id, stage, error, received_at, payload, attributes,
                    IFNULL(past.claims, 0) AS claims, CASE WHEN letter.parts > 1 THEN 'in parts'
                    WHEN past.dones > 0 THEN 'done'
                    WHEN past.claims > past.releases THEN 'unconfirmed' ELSE 'waiting' END AS status
                FROM {self._letters.sql} AS letter LEFT JOIN past ON letter.dead_letter_id = past.dead_letter_id
                WHERE {self._where}
                QUALIFY ROW_NUMBER() OVER (PARTITION BY letter.dead_letter_id ORDER BY letter.received_at) = 1
            ) """

    def _query(self, sql: str, *parameters: Any) -> Any:
        config = bigquery.QueryJobConfig(
            query_parameters=[self._earliest_record, *parameters], maximum_bytes_billed=self._max_bytes
        )
        retry = bigquery.DEFAULT_RETRY.with_timeout(RETRY_SECONDS)
        return self._bq.query(sql, job_config=config, retry=retry).result(page_size=_PAGE, retry=retry)


def _ids(letters: Iterable[Letter]) -> bigquery.ArrayQueryParameter:
    return bigquery.ArrayQueryParameter("ids", "STRING", [letter.id for letter in letters])
