"""Patches of Beam's local runner, for this process only: `install` applies them.

They replace the Pub/Sub reader by that of `pubsub_source`. BundleBasedDirectRunner also runs all steps for each bundle,
although most of them have no input, and inspects the arguments of all methods of a step each time; the other patches
avoid this.
"""

from collections.abc import Callable
from types import MethodType
from typing import Any
from weakref import WeakKeyDictionary

from apache_beam.runners.direct import transform_evaluator
from apache_beam.runners.direct.bundle_factory import _Bundle
from apache_beam.runners.direct.executor import _ExecutorServiceParallelExecutor
from apache_beam.transforms import core

from local.runner.pubsub_source import PubSubReadEvaluator

_beam_schedule_consumers = _ExecutorServiceParallelExecutor.schedule_consumers


def _schedule_consumers(executor: _ExecutorServiceParallelExecutor, bundle: _Bundle) -> None:
    """Run the steps that consume a bundle, unless it is empty.

    Beam sets up all steps for each bundle, which takes most of the time of a run. Empty bundles are not needed:
    watermarks advance without them, and timers have separate bundles.
    """
    if bundle.has_elements():
        _beam_schedule_consumers(executor, bundle)


_Arguments = tuple[list[str], list[Any]]
_beam_arguments = core.get_function_args_defaults
_arguments_of: WeakKeyDictionary[Callable[..., Any], _Arguments] = WeakKeyDictionary()


def _arguments(function: Any) -> _Arguments:
    """Return the names and defaults of a function's arguments, which are inspected once per method.

    Beam inspects all methods of a step four times for each bundle, which takes half of the time of a run.
    """
    if not isinstance(function, MethodType):
        return _beam_arguments(function)
    found = _arguments_of.get(function.__func__)
    if found is None:
        found = _arguments_of[function.__func__] = _beam_arguments(function)
    names, defaults = found
    return list(names), list(defaults)


def install() -> None:
    """Apply the patches to BundleBasedDirectRunner in this process; further calls have no effect."""
    transform_evaluator._PubSubReadEvaluator = PubSubReadEvaluator  # type: ignore[misc]
    _ExecutorServiceParallelExecutor.schedule_consumers = _schedule_consumers  # type: ignore[assignment, method-assign]
    core.get_function_args_defaults = _arguments  # type: ignore[assignment]
