"""Beam's own worker, fed in memory: the boundary at which Dataflow hands bundles over and takes the results."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import apache_beam as beam
from apache_beam.coders.coder_impl import create_InputStream
from apache_beam.io.gcp.pubsub import ReadFromPubSub
from apache_beam.portability import common_urns
from apache_beam.portability.api import beam_fn_api_pb2, beam_runner_api_pb2
from apache_beam.runners.pipeline_context import PipelineContext
from apache_beam.runners.portability.fn_api_runner import translations
from apache_beam.runners.worker import bundle_processor, data_plane
from apache_beam.utils.windowed_value import WindowedValue

_BUNDLE = "bundle"  # the only instruction there ever is


class Source(beam.PTransform):
    """Message bytes as ReadFromPubSub yields them, its pass-through included; `Worker` feeds what is before that."""

    def expand(self, begin: Any) -> beam.PCollection:
        """Apply the read."""
        fed = begin | beam.Impulse()
        return ReadFromPubSub(subscription="projects/bench-project/subscriptions/bench").expand_continued(fed)


class Sink(beam.PTransform):
    """Ends a branch; what comes before the first shuffle is all that is run."""

    def expand(self, elements: beam.PCollection) -> beam.PCollection:
        """Apply the sink."""
        return elements | beam.Map(_same)


class Worker:
    """Runs bundles through the first fused stage of a pipeline, up to its first shuffle.

    Combiners are not lifted, as Dataflow does not in streaming.

    Args:
      build: adds the steps to a pipeline, beginning with a `Source`.
    """

    def __init__(self, build: Callable[[beam.Pipeline], None]):
        pipeline = beam.Pipeline()
        build(pipeline)
        descriptor = _first_stage(pipeline.to_runner_api())
        self._coders: dict[str, Any] = {}
        context = PipelineContext(descriptor)
        for name, transform in descriptor.transforms.items():
            if transform.spec.urn in (bundle_processor.DATA_INPUT_URN, bundle_processor.DATA_OUTPUT_URN):
                port = beam_fn_api_pb2.RemoteGrpcPort.FromString(transform.spec.payload)
                self._coders[name] = context.coders.get_by_id(port.coder_id).get_impl()
                if transform.spec.urn == bundle_processor.DATA_INPUT_URN:
                    self._input = name
        self._channel = _Channel()
        self._processor = bundle_processor.BundleProcessor(
            frozenset(), descriptor, None, data_plane.InMemoryDataChannelFactory(self._channel)
        )

    def encode(self, elements: Iterable[WindowedValue]) -> beam_fn_api_pb2.Elements.Data:
        """Return a bundle as it comes from the runner."""
        stream = data_plane.OutputStream()
        for element in elements:
            self._coders[self._input].encode_to_stream(element, stream, True)
        return beam_fn_api_pb2.Elements.Data(instruction_id=_BUNDLE, transform_id=self._input, data=stream.get())

    def run(self, bundle: beam_fn_api_pb2.Elements.Data) -> list[tuple[str, bytes]]:
        """Process one bundle, with the report of its metrics; return (step, encoded elements) of what leaves."""
        self._channel.fed, self._channel.left = [bundle], []
        self._processor.process_bundle(_BUNDLE)
        self._processor.monitoring_infos()
        self._processor.reset()
        return self._channel.left

    def decode(self, left: list[tuple[str, bytes]]) -> Iterator[tuple[str, WindowedValue]]:
        """Yield (the step that wrote it, element) for all that left the worker."""
        for name, data in left:
            stream = create_InputStream(data)
            while stream.size() > 0:
                yield name, self._coders[name].decode_from_stream(stream, True)


class _Channel(data_plane.DataChannel):
    def __init__(self) -> None:
        self.fed: list[beam_fn_api_pb2.Elements.Data] = []
        self.left: list[tuple[str, bytes]] = []

    def input_elements(self, instruction_id: str, expected_inputs: Any, abort_callback: Any = None) -> Iterator[Any]:
        return iter(self.fed)

    def output_stream(self, instruction_id: str, transform_id: str) -> data_plane.ClosableOutputStream:
        def collect(data: bytes) -> None:
            self.left.append((transform_id, data))

        return data_plane.ClosableOutputStream.create(collect, collect, 0)

    def output_timer_stream(self, instruction_id: str, transform_id: str, timer_family_id: str) -> Any:
        raise NotImplementedError("no timers before the first shuffle")

    def close(self) -> None:
        pass


def _same(element: Any) -> Any:
    return element


def _first_stage(proto: beam_runner_api_pb2.Pipeline) -> beam_fn_api_pb2.ProcessBundleDescriptor:
    """Fuse as Beam's own runner does, and return the stage that is fed, ready for a worker."""
    for transform in proto.components.transforms.values():
        if transform.spec.urn == common_urns.composites.COMBINE_PER_KEY.urn:
            transform.spec.urn = ""  # an ordinary composite then: a grouping, and a combine after it
    context, stages = translations.create_and_optimize_stages(
        proto,
        phases=[
            translations.annotate_downstream_side_inputs,
            translations.fix_side_input_pcoll_coders,
            translations.expand_gbk,
            translations.sink_flattens,
            translations.greedily_fuse,
            translations.impulse_to_input,
            translations.sort_stages,
            translations.populate_data_channel_coders,
        ],
        known_runner_urns=frozenset([common_urns.primitives.FLATTEN.urn, common_urns.primitives.GROUP_BY_KEY.urn]),
    )
    (stage,) = [s for s in stages if any(t.spec.payload == translations.IMPULSE_BUFFER for t in s.transforms)]
    for transform in stage.transforms:
        if transform.spec.urn in (bundle_processor.DATA_INPUT_URN, bundle_processor.DATA_OUTPUT_URN):
            (collection,) = [*transform.outputs.values(), *transform.inputs.values()]
            port = beam_fn_api_pb2.RemoteGrpcPort(coder_id=context.data_channel_coders[collection])
            transform.spec.payload = port.SerializeToString()
    components = context.components
    return beam_fn_api_pb2.ProcessBundleDescriptor(
        id="bench",
        transforms={transform.unique_name: transform for transform in stage.transforms},
        pcollections=dict(components.pcollections),
        coders=dict(components.coders),
        windowing_strategies=dict(components.windowing_strategies),
        environments=dict(components.environments),
    )
