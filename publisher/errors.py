"""The root of the exceptions that the publisher raises."""


class PublisherError(Exception):
    """Base class of every exception class that the publisher defines; its container does not hold the pipeline."""
