"""Sends dead letters back: messages to a topic, refused rows to the output table. A dry run unless told --execute.

    python -m pipeline.redrive --dead_letter_table=P:D.readings_dead_letters --topic=projects/P/topics/readings

Letters of the stages decode, timestamp and validate hold a message's own bytes: they go to --topic with the kept
attributes, `dead_letter_id` and `redrive_attempt` (1, 2, ...). Letters of the stage insert hold a row: they go to
--output_table. Letters of the stages late and average hold sums, which nothing can take back; those of silence stay.

No run sends what an earlier one sent. The table <dead_letter_table>_redriven records each letter's steps:

    claimed --> sent -----> done        never sent again
            |-> refused --> released    nothing was stored; the next run takes it again
            '-> crash                   unconfirmed: reported, and sent again only with --retry_unconfirmed

The claim comes first because, were only `done` recorded, a crash just before it would look as if nothing had been
sent, and the next run would send it all again. Of two runs at once, each reads the claims after making its own, so at
least one of them sees both and leaves the letter alone. States follow from counts, not from clocks: a letter ever done
is done; with more claims than releases it is unconfirmed.

What is left: a client that tries again after a lost answer can store a message twice. Both carry the same
`dead_letter_id`, and with --id_attribute the pipeline removes the second.
"""

import argparse
import json
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, NamedTuple, NoReturn

from google.api_core.exceptions import ClientError, GoogleAPIError, InvalidArgument, NotFound
from google.auth.exceptions import GoogleAuthError
from google.cloud import bigquery
from google.pubsub_v1 import PublisherClient
from requests.exceptions import RequestException

from pipeline import tables

MESSAGE_STAGES = ("decode", "timestamp", "validate")
ROW_STAGES = ("insert",)
STAYING_STAGES = {
    "late": "sums cannot be redriven",
    "average": "sums cannot be redriven",
    "silence": "its payload is a row for the table of silences, not for this one",
}

# Both a publish and an insertAll request may hold 10 MB.
BATCH_LETTERS = 1000
BATCH_BYTES = 9_000_000

RECORD_COLUMNS = (
    bigquery.SchemaField("dead_letter_id", "STRING"),
    bigquery.SchemaField("redriven_at", "TIMESTAMP"),
    bigquery.SchemaField("target", "STRING"),
    bigquery.SchemaField("state", "STRING"),
)

# Stands in for the record table until there is one; a dry run makes nothing.
_NO_RECORDS = "(SELECT '' AS dead_letter_id, '' AS state FROM UNNEST([1]) WHERE FALSE)"

# At first BigQuery is tried for half a minute; the client's own ten would look like a hang.
_IMPATIENT = bigquery.DEFAULT_RETRY.with_timeout(30.0)

_SERVICE_ERRORS = (GoogleAPIError, GoogleAuthError, RequestException)


class Letter(NamedTuple):
    """A dead letter to send; `claims` counts the earlier attempts to send it."""

    id: str
    stage: str
    payload: bytes
    attributes: dict[str, str]
    claims: int

    @property
    def size(self) -> int:
        """About the bytes it takes in a request."""
        return len(self.payload) + sum(len(key) + len(value) for key, value in self.attributes.items()) + 200


@dataclass(frozen=True)
class Target:
    """Where letters go back to.

    Attributes:
      kind: topic or table.
      name: of the topic or table.
      send: sends letters and returns the refused ones' errors by id; the others arrived, the refused certainly did not.
        When it raises, any of them may have arrived.
    """

    kind: str
    name: str
    send: Callable[[Sequence[Letter]], dict[str, ClientError]]


def to_topic(topic: str, id_attribute: str | None) -> Target:
    """Return the target of messages; raises GoogleAuthError."""
    publisher = PublisherClient()

    def send(letters: Sequence[Letter]) -> dict[str, ClientError]:
        try:
            publisher.publish(topic=topic, messages=[_message(letter, id_attribute) for letter in letters])
        except InvalidArgument as error:
            if len(letters) == 1:
                return {letters[0].id: error}
            # A single bad message has the whole request refused: halve it until that one is alone.
            middle = len(letters) // 2
            return send(letters[:middle]) | send(letters[middle:])
        except ClientError as error:
            return {letter.id: error for letter in letters}
        return {}

    return Target("topic", topic, send)


def to_table(bq: bigquery.Client, table_id: tables.TableId) -> Target:
    """Return the target of rows; raises NotFound and whatever else BigQuery answers."""
    table = bq.get_table(table_id.reference, retry=_IMPATIENT)

    def send(letters: Sequence[Letter]) -> dict[str, ClientError]:
        rows, ids = [json.loads(letter.payload) for letter in letters], [letter.id for letter in letters]
        try:
            # By insertId BigQuery knows a request that is tried again because its answer was lost.
            errors = bq.insert_rows_json(table, rows, row_ids=ids, skip_invalid_rows=True)
        except ClientError as error:
            return dict.fromkeys(ids, error)
        return {ids[error["index"]]: InvalidArgument(json.dumps(error["errors"])) for error in errors}

    return Target("table", str(table_id), send)


