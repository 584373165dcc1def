"""The job request as Dataflow receives it: what must stay for `--update`, besides the graph."""

from typing import Any

from tests.contract.golden import ACCEPT, golden


def frozen(request: dict[str, Any]) -> dict[str, Any]:
    """Return those parts of a job request that do not depend on the machine that launched it."""
    environment = request["environment"]
    [pool] = environment["workerPools"]
    shown = environment["sdkPipelineOptions"]["options"]
    return {
        "type": request["type"],
        "job type": environment["version"]["job_type"],
        "experiments": sorted(environment["experiments"]),
        "packages": [package["name"] for package in pool["packages"]],
        "harnesses": len(pool["sdkHarnessContainerImages"]),
        "options": {name: shown[name] for name in ("pickle_library", "save_main_session", "streaming")},
    }


def test_job_request_keeps_type_experiments_packages_and_options(fixed):
    now = frozen(fixed.request)
    assert now == golden("job_request", now), (
        "\nThe service may refuse to replace a running job by one of another type, or with other experiments. If it is "
        f"on purpose, running jobs must be drained; CHANGELOG.md must say so. To accept the change, run\n  {ACCEPT}\n"
    )
