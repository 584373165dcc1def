"""Sends dead letters back: messages to a topic, refused rows to the output table. A dry run unless told --execute.

    python -m redrive --dead_letter_table=P:D.readings_dead_letters --topic=projects/P/topics/readings

Dead letters of the stages decode, timestamp and validate hold a message's own bytes: they go to --topic with the kept
attributes, `dead_letter_id` and `redrive_attempt` (1, 2, ...). Dead letters of the stage insert hold a row: they go to
--output_table. Those of the stages late, average and silence stay.

No run sends what an earlier one sent. The table <dead_letter_table>_redriven records each dead letter's steps:

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

import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from google.api_core.exceptions import GoogleAPIError, InvalidArgument
from google.auth.exceptions import GoogleAuthError
from requests.exceptions import RequestException

from pipeline.launch import one_line, tables
from pipeline.launch.credentials import credentials_problem, root_cause
from redrive.flags import DEFAULT_DAYS, MESSAGE_STAGES, ROW_STAGES, STAYING_STAGES, parse
from redrive.ledger import Ledger
from redrive.targets import Letter, Target, to_table, to_topic

# Both a publish and an insertAll request may hold 10 MB.
BATCH_LETTERS = 1000
BATCH_BYTES = 9_000_000

_SERVICE_ERRORS = (GoogleAPIError, GoogleAuthError, RequestException)


def main(argv: Sequence[str] | None = None) -> int:
    """Print what is selected and, with --execute, send it.

    Returns:
      The exit code: 0; 1 if sending failed or was stopped; 2, with one line on stderr and nothing sent, if a flag or a
      table is wrong.
    """
    args = parse(argv)
    try:
        bq = tables.client(args.billing_project or args.dead_letter_table.project)
        # Where the letters of a stage go; those of a stage without an entry go nowhere.
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
        goes_to = _goes_to(group.stage, group.status, routes, statuses)
        times = f"{group.oldest:%Y-%m-%dT%H:%M:%SZ} to {group.newest:%Y-%m-%dT%H:%M:%SZ}"
        print(f"{group.letters:>9}  {group.stage:<9}  {one_line.value(group.error):<16}  {times}  {goes_to}")
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
        print(f"error: stopped: {_explain(error)}", file=sys.stderr)
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
    rejections = target.send(ours) if ours else {}
    sent = [letter for letter in ours if letter.id not in rejections]
    ledger.record(sent, target, "done")
    ledger.record([letter for letter in ours if letter.id in rejections], target, "released")
    counts.update({target.kind: len(sent)}, failed=len(rejections), skipped=len(batch) - len(ours))
    counts["unconfirmed"] = 0
    for letter_id, error in rejections.items():
        if not isinstance(error, InvalidArgument):
            raise error
        print(f"error: dead letter {letter_id} is refused: {one_line.reason(error)}", file=sys.stderr)


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


def _explain(error: BaseException) -> str:
    """Return one line: the cause, and the fix where it is known."""
    reason = one_line.reason(root_cause(error)) or type(error).__name__
    if "bytes billed" in reason:
        return f"{reason}; narrow the choice with --since and --until, or raise --maximum_bytes_billed"
    return credentials_problem(error) or reason


if __name__ == "__main__":
    sys.exit(main())
