"""Times at which timers fire."""

from apache_beam.utils.timestamp import Timestamp


def timer_at(micros: int) -> Timestamp:
    """Return the time of a timer that fires when the watermark has passed `micros`, microseconds since the epoch.

    It is rounded up to milliseconds, the resolution of Dataflow's timers: rounded down, a timer would fire before its
    session or silence is due, and be set again for the same time forever.
    """
    return Timestamp(micros=-(-micros // 1000) * 1000)
