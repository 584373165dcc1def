"""Sends dead letters back: messages to a topic, rejected rows to the output table. A dry run without --execute.

    python -m redrive --dead_letter_table=P:D.readings_dead_letters --topic=projects/P/topics/readings

Dead letters of the stages decode, timestamp and validate hold the bytes of a message: they go to --topic with the
message's attributes, `dead_letter_id` and `redrive_attempt` (1, 2, ...). Dead letters of the stage insert hold a row:
they go to --output_table. Those of the stages late, average and silence are not sent.

No run sends what an earlier run sent. The table <dead_letter_table>_redriven, the ledger, records the steps of each
dead letter:

    claimed --> sent ------> done        never sent again
            |-> rejected --> released    nothing was stored; the next run sends it again
            '-> crash                    unconfirmed: reported, and sent again only with --retry_unconfirmed

The claim is recorded first: with `done` alone, a run that crashed between sending and recording would leave no trace,
and the next run would send the dead letter again. Two runs at the same time read the claims after recording their own,
so that at least one of them finds both claims and skips the dead letter. The state follows from counts, not from
clocks: a dead letter that was ever done is done, and one with more claims than releases is unconfirmed.

One case remains: a client that retries after a lost response can store a message twice. Both messages have the same
`dead_letter_id`, and with --id_attribute the pipeline removes the second.
"""

import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from google.api_core.exceptions import GoogleAPIError, InvalidArgument
from google.auth.exceptions import GoogleAuthError
from requests.exceptions import RequestException

from pipeline.launch import one_line, tables
from pipeline.launch.credentials import credentials_problem, root_cause
from pipeline.sinks.bigquery import client
from redrive.flags import DEFAULT_DAYS, MESSAGE_STAGES, ROW_STAGES, UNSENT_STAGES, parse
from redrive.ledger import Ledger
from redrive.targets import DeadLetter, Target, to_table, to_topic

# Both a publish and an insertAll request may hold 10 MB.
BATCH_SIZE = 1000
BATCH_BYTES = 9_000_000

_SERVICE_ERRORS = (GoogleAPIError, GoogleAuthError, RequestException)


def main(argv: Sequence[str] | None = None) -> int:
    """Print the selected dead letters and, with --execute, send them.

    Returns:
      The exit code: 0; 1 if sending failed or was stopped; 2, with one line on stderr and nothing sent, if a flag or a
      table is wrong.
    """
    args = parse(argv)
    try:
        bq = client(args.billing_project or args.dead_letter_table.project)
        # The target of each stage; dead letters of other stages are not sent.
        routes: dict[str, Target] = {}
        if args.topic:
            routes |= dict.fromkeys(MESSAGE_STAGES, to_topic(args.topic, args.id_attribute, args.timestamp_attribute))
        if args.output_table:
            routes |= dict.fromkeys(ROW_STAGES, to_table(bq, args.output_table))
        ledger = Ledger(bq, args)
        groups = ledger.overview()
        if args.execute:
            ledger.create()
    except (tables.TableError, *_SERVICE_ERRORS) as error:
        print(f"error: {_explain(error)}", file=sys.stderr)
        return 2
    if args.since_default:
        since = f"{args.since:%Y-%m-%dT%H:%M:%SZ}"
        print(f"Dead letters of the last {DEFAULT_DAYS} days, since {since}; --since sets another time.")
    statuses = ("waiting", "unconfirmed") if args.retry_unconfirmed else ("waiting",)
    for group in groups:
        destination = _destination(group.stage, group.status, routes, statuses)
        times = f"{group.oldest:%Y-%m-%dT%H:%M:%SZ} to {group.newest:%Y-%m-%dT%H:%M:%SZ}"
        print(f"{group.dead_letters:>9}  {group.stage:<9}  {one_line.value(group.error):<16}  {times}  {destination}")
    selected = sum(group.dead_letters for group in groups)
    sendable = sum(group.dead_letters for group in groups if group.stage in routes and group.status in statuses)
    limit = min(sendable, args.limit or sendable)
    if not args.execute:
        print(f"Dry run: nothing was sent. With --execute, {limit} of {selected} selected dead letters would be.")
        return 0
    counts = Counter(skipped=selected - sendable)
    stopped = False
    try:
        for target, batch in _batches(ledger.dead_letters(routes, statuses, limit), routes):
            _redrive(ledger, target, batch, counts)
            print(f"{counts['topic'] + counts['table']} of {limit} sent", flush=True)
    except (KeyboardInterrupt, *_SERVICE_ERRORS) as error:
        print(f"error: stopped: {_explain(error)}", file=sys.stderr)
        stopped = True
    topic, table, unconfirmed = counts["topic"], counts["table"], counts["unconfirmed"]
    warning = f" {unconfirmed} unconfirmed: may have been sent; see --retry_unconfirmed." if unconfirmed else ""
    print(
        f"Redrove {topic + table} dead letters ({topic} to topic, {table} to table), {counts['skipped']} skipped, "
        f"{counts['failed']} failed.{warning}"
    )
    return 1 if stopped or counts["failed"] else 0


