"""One engine in a process of its own, which its parent drives over a pipe: `python -m benchmarks.peers.host MODULE`.

Commands and answers are lines of JSON. It begins with {"forms": [name, ...], "version": of the engine}, and then:

    {"do": "prepare", "load": {...}, "count": messages, "start": seconds}  -> {}
    {"do": "check", "form": name}    -> {"rows": [[start, device, means]], "refused": n, "payloads": digest or null,
                                         "cpu": seconds, of all messages}
    {"do": "time", "form": name, "messages": n}    -> {"cpu": seconds, of the first n messages}
"""

import gc
import hashlib
import importlib
import json
import os
import resource
import sys
import time
from importlib.metadata import version
from typing import Any

from benchmarks.load import Load, messages
from benchmarks.peers.engine import Form, Job


class _Host:
    def __init__(self, forms: dict[str, Form]):
        self._forms = forms
        self._jobs: dict[tuple[str, int], Job] = {}

    def prepare(self, load: dict[str, int], count: int, start: float) -> dict[str, Any]:
        self._load = Load(**load)
        self._sent = list(messages(self._load, count, start))
        self._jobs.clear()
        return {}

    def check(self, form: str) -> dict[str, Any]:
        job = self._job(form, len(self._sent))
        before = _cpu()
        done = job.run()
        cpu = _cpu() - before
        outcome = job.finish(done)
        payloads = outcome.payloads
        return {
            "rows": [[start, device, means] for (start, device), means in outcome.rows.items()],
            "refused": outcome.refused,
            "cpu": cpu,
            "payloads": payloads and hashlib.sha256(b"\n".join(sorted(payloads))).hexdigest(),
        }

    def time(self, form: str, messages: int) -> dict[str, Any]:
        job = self._job(form, messages)
        gc.collect()
        before = _cpu()
        job.run()
        return {"cpu": _cpu() - before}

    def _job(self, form: str, count: int) -> Job:
        if (form, count) not in self._jobs:
            self._jobs[form, count] = self._forms[form](self._load, self._sent[:count])
        return self._jobs[form, count]


def _cpu() -> float:
    """Return the CPU seconds of this process, all its threads, and the children that have ended."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def main() -> None:
    """Answer until the pipe is closed."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what engines print must not get among the answers
    engine = importlib.import_module(f"benchmarks.peers.{sys.argv[1]}")
    host = _Host(engine.FORMS)
    answers.write(json.dumps({"forms": list(engine.FORMS), "version": version(engine.DISTRIBUTION)}) + "\n")
    for line in sys.stdin:
        command = json.loads(line)
        answers.write(json.dumps(getattr(host, command.pop("do"))(**command)) + "\n")


if __name__ == "__main__":
    main()
