"""The root of the exceptions that Sensor Stream raises."""


class SensorStreamError(Exception):
    """Base class of every exception class that Sensor Stream defines.

    The publisher's container does not hold the pipeline: its exceptions derive from `publisher.errors.PublisherError`.
    """