def _message(letter: Letter, id_attribute: str | None) -> dict[str, Any]:
    # Keys that begin with goog are Pub/Sub's own, and refused from anyone else.
    kept = {key: value for key, value in letter.attributes.items() if not key.startswith("goog")}
    before = kept.get("redrive_attempt", "")
    attempt = int(before) + 1 if before.isdecimal() else 1
    own_id = {id_attribute: letter.id} if id_attribute else {}
    return {
        "data": letter.payload,
        "attributes": kept | own_id | {"redrive_attempt": str(attempt), "dead_letter_id": letter.id},
    }


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
        self._where = " AND ".join(["TRUE", *(condition for condition, _ in given)])
        self._parameters = [parameter for _, parameter in given]

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
            WHERE dead_letter_id IN UNNEST(@ids) GROUP BY dead_letter_id"""
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
            self._bq.get_table(self._records.reference, retry=_IMPATIENT)
            records = self._records.sql
        except NotFound:
            records = _NO_RECORDS
        return f"""WITH past AS (
                SELECT dead_letter_id, COUNTIF(state = 'claimed') AS claims, COUNTIF(state = 'released') AS releases,
                    COUNTIF(state = 'done') AS dones
                FROM {records} GROUP BY dead_letter_id
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
        config = bigquery.QueryJobConfig(query_parameters=parameters)
        return self._bq.query(sql, job_config=config).result(page_size=BATCH_LETTERS)


def main(argv: Sequence[str] | None = None) -> int:
    """Print what is selected and, with --execute, send it.

    Returns:
      The exit code: 0; 1 if sending failed or was stopped; 2, with one line on stderr and nothing sent, if a flag or a
      table is wrong.
    """
    args = _parse(argv)
    try:
        bq = tables.client(args.dead_letter_table.project)
        # Where the letters of a stage go; those of a stage without an entry go nowhere.
        routes: dict[str, Target] = {}
        if args.topic:
            routes |= dict.fromkeys(MESSAGE_STAGES, to_topic(args.topic, args.id_attribute))
        if args.output_table:
            routes |= dict.fromkeys(ROW_STAGES, to_table(bq, args.output_table))
        ledger = Ledger(bq, args)
        groups = ledger.overview()
        if args.execute:
            ledger.create()
    except (tables.TableError, *_SERVICE_ERRORS) as error:
        print(f"error: {_one_line(error)}", file=sys.stderr)
        return 2
    statuses = ("waiting", "unconfirmed") if args.retry_unconfirmed else ("waiting",)
    for group in groups:
        goes_to = _goes_to(group.stage, group.status, routes, statuses)
        times = f"{group.oldest:%Y-%m-%dT%H:%M:%SZ} to {group.newest:%Y-%m-%dT%H:%M:%SZ}"
        print(f"{group.letters:>9}  {group.stage:<9}  {group.error:<16}  {times}  {goes_to}")
    selected = sum(group.letters for group in groups)
    sendable = sum(group.letters for group in groups if group.stage in routes and group.status in statuses)
    limit = min(sendable, args.limit or sendable)
    if not args.execute:
        print(f"Dry run: nothing was sent. With --execute, {limit} of {selected} selected dead letters would be.")
        return 0
    counts = Counter(skipped=selected - sendable)
    stopped = False
    try:
        for target, batch in _batches(ledger.letters(routes, statuses, limit), routes):
            _redrive(ledger, target, batch, counts)
            print(f"{counts['topic'] + counts['table']} of {limit} sent", flush=True)
    except (KeyboardInterrupt, *_SERVICE_ERRORS) as error:
        print(f"error: stopped: {_one_line(error)}", file=sys.stderr)
        stopped = True
    topic, table, unconfirmed = counts["topic"], counts["table"], counts["unconfirmed"]
    doubt = f" {unconfirmed} unconfirmed: may have been sent; see --retry_unconfirmed." if unconfirmed else ""
    print(
        f"Redrove {topic + table} dead letters ({topic} to topic, {table} to table), {counts['skipped']} skipped, "
        f"{counts['failed']} failed.{doubt}"
    )
    return 1 if stopped or counts["failed"] else 0


def _redrive(ledger: Ledger, target: Target, batch: list[Letter], counts: Counter[str]) -> None:
    """Claim, send and record one batch; raises an error that the next batch would meet too."""
    counts["unconfirmed"] = len(batch)
    ours = ledger.claim(batch, target)
    refusals = target.send(ours) if ours else {}
    sent = [letter for letter in ours if letter.id not in refusals]
    ledger.record(sent, target, "done")
    ledger.record([letter for letter in ours if letter.id in refusals], target, "released")
    counts.update({target.kind: len(sent)}, failed=len(refusals), skipped=len(batch) - len(ours))
    counts["unconfirmed"] = 0
    for letter_id, error in refusals.items():
        if not isinstance(error, InvalidArgument):
            raise error
        print(f"error: dead letter {letter_id} is refused: {_one_line(error)}", file=sys.stderr)


def _goes_to(stage: str, status: str, routes: dict[str, Target], statuses: Sequence[str]) -> str:
    if stage in STAYING_STAGES:
        return f"nowhere: {STAYING_STAGES[stage]}"
    if status == "in parts":
        return "nowhere: too large for one row; join its payloads by dead_letter_id, in order of part"
    if status == "done":
        return "nowhere: redriven before"
    if status not in statuses:
        return "nowhere: unconfirmed, may have been sent; see --retry_unconfirmed"
    if stage not in routes:
        return f"nowhere: give --{'output_table' if stage in ROW_STAGES else 'topic'}"
    return routes[stage].name


def _batches(letters: Iterable[Letter], routes: dict[str, Target]) -> Iterator[tuple[Target, list[Letter]]]:
    """Gather letters of one target, in their order, into batches that fit into a request."""
    pending: dict[Target, list[Letter]] = {target: [] for target in routes.values()}
    sizes: Counter[Target] = Counter()
    for letter in letters:
        target = routes[letter.stage]
        if len(pending[target]) == BATCH_LETTERS or (pending[target] and sizes[target] + letter.size > BATCH_BYTES):
            yield target, pending[target]
            pending[target], sizes[target] = [], 0
        pending[target].append(letter)
        sizes[target] += letter.size
    yield from ((target, batch) for target, batch in pending.items() if batch)


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = _Parser(
        prog="python -m pipeline.redrive",
        description="Send dead letters back: messages to a topic, refused rows to the output table.",
        allow_abbrev=False,
    )
    flag = parser.add_argument
    flag("--dead_letter_table", required=True, type=_reads(tables.TableId.parse), help="project:dataset.table")
    flag("--topic", type=_reads(_topic), help="where messages go, projects/PROJECT/topics/NAME")
    flag("--output_table", type=_reads(tables.TableId.parse), help="where refused rows go, project:dataset.table")
    flag("--stage", choices=(*MESSAGE_STAGES, *ROW_STAGES, *STAYING_STAGES), help="only letters of this stage")
    flag("--error", help="only letters with this error, such as NotJson")
    flag("--since", type=_reads(_time), help="only letters received at this time (RFC 3339) or later")
    flag("--until", type=_reads(_time), help="only letters received before this time (RFC 3339)")
    flag("--limit", type=int, help="send at most so many, oldest first")
    flag(
        "--id_attribute",
        help="the id_attribute of the pipeline, if it has one: is then set to the dead letter's id, because the "
        "pipeline has seen the original, and the readings of one message share it",
    )
    flag("--execute", action="store_true", help="send; without it only print what would be sent")
    flag(
        "--retry_unconfirmed",
        action="store_true",
        help="also send what a run claimed but did not live to confirm; it may have been sent already and would then "
        "arrive twice. Never while another run is at work, whose claims look the same",
    )
    args = parser.parse_args(argv)
    if args.execute and not (args.topic or args.output_table):
        parser.error("--execute needs --topic, --output_table or both")
    if args.limit is not None and args.limit < 1:
        parser.error("--limit must be above 0")
    return args


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {message}\n")


def _reads(read: Callable[[str], Any]) -> Callable[[str], Any]:
    """Return `read` so that argparse shows the words of its ValueError."""

    def reader(text: str) -> Any:
        try:
            return read(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(f"{text}: {error}") from None

    return reader


def _topic(text: str) -> str:
    # https://cloud.google.com/pubsub/docs/pubsub-basics#resource_names
    if not re.fullmatch(r"projects/[a-z][-a-z0-9:.]{4,61}[a-z0-9]/topics/[A-Za-z][-\w.~+%]{2,254}", text, re.ASCII):
        raise ValueError("expected projects/PROJECT/topics/NAME")
    return text


def _time(text: str) -> datetime:
    time = datetime.fromisoformat(text)
    if not time.tzinfo:
        raise ValueError("expected an offset from UTC as well, for example 2026-11-22T13:00:00Z")
    return time


def _ids(letters: Iterable[Letter]) -> bigquery.ArrayQueryParameter:
    return bigquery.ArrayQueryParameter("ids", "STRING", [letter.id for letter in letters])


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


if __name__ == "__main__":
    sys.exit(main())
