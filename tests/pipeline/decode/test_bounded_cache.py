"""A bounded cache makes each value once, and stays small."""

import pytest

from pipeline.decode.bounded_cache import BoundedCache


def test_cache_makes_each_value_once_while_it_has_room():
    made = []
    cache = BoundedCache(lambda key: made.append(key) or -key, full=1_000)
    assert [cache[key] for _ in range(2) for key in range(1_000)] == [-key for _ in range(2) for key in range(1_000)]
    assert made == list(range(1_000))


def test_full_cache_is_emptied_before_it_takes_another_value():
    cache = BoundedCache(str, full=1_000)
    for key in range(1_001):
        assert cache[key] == str(key)
    assert cache == {1_000: "1000"}


def test_cache_does_not_keep_a_failure():
    cache = BoundedCache(int, full=1_000)
    for _ in range(2):
        with pytest.raises(ValueError, match="invalid literal"):
            cache["x"]
    assert cache == {}
