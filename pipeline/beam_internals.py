"""All uses of private parts of Apache Beam; a test checks that no other module of the pipeline has one.

When Beam is upgraded, check this module and its tests.

| use | why | what would replace it |
| --- | --- | --- |
| `PCollection._windowing` | windows of a ParDo's outputs without a step of their own | an argument of `ParDo` |
| `ReadFromPubSub.expand_continued` | Beam passes every message through a step for lineage | an option to leave it out |
| `PubsubMessage._from_proto_str` | the step above also parses messages | a public parser |
"""

from typing import Any

import apache_beam as beam
from apache_beam.io.gcp.pubsub import PubsubMessage, ReadFromPubSub


def declare_windowing(elements: beam.PCollection[Any], windowing: beam.Windowing) -> beam.PCollection[Any]:
    """Declare the windows in which a ParDo emits its elements, and return the elements.

    This replaces WindowInto, which is a separate step and costs each bundle tens of microseconds. A transform can
    declare its windows by `get_windowing`, as Beam's Reshuffle does, but then they are those of all its outputs.
    """
    elements._windowing = windowing
    return elements


class ReadFromPubSubWithoutLineage(ReadFromPubSub):
    """ReadFromPubSub without the step that passes every message on and reports, with the first one, its source.

    That step took about an eighth of the worker's time, in bundles of ten messages and of a thousand.
    `source.ReadMessages` reports the source with a single element instead.
    """

    def expand_continued(self, messages: beam.PCollection[Any]) -> beam.PCollection[Any]:
        """Return the messages that the service's own read yields, parsed if they have attributes."""
        if not self.with_attributes:
            return messages
        return messages | "ParseMessages" >> beam.Map(PubsubMessage._from_proto_str).with_output_types(PubsubMessage)