def _redrive(ledger: Ledger, target: Target, batch: list[DeadLetter], counts: Counter[str]) -> None:
    """Claim, send and record one batch, and add to `counts`; raises an error that the next batch would meet too."""
    counts["unconfirmed"] = len(batch)
    claimed = ledger.claim(batch, target)
    rejections = target.send(claimed) if claimed else {}
    sent = [dead_letter for dead_letter in claimed if dead_letter.id not in rejections]
    ledger.record(sent, target, "done")
    ledger.record([dead_letter for dead_letter in claimed if dead_letter.id in rejections], target, "released")
    counts.update({target.kind: len(sent)}, failed=len(rejections), skipped=len(batch) - len(claimed))
    counts["unconfirmed"] = 0
    for dead_letter_id, error in rejections.items():
        if not isinstance(error, InvalidArgument):
            raise error
        print(f"error: dead letter {dead_letter_id} was rejected: {one_line.reason(error)}", file=sys.stderr)


def _destination(stage: str, status: str, routes: dict[str, Target], statuses: Sequence[str]) -> str:
    """Return the topic or table where dead letters of a stage and status are sent, or why they are not."""
    if stage in UNSENT_STAGES:
        return f"nowhere: {UNSENT_STAGES[stage]}"
    if status == "in parts":
        return "nowhere: too large for one row; join its payloads by dead_letter_id, in order of part"
    if status == "done":
        return "nowhere: redriven before"
    if status not in statuses:
        return "nowhere: unconfirmed, may have been sent; see --retry_unconfirmed"
    if stage not in routes:
        return f"nowhere: give --{'output_table' if stage in ROW_STAGES else 'topic'}"
    return routes[stage].name


def _batches(
    dead_letters: Iterable[DeadLetter], routes: dict[str, Target]
) -> Iterator[tuple[Target, list[DeadLetter]]]:
    """Gather the dead letters of each target, in their order, into batches that fit into a request."""
    pending: dict[Target, list[DeadLetter]] = {target: [] for target in routes.values()}
    sizes: Counter[Target] = Counter()
    for dead_letter in dead_letters:
        target = routes[dead_letter.stage]
        if len(pending[target]) == BATCH_SIZE or (pending[target] and sizes[target] + dead_letter.size > BATCH_BYTES):
            yield target, pending[target]
            pending[target], sizes[target] = [], 0
        pending[target].append(dead_letter)
        sizes[target] += dead_letter.size
    yield from ((target, batch) for target, batch in pending.items() if batch)


def _explain(error: BaseException) -> str:
    """Return one line: the cause, and the fix where one is known."""
    reason = one_line.reason(root_cause(error)) or type(error).__name__
    if "bytes billed" in reason:
        return f"{reason}; narrow the selection with --since and --until, or raise --maximum_bytes_billed"
    return credentials_problem(error) or reason


if __name__ == "__main__":
    sys.exit(main())
