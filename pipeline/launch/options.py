"""The command line: our parameters read and checked, and Apache Beam's flags."""

import argparse
import difflib
import itertools
import os
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from apache_beam.options.pipeline_options import (
    DebugOptions,
    GoogleCloudOptions,
    PipelineOptions,
    StandardOptions,
    WorkerOptions,
)

from pipeline.errors import SensorStreamError
from pipeline.launch import one_line, rules
from pipeline.launch.job import Job
from pipeline.launch.parameters import PARAMETERS, Parameter

# The plain DirectRunner would try to download another runner first; this one streams with what pip installed.
LOCAL_RUNNER = "BundleBasedDirectRunner"

# Set in the template image to the image's own name. Workers run it; by default they would run Beam's, without our code.
IMAGE_VARIABLE = "SENSOR_STREAM_IMAGE"

# Runners that hand the job to the Dataflow service.
_SERVICE_RUNNERS = frozenset(["DataflowRunner", "TestDataflowRunner"])


class UsageError(SensorStreamError):
    """A parameter is wrong; the message is one line that says what is wrong and how to fix it."""


class SensorStreamOptions(PipelineOptions):
    """Makes the parameters known to Beam, so that the Dataflow job page shows them."""

    @classmethod
    def _add_argparse_args(cls, parser: argparse.ArgumentParser) -> None:
        for name, parameter in PARAMETERS.items():
            default = f" (default: {parameter.default})" if parameter.default else ""
            parser.add_argument(f"--{name}", default=parameter.default, help=parameter.help + default)


def parse(argv: Sequence[str]) -> tuple[Job, PipelineOptions]:
    """Read the command line; return the checked parameters, and the options for Beam.

    Raises:
      UsageError: a parameter or a flag of Beam is wrong, or a flag looks like a misspelt parameter.
    """
    job = _job(argv)
    _refuse_misspelt(_unknown_flags(argv))
    if error := rules.broken(job):
        raise UsageError(error)
    # The code is an installed package, so there is no main session to ship to the workers.
    beam_options = PipelineOptions(argv, streaming=True, save_main_session=False)
    _refuse_at_least_once(beam_options)
    standard = beam_options.view_as(StandardOptions)
    standard.runner = _runner(standard.runner or LOCAL_RUNNER)
    if runs_on_dataflow(beam_options):
        _check_required(job)
    workers = beam_options.view_as(WorkerOptions)
    workers.sdk_container_image = workers.sdk_container_image or os.environ.get(IMAGE_VARIABLE)
    return job, beam_options


def runs_on_dataflow(beam_options: PipelineOptions) -> bool:
    """Return whether the options that `parse` returned name a runner of the Dataflow service."""
    return beam_options.view_as(StandardOptions).runner in _SERVICE_RUNNERS


def _job(argv: Sequence[str]) -> Job:
    parser = argparse.ArgumentParser(
        prog="python -m pipeline.main", allow_abbrev=False, epilog="Any flag of Apache Beam as well."
    )
    SensorStreamOptions._add_argparse_args(parser)
    texts, _ = _parse_known(parser, argv)
    job = Job(**{name: _value(name, parameter, getattr(texts, name)) for name, parameter in PARAMETERS.items()})
    if job.output_table and not job.dead_letter_table:
        return replace(job, dead_letter_table=job.output_table.with_suffix("_dead_letters"))
    return job


def _value(name: str, parameter: Parameter, text: str) -> Any:
    # The launcher passes parameters left blank in the form as empty text.
    text = text or parameter.default
    if not text:
        return None
    try:
        return parameter.value_type.read(text)
    except ValueError as error:
        raise UsageError(f"--{name}={one_line.value(text)}: {error}") from None


def _unknown_flags(argv: Sequence[str]) -> list[str]:
    """Return the arguments that are neither ours nor Beam's; raises UsageError for a wrong value of a flag of Beam."""
    parsers: list[argparse.ArgumentParser] = []
    # The one way to get Beam's parser, which has the options of every runner.
    PipelineOptions([]).get_all_options(add_extra_args_fn=parsers.append)
    [parser] = parsers
    return _parse_known(parser, argv)[1]


def _parse_known(parser: argparse.ArgumentParser, argv: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    parser.exit_on_error = False
    try:
        return parser.parse_known_args(argv)
    except argparse.ArgumentError as error:
        raise UsageError(one_line.reason(error).removeprefix("argument ")) from None
    except ValueError as error:
        raise UsageError(f"a flag of Apache Beam has a wrong value: {one_line.reason(error)}") from None


def _runner(name: str) -> str:
    """Return the class name of a runner, given in any of the spellings that Beam accepts."""
    module, _, short = name.rpartition(".")
    for known in StandardOptions.KNOWN_RUNNER_NAMES if module.startswith("apache_beam") or not module else ():
        if short.lower() in (known.lower(), known.lower().removesuffix("runner")):
            return known
    if not module:
        known_names = ", ".join(StandardOptions.KNOWN_RUNNER_NAMES)
        raise UsageError(f"--runner={one_line.value(name)}: expected one of {known_names}")
    return name


def _check_required(job: Job) -> None:
    for name, parameter in PARAMETERS.items():
        if parameter.required and getattr(job, name) is None:
            raise UsageError(f"--{name} is missing; only a local run works without it")


def _refuse_at_least_once(beam_options: PipelineOptions) -> None:
    # It is a service option. A template's --additional-experiments arrive as experiments, which work as well:
    # https://cloud.google.com/dataflow/docs/guides/streaming-modes
    service_options = beam_options.view_as(GoogleCloudOptions).dataflow_service_options or []
    experiments = beam_options.view_as(DebugOptions).experiments or []
    for option in (*service_options, *experiments):
        if option.partition("=")[0].strip().lower() == "streaming_mode_at_least_once":
            raise UsageError(
                f"{option}: Dataflow may then process a message twice, and its readings would count twice; remove "
                "the option, so that the job runs in exactly-once mode"
            )


def _refuse_misspelt(unknown: Sequence[str]) -> None:
    for before, argument in itertools.pairwise(["", *unknown]):
        # As in Beam, `--unknown value` is a flag with its value.
        is_value = before.startswith("--") and "=" not in before and not argument.startswith("-")
        if is_value or not (argument.startswith("-") or "=" in argument):
            continue
        name = argument.split("=")[0].strip("-").replace("-", "_").lower()
        close = difflib.get_close_matches(name, PARAMETERS, n=1, cutoff=0.85)
        close = close or [known for known in PARAMETERS if name and known.startswith(name)]
        if close:
            raise UsageError(f"{one_line.value(argument)}: no such parameter; did you mean --{close[0]}?")
