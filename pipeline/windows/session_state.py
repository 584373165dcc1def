"""Sessions, as elements and in the state of a device.

A device may have thousands of open sessions, as after an outage, and each of their timers reads and writes the state.
So the state holds sessions in pages, encoded, and only the page that a timer or a reading needs is decoded.
"""

import bisect
import functools
import itertools
from collections.abc import Callable, Sequence

import msgspec

from pipeline.aggregate.buckets import SummedRun
from pipeline.aggregate.runs import FIRST, LAST, Run, insert, touching
from pipeline.aggregate.sums import Sums
from pipeline.coders import MessagePackCoder

# Maximum number of sessions in a page. With a few thousand sessions, decoding one page takes as long as copying the
# other pages.
_PAGE = 64


class Session(SummedRun):
    """A run of readings that ends after a gap without any.

    Attributes:
      revision: the number of the next row written for it.
      rows: the Timestamps of rows already written for it, or for sessions that were joined to it.
      open: whether it holds readings that are in no row yet.
    """

    revision: int = 0
    rows: tuple[int, ...] = ()
    open: bool = True


Join = Callable[[Session, Session], Session]


def join_by(merge: Callable[[Sums, Sums], None]) -> Join:
    """Return a function that returns the session that two are part of; `merge` adds `Sums` to others in place."""
    return functools.partial(_join, merge)


def _join(merge: Callable[[Sums, Sums], None], one: Session, other: Session) -> Session:
    # Neither session is changed, because elements and state must not be mutated.
    sums: Sums = {name: list(components) for name, components in one.sums.items()}
    merge(sums, other.sums)
    first, last = min(one.first, other.first), max(one.last, other.last)
    return Session(first, last, sums, max(one.revision, other.revision), one.rows + other.rows)


class BundleRuns(msgspec.Struct, array_like=True):
    """The runs of a device in one bundle, in order of time, at least a gap apart."""

    runs: list[SummedRun]


class Page(Run):
    """Some sessions in order of time, encoded; from the `first` of the first one to the `last` of the last one."""

    encoded: bytes


class DeviceSessions(msgspec.Struct, array_like=True):
    """The state of a device.

    Attributes:
      pages: its sessions that are open, or whose row may still be revised; in order of time, at least a gap apart.
      final_until: microseconds since the epoch; the latest end of a session whose row cannot change any more.
      late_runs: the number of runs of the device that were too late, so that each gets its own number.
    """

    pages: list[Page] = []
    final_until: int = 0
    late_runs: int = 0


class SortedSessions:
    """Sessions in order of time, at least a gap apart, of which only the pages in use are decoded.

    Args:
      pages: of the state; the list is copied.
      gap: sessions less than this many microseconds apart become one.
      join: returns the session that two are part of.
    """

    def __init__(self, pages: Sequence[Page], gap: int, join: Join):
        self.pages = list(pages)
        self._gap = gap
        self._join = join

    def insert(self, session: Session) -> Session:
        """Insert a session, joined with all sessions that it touches; return the joined session."""
        near = slice(0, 1) if len(self.pages) < 2 else self._near(session)
        sessions = [one for page in self.pages[near] for one in _decode(page.encoded)]
        joined = sessions[insert(sessions, session, self._gap, self._join)]
        self.pages[near] = _pages(sessions)
        return joined

    def _near(self, session: Session) -> slice:
        near = touching(self.pages, session, self._gap)
        if near.start < near.stop:
            return near
        # Between two pages, it becomes part of the one before.
        before = max(near.start - 1, 0)
        return slice(before, before + 1)

    def pop(self, first: int) -> Session | None:
        """Remove the session that begins at `first`, microseconds since the epoch, and return it, if there is one."""
        index = bisect.bisect_left(self.pages, first, key=LAST)
        if index == len(self.pages):
            return None
        sessions = _decode(self.pages[index].encoded)
        place = bisect.bisect_left(sessions, first, key=FIRST)
        if place == len(sessions) or sessions[place].first != first:
            return None
        session = sessions.pop(place)
        self.pages[index : index + 1] = _pages(sessions)
        return session


_encode, _decode = msgspec.msgpack.Encoder().encode, msgspec.msgpack.Decoder(list[Session]).decode


def _pages(sessions: list[Session]) -> list[Page]:
    """Return as few pages of about equal size as hold the sessions."""
    if len(sessions) <= _PAGE:
        return [_page(sessions)] if sessions else []
    count = -(-len(sessions) // _PAGE)
    cuts = [len(sessions) * n // count for n in range(count + 1)]
    return [_page(sessions[start:end]) for start, end in itertools.pairwise(cuts)]


def _page(sessions: list[Session]) -> Page:
    return Page(sessions[0].first, sessions[-1].last, _encode(sessions))


class _BundleRunsCoder(MessagePackCoder, urn="sensor_stream:coder:bundle_runs:v1", value_type=BundleRuns):
    pass


class DeviceSessionsCoder(MessagePackCoder, urn="sensor_stream:coder:device_sessions:v1", value_type=DeviceSessions):
    """Encodes the state of a device."""
