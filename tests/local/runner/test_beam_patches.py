"""The patches of Beam's local runner, and the code of Beam that they rely on."""

import inspect

import apache_beam as beam
from apache_beam.coders import BytesCoder
from apache_beam.runners.direct import executor, transform_evaluator
from apache_beam.transforms import core
from apache_beam.transforms.userstate import BagStateSpec

from local.runner import beam_patches, pubsub_source
from tests.local.runner.test_pubsub_source import Collect, CollectBundle, install


def test_beams_runner_has_the_code_that_the_patches_rely_on() -> None:
    stock = pubsub_source.PubSubReadEvaluator.__mro__[1]
    assert stock.__name__ == "_PubSubReadEvaluator"
    assert list(inspect.signature(stock._read_from_pubsub).parameters) == ["self", "timestamp_attribute"]
    finish = inspect.getsource(stock.finish_bundle)
    assert "data = self._read_from_pubsub(self.source.timestamp_attribute)\n    if data:" in finish
    assert "output_pcollection = list(self._outputs)[0]" in finish
    assert "bundles = []" in finish
    assert "{None: Timestamp.of(time.time())}" in finish
    assert "NotImplementedError" in inspect.getsource(stock.__init__)
    # The registry looks the class up by its global name for each run.
    registry = inspect.getsource(transform_evaluator.TransformEvaluatorRegistry.__init__)
    assert "_DirectReadFromPubSub: _PubSubReadEvaluator" in registry
    schedule = beam_patches._beam_schedule_consumers
    assert schedule.__qualname__ == "_ExecutorServiceParallelExecutor.schedule_consumers"
    assert list(inspect.signature(schedule).parameters) == ["self", "committed_bundle"]
    assert beam_patches._beam_arguments.__qualname__ == "get_function_args_defaults"
    assert "return get_function_args_defaults(f)" in inspect.getsource(core.get_function_arguments)


def test_install_has_no_effect_the_second_time(monkeypatch) -> None:
    install(monkeypatch)
    beam_patches.install()
    assert transform_evaluator._PubSubReadEvaluator is pubsub_source.PubSubReadEvaluator
    assert executor._ExecutorServiceParallelExecutor.schedule_consumers is beam_patches._schedule_consumers
    assert beam_patches._beam_schedule_consumers is not beam_patches._schedule_consumers
    assert core.get_function_args_defaults is beam_patches._arguments
    assert beam_patches._beam_arguments is not beam_patches._arguments


def test_arguments_equal_those_that_beam_finds() -> None:
    class Other(beam.DoFn):
        STATE = BagStateSpec("values", BytesCoder())

        def process(self, element, state=beam.DoFn.StateParam(STATE)):
            pass

    steps = [Collect(), CollectBundle("a"), Other(), Other(), beam.Map(lambda element, more=1: None).fn]
    methods = [step.process for step in steps] + [steps[1].finish_bundle]
    expected = [beam_patches._beam_arguments(method) for method in methods]
    assert expected[0][1] == [beam.DoFn.WindowParam, beam.DoFn.PaneInfoParam]
    for names, defaults in (beam_patches._arguments(method) for method in methods):
        # Callers may change the lists.
        names.clear()
        defaults.clear()
    assert [beam_patches._arguments(method) for method in methods] == expected
