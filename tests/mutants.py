"""Mutation testing with Cosmic Ray: which small changes of a module do its tests fail to notice?

    python -m tests.mutants pipeline/decode/decoder.py --sample=50
    python -m tests.mutants --since=main

Works on a copy of what is committed, in build/mutants, and prints the diff of each mutant that survived and the score
of each module. A sample is drawn with a fixed seed, so that it is the same sample until the module changes.
"""

import argparse
import random
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from cosmic_ray.work_db import WorkDB, use_db
from cosmic_ray.work_item import TestOutcome, WorkerOutcome, WorkResult

ROOT = Path(__file__).parents[1]
BUILD = ROOT / "build/mutants"
COPY = BUILD / "copy"
BIN = Path(sys.executable).parent
SEED = 1

# Seconds for the tests of a module as it is. Those of a mutant have a minute and three times as long as they took; one
# whose tests never end counts as noticed.
BASELINE_TIMEOUT = 900

# What pytest is to run of tests/pipeline for a module, the tests that are done soonest first.
TESTS = {
    "pipeline/decode/decoder.py": ("decode/test_amplification.py", "decode/test_decoder.py"),
    "pipeline/decode/documents.py": (
        "decode/test_decoder.py",
        "decode/test_amplification.py",
    ),
    "pipeline/decode/formats.py": (
        "decode/test_decoder.py",
        "decode/test_messages.py",
        "decode/test_mapped.py",
    ),
    "pipeline/decode/influx.py": (
        "decode/test_messages.py",
        "decode/test_mapped.py",
    ),
    "pipeline/decode/json_text.py": (
        "decode/test_walk.py",
        "decode/test_decoder.py",
    ),
    "pipeline/decode/mapped.py": (
        "decode/test_mapped.py",
        "decode/test_messages.py",
    ),
    "pipeline/decode/mapping.py": (
        "decode/test_mapped.py",
        "decode/test_messages.py",
    ),
    "pipeline/decode/paths.py": ("decode/test_paths.py",),
    "pipeline/decode/plan.py": (
        "decode/test_mapped.py",
        "decode/test_messages.py",
    ),
    "pipeline/decode/quick.py": (
        "decode/test_mapped.py",
        "decode/test_messages.py",
    ),
    "pipeline/decode/rejections.py": (
        "decode/test_amplification.py",
        "decode/test_mapped.py",
    ),
    "pipeline/decode/senml.py": (
        "decode/test_messages.py",
        "decode/test_mapped.py",
    ),
    "pipeline/decode/shapes.py": (
        "decode/test_walk.py",
        "decode/test_mapped.py",
    ),
    "pipeline/decode/timestamps.py": (
        "decode/test_decoder.py",
        "decode/test_messages.py",
    ),
    "pipeline/decode/values.py": (
        "decode/test_decoder.py",
        "decode/test_messages.py",
        "decode/test_mapped.py",
    ),
    "pipeline/decode/walk.py": ("decode/test_walk.py",),
    "pipeline/decode/bounded_cache.py": ("decode/test_bounded_cache.py",),
    "pipeline/decode/strict_json.py": ("decode/test_strict_json.py",),
    "pipeline/aggregate/fold.py": (
        *("decode/test_amplification.py", "test_metrics.py", "test_silences.py", "test_graph.py"),
    ),
    "pipeline/aggregate/buckets.py": ("aggregate/test_runs.py", "test_lateness.py", "test_graph.py", "test_model.py"),
    "pipeline/aggregate/runs.py": ("aggregate/test_runs.py",),
    "pipeline/windows/lateness.py": ("test_lateness.py", "windows/test_hopping.py", "test_holds.py"),
    "pipeline/windows/session_state.py": ("windows/test_session_state.py",),
    "pipeline/windows/fixed.py": (
        *("windows/test_labels.py", "test_holds.py", "test_lateness.py", "windows/test_long_intervals.py"),
        *("test_retries.py::TestIds", "test_graph.py"),
    ),
    "pipeline/windows/hopping.py": (
        *("windows/test_labels.py", "test_holds.py", "windows/test_hopping.py", "windows/test_long_intervals.py"),
    ),
    "pipeline/windows/session.py": (
        *("windows/test_labels.py", "test_holds.py", "test_lateness.py", "windows/test_session_state.py"),
        *("test_retries.py::TestIds", "test_graph.py", "test_model.py", "-k", "ession"),
    ),
    "pipeline/rows.py": (
        *("aggregate/test_statistics.py", "test_metrics.py", "test_rows_since.py", "test_retries.py::TestIds"),
    ),
    "pipeline/dead_letters.py": ("test_dead_letters.py",),
    "pipeline/sinks/streaming_inserts.py": ("sinks/test_streaming_inserts.py",),
    "pipeline/sinks/batches.py": ("sinks/test_streaming_inserts.py", "sinks/test_storage_write.py"),
    "pipeline/sinks/pubsub.py": ("sinks/test_pubsub.py", "test_retries.py::TestRepeatedBundles"),
    "pipeline/sinks/rejected_rows.py": ("sinks/test_rejected_rows.py", "sinks/test_streaming_inserts.py"),
    "pipeline/launch/preflight.py": ("launch/test_preflight.py",),
}

