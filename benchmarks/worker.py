"""Beam's own worker, fed in memory: the boundary at which Dataflow hands bundles over and takes the results."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

import apache_beam as beam
from apache_beam.coders.coder_impl import create_InputStream
from apache_beam.io.gcp.pubsub import ReadFromPubSub
from apache_beam.portability import common_urns
from apache_beam.portability.api import beam_fn_api_pb2, beam_runner_api_pb2
from apache_beam.runners.pipeline_context import PipelineContext
from apache_beam.runners.portability.fn_api_runner import translations
from apache_beam.runners.worker import bundle_processor, data_plane
from apache_beam.utils.windowed_value import PaneInfo, PaneInfoTiming, WindowedValue

Data = beam_fn_api_pb2.Elements.Data

_BUNDLE = "bundle"  # the only instruction there ever is
_IMPULSE = translations.IMPULSE_BUFFER.decode()


class Source(beam.PTransform):
    """Message bytes as ReadFromPubSub yields them, with its own steps; `Worker` feeds the input of these."""

    def __init__(self, read: type[ReadFromPubSub] = ReadFromPubSub):
        super().__init__()
        self._read = read(subscription="projects/bench-project/subscriptions/bench")

    def expand(self, begin: Any) -> beam.PCollection:
        """Apply the read."""
        fed = begin | beam.Impulse()
        fed.element_type = bytes
        return self._read.expand_continued(fed)


class Worker:
    """Runs bundles through the first fused stage of a pipeline, up to its first shuffle, and then the stages after it.

    Combiners are not lifted, and steps with state follow a shuffle, both as on Dataflow in streaming.

    Args:
      build: adds the steps to a pipeline, beginning with a `Source`.
    """

    def __init__(self, build: Callable[[beam.Pipeline], None]):
        pipeline = beam.Pipeline()
        build(pipeline)
        self._stages = _stages(pipeline.to_runner_api())
        [self._first] = [stage for stage in self._stages if stage.reads == _IMPULSE]
        # Encoding a bundle as the runner sends it; and processing one, with the report of its metrics.
        self.encode, self.run = self._first.encode, self._first.run

    def decode(self, left: Iterable[tuple[str, bytes]]) -> Iterator[tuple[str, WindowedValue]]:
        """Yield (the step that wrote it, element) for every element that left the worker."""
        return ((step, element) for step, data in left for element in self._first.decode(step, data))

    def after(self, left: Iterable[tuple[str, bytes]]) -> list[Callable[[], Any]]:
        """Return the later stages as functions, fed with the elements that left the first, as if all windows fired."""
        waiting: dict[str, list[Any]] = defaultdict(list)
        calls: list[Callable[[], Any]] = []
        for stage in self._stages:
            if elements := waiting[stage.reads]:
                grouped = _group(elements) if stage.reads.startswith("group:") else elements
                call = partial(stage.run, stage.encode(grouped))
                left = call()
                if not stage.idle:
                    calls.append(call)
            elif stage is not self._first:
                continue
            for step, data in left:
                waiting[stage.writes[step]] += stage.decode(step, data)
        return calls


class _Stage:
    """One fused stage, fed and emptied in memory.

    Attributes:
      reads: what its elements are called by the runner.
      writes: by the step that writes them, what its results are called.
      idle: whether it only hands elements on, as where the runner ends a flatten; Dataflow has no such stage.
    """

    def __init__(self, context: Any, stage: Any):
        self.writes: dict[str, str] = {}
        self._coders: dict[str, Any] = {}
        coders = PipelineContext(context.components).coders
        for transform in stage.transforms:
            if transform.spec.urn not in (bundle_processor.DATA_INPUT_URN, bundle_processor.DATA_OUTPUT_URN):
                continue
            name, buffer = transform.unique_name, transform.spec.payload.decode()
            [collection] = [*transform.outputs.values(), *transform.inputs.values()]
            port = beam_fn_api_pb2.RemoteGrpcPort(coder_id=context.data_channel_coders[collection])
            transform.spec.payload = port.SerializeToString()
            self._coders[name] = coders.get_by_id(port.coder_id).get_impl()
            if transform.spec.urn == bundle_processor.DATA_INPUT_URN:
                self._input, self.reads = name, buffer
            else:
                self.writes[name] = buffer
        self.idle = len(self._coders) == len(stage.transforms)
        kinds = ("pcollections", "coders", "windowing_strategies", "environments")
        components = {kind: dict(getattr(context.components, kind)) for kind in kinds}
        descriptor = beam_fn_api_pb2.ProcessBundleDescriptor(
            id="bench", transforms={transform.unique_name: transform for transform in stage.transforms}, **components
        )
        self._channel = data_plane.InMemoryDataChannel()
        self._processor = bundle_processor.BundleProcessor(
            frozenset(), descriptor, None, data_plane.InMemoryDataChannelFactory(self._channel)
        )

    def encode(self, elements: Iterable[WindowedValue]) -> Data:
        stream = data_plane.OutputStream()
        for element in elements:
            self._coders[self._input].encode_to_stream(element, stream, True)
        return Data(instruction_id=_BUNDLE, transform_id=self._input, data=stream.get())

    def run(self, bundle: Data) -> list[tuple[str, bytes]]:
        self._channel._inputs.append(bundle)
        self._processor.process_bundle(_BUNDLE)
        self._processor.monitoring_infos()
        self._processor.reset()
        return [(data.transform_id, data.data) for data in self._channel.inverse().input_elements(_BUNDLE, ())]

    def decode(self, step: str, data: bytes) -> Iterator[WindowedValue]:
        stream = create_InputStream(data)
        while stream.size() > 0:
            yield self._coders[step].decode_from_stream(stream, True)


def _group(elements: Iterable[WindowedValue]) -> Iterator[WindowedValue]:
    """Group as the service does, each key and window once."""
    groups = defaultdict(list)
    for element in elements:
        key, value = element.value
        for window in element.windows:
            groups[key, window].append(value)
    pane = PaneInfo(is_first=True, is_last=True, timing=PaneInfoTiming.ON_TIME, index=0, nonspeculative_index=0)
    for (key, window), values in groups.items():
        yield WindowedValue((key, values), window.max_timestamp(), (window,), pane)


def _cut_before_state(stages: Iterable[Any], context: Any) -> Iterator[Any]:
    """Prevent the fusion of a stage with state to the stage before it."""
    for stage in stages:
        payloads = (one.spec.payload for one in stage.transforms if one.spec.urn == common_urns.primitives.PAR_DO.urn)
        stage.forced_root = any(beam_runner_api_pb2.ParDoPayload.FromString(one).state_specs for one in payloads)
        yield stage


def _stages(proto: beam_runner_api_pb2.Pipeline) -> list[_Stage]:
    """Fuse as Beam's own runner does, and return the stages in order."""
    for transform in proto.components.transforms.values():
        if transform.spec.urn == common_urns.composites.COMBINE_PER_KEY.urn:
            transform.spec.urn = ""  # an ordinary composite then: a grouping, and a combine after it
    phases = [
        translations.annotate_downstream_side_inputs,
        translations.fix_side_input_pcoll_coders,
        # Before groupings get their coders, else it adds a step that changes coders, as Dataflow does not.
        translations.sink_flattens,
        translations.expand_gbk,
        _cut_before_state,
        translations.greedily_fuse,
        translations.impulse_to_input,
        translations.sort_stages,
        translations.populate_data_channel_coders,
    ]
    known = frozenset([common_urns.primitives.FLATTEN.urn, common_urns.primitives.GROUP_BY_KEY.urn])
    context, stages = translations.create_and_optimize_stages(proto, phases=phases, known_runner_urns=known)
    return [_Stage(context, stage) for stage in stages]
