"""A device with very many sessions: the state that holds them by the page, and the work that each of them makes."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.aggregate.runs import insert
from pipeline.aggregate.sums import SECOND, Sums, add_sums
from pipeline.windows import session_state
from pipeline.windows.session import SessionIntervals, _EmitSessions
from pipeline.windows.session_state import BundleRuns, Session, SortedSessions, join_by
from tests.pipeline.conftest import NOON, StateCell, Stream, Timers, drained, message

GAP = 10
JOIN = join_by(add_sums)


def session(first: int, last: int, **changes: Any) -> Session:
    return Session(first, last, {"Temp": [float(first), 1]}, **changes)


def contents(sessions: SortedSessions) -> list[Session]:
    return [one for page in sessions.pages for one in session_state._decode(page.encoded)]


firsts = st.integers(0, 40).map(lambda n: n * 5)
spans = st.tuples(firsts, st.integers(0, 30)).map(lambda span: (span[0], sum(span)))


class TestSortedSessions:
    @settings(max_examples=500, deadline=None, derandomize=True)
    @given(steps=st.lists(spans | firsts, max_size=40), page=st.integers(1, 4))
    def test_hold_what_one_list_does_in_any_order_of_insertions_and_removals(self, steps, page):
        paged, plain = SortedSessions([], GAP, JOIN), []
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(session_state, "_PAGE", page)
            for step in steps:
                if isinstance(step, tuple):
                    expected = plain[insert(plain, session(*step), GAP, JOIN)]
                    assert paged.insert(session(*step)) == expected
                else:
                    # Most often the begin of no session: in the middle of one, or between two.
                    begins = [one.first for one in plain]
                    expected = plain.pop(begins.index(step)) if step in begins else None
                    assert paged.pop(step) == expected
                assert contents(paged) == plain
                for one in paged.pages:
                    held = session_state._decode(one.encoded)
                    assert 1 <= len(held) <= page
                    assert (one.first, one.last) == (held[0].first, held[-1].last)

    def test_join_sessions_on_both_sides_of_the_bounds_of_pages(self, monkeypatch):
        monkeypatch.setattr(session_state, "_PAGE", 1)
        sessions = SortedSessions([], GAP, JOIN)
        for first in (0, 20, 40, 60):
            sessions.insert(session(first, first))
        assert len(sessions.pages) == 4
        joined = sessions.insert(Session(11, 49, {"Temp": [100.0, 2]}, revision=3, rows=(7,)))
        assert joined == Session(11, 49, {"Temp": [160.0, 4]}, revision=3, rows=(7,))
        assert contents(sessions) == [session(0, 0), joined, session(60, 60)]

    def test_change_neither_the_pages_they_are_given_nor_the_sessions_joined(self):
        before = SortedSessions([], GAP, JOIN)
        before.insert(session(0, 0))
        pages, new = before.pages, session(5, 5)
        joined = SortedSessions(pages, GAP, JOIN).insert(new)
        assert joined.sums == {"Temp": [5.0, 2]}
        assert contents(before) == [session(0, 0)]
        assert before.pages is pages
        assert new == session(5, 5)


class TestManySessionsOfOneDevice:
    COUNT = 2_000

    def elements(self) -> list[tuple[str, BundleRuns]]:
        intervals = SessionIntervals(GAP, 5, 3600, False, by_device=True)
        readings = [((NOON + n * 100) * SECOND, "a", {"Temp": float(n)}) for n in range(self.COUNT)]
        return [element.value for element in drained(intervals, readings)]

    def emitted(self, emit: Any, state: StateCell, timers: Timers) -> list[tuple[float, Sums]]:
        return [
            (interval.row_time / SECOND - NOON, interval.sums_of["a"])
            for tag, due in timers.fire()
            for interval in emit.emit_due("a", tag, due, state, timers)
        ]

    def test_of_one_bundle_are_one_element_and_read_and_write_the_state_once(self):
        emit: Any = SessionIntervals(GAP, 5, 3600, False, by_device=True).emit().fn
        state, timers = StateCell(), Timers()
        [element] = self.elements()
        assert emit.process(element, state, timers) == []
        assert (state.reads, state.writes) == (1, 1)
        assert len(timers.times) == self.COUNT
        assert self.emitted(emit, state, timers) == [
            (n * 100 + GAP, {"Temp": [float(n), 1]}) for n in range(self.COUNT)
        ]
        assert state.value.pages == []

    def test_decode_and_encode_no_more_than_a_page_for_each_row(self, monkeypatch):
        work = []
        decode, encode = session_state._decode, session_state._encode
        monkeypatch.setattr(session_state, "_decode", lambda page: work.append(found := decode(page)) or found)
        monkeypatch.setattr(session_state, "_encode", lambda page: work.append(page) or encode(page))
        emit: Any = SessionIntervals(GAP, 5, 3600, False, by_device=True).emit().fn
        state, timers = StateCell(), Timers()
        for element in self.elements():
            emit.process(element, state, timers)
        assert len(self.emitted(emit, state, timers)) == self.COUNT
        # Once in the bundle and once for its row, a session is decoded and encoded with its page.
        assert sum(map(len, work)) <= 4 * session_state._PAGE * self.COUNT

    @pytest.mark.parametrize("flags", [(), ("--on_late=revise",)], ids=["dead_letter", "revise"])
    def test_are_emitted_in_a_few_bundles_when_the_watermark_passes_all_of_them(self, run_graph, monkeypatch, flags):
        bundles = []
        monkeypatch.setattr(_EmitSessions, "finish_bundle", lambda emit: bundles.append(1), raising=False)
        stream = Stream().add(*[message(n * 100, Temp=n, Device="a") for n in range(200)]).watermark(1e6)
        flags = ("--window=session", "--session_gap=10s", "--group_by_device=true", "--sensors=Temp", *flags)
        rows, letters = run_graph(stream, *flags)
        assert [row["Temp"] for row in rows] == list(range(200))
        assert letters == []
        assert len(bundles) < 20