# Mutations of what only a type checker reads: `int | None`.
EXCLUDED_OPERATORS = ["core/ReplaceBinaryOperator_BitOr_.*", "core/ReplaceBinaryOperator_.*_BitOr"]

CONFIG = """\
[cosmic-ray]
module-path = ["{module}"]
timeout = {timeout}
excluded-modules = []
test-command = {command!r}
[cosmic-ray.distributor]
name = "local"
[cosmic-ray.filters.operators-filter]
exclude-operators = {excluded}
[cosmic-ray.filters.git-filter]
branch = "{since}"
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Try the mutants and print what survived; returns the exit code, 0 if none did."""
    parser = argparse.ArgumentParser(prog="make mutants", description=__doc__, allow_abbrev=False)
    parser.add_argument("modules", nargs="*", help=f"out of {', '.join(TESTS)}")
    parser.add_argument(
        "--since", help="only of lines changed since the branch left this branch or commit; of all modules unless named"
    )
    parser.add_argument("--sample", type=int, help="at most so many mutants of each module")
    args = parser.parse_args(argv)
    if unknown := set(args.modules) - TESTS.keys():
        parser.error(f"no tests are named for {', '.join(sorted(unknown))}; choose from {', '.join(TESTS)}")
    if not args.modules and not args.since:
        parser.error("name a module, or --since")
    try:
        since = args.since and git("merge-base", args.since, "HEAD")
    except subprocess.CalledProcessError as error:
        parser.error(f"--since={args.since}: {error.stderr.strip()}")
    modules = args.modules or [name for name in changed_since(since) if name in TESTS]
    git("worktree", "prune")
    BUILD.mkdir(parents=True, exist_ok=True)
    if not COPY.exists():
        git("worktree", "add", "--quiet", "--detach", str(COPY))
    git("-C", str(COPY), "checkout", "--quiet", "--force", "--detach", git("rev-parse", "HEAD"))
    survived = [try_mutants(module, since, args.sample) for module in modules]
    return int(any(survived))


def try_mutants(module: str, since: str | None, sample: int | None) -> int:
    """Print the survivors and the score of one module; returns how many survived."""
    tests = [f"tests/pipeline/{name}" if ".py" in name else name for name in TESTS[module]]
    command = shlex.join([sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *tests])
    session = BUILD / module.replace("/", ".").replace(".py", ".sqlite")
    config = session.with_suffix(".toml")
    settings = {"module": module, "command": command, "excluded": EXCLUDED_OPERATORS, "since": since or ""}
    config.write_text(CONFIG.format(timeout=BASELINE_TIMEOUT, **settings))
    run("cosmic-ray", "--verbosity=ERROR", "init", "--force", config, session)
    run("cr-filter-operators", session, config)
    if since:
        run("cr-filter-git", session, "--config", config)
    with use_db(str(session), WorkDB.Mode.open) as work:
        pending = sorted(work.pending_work_items, key=lambda item: str(item.mutations))
        left_out = [] if sample is None else random.Random(SEED).sample(pending, max(0, len(pending) - sample))
        skipped = WorkResult(WorkerOutcome.SKIPPED, "not in the sample")
        work.set_multiple_results([item.job_id for item in left_out], skipped)
    if pending:
        begun = time.monotonic()
        run("cosmic-ray", "--verbosity=ERROR", "baseline", config)
        config.write_text(CONFIG.format(timeout=60 + 3 * (time.monotonic() - begun), **settings))
        run("cosmic-ray", "--verbosity=ERROR", "exec", config, session)
    with use_db(str(session), WorkDB.Mode.open) as work:
        tried = [result for _, result in work.results if result.worker_outcome != WorkerOutcome.SKIPPED]
    survivors = [result for result in tried if result.test_outcome == TestOutcome.SURVIVED]
    for result in survivors:
        print(result.diff, flush=True)
    of_all = f" of {len(pending)}" if left_out else ""
    print(f"{module}: {len(tried) - len(survivors)} of {len(tried)} mutants noticed{of_all}", flush=True)
    return len(survivors)


def changed_since(commit: str) -> list[str]:
    """Return the modules of the pipeline that have changed since a commit; print those that TESTS does not name."""
    changed = git("diff", "--name-only", "--diff-filter=d", commit, "HEAD", "--", "pipeline/*.py").splitlines()
    for module in changed:
        if module not in TESTS:
            print(f"{module}: changed, but no tests are named for it", flush=True)
    if not changed:
        print(f"no module has changed since {commit:.8}", flush=True)
    return changed


def git(*arguments: str) -> str:
    """Run git in the repository and return what it prints."""
    return subprocess.run(["git", *arguments], cwd=ROOT, check=True, capture_output=True, text=True).stdout.strip()


def run(tool: str, *arguments: object) -> None:
    """Run one of Cosmic Ray's commands on the copy."""
    subprocess.run([BIN / tool, *map(str, arguments)], cwd=COPY, check=True)


if __name__ == "__main__":
    sys.exit(main())
