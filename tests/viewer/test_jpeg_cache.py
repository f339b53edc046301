"""The cache of tiles."""

import random
from concurrent.futures import ThreadPoolExecutor

from e2e_abmilx.viewer.jpeg_cache import JpegCache


def test_the_sum_of_bytes_is_bounded_while_threads_use_it() -> None:
    cache = JpegCache(10_000)
    sizes = {key: 1 + 37 * key % 900 for key in range(200)}

    def use(seed: int) -> None:
        for key in random.Random(seed).choices(range(200), k=2000):
            assert cache.get(key, lambda key=key: bytes(sizes[key])) == bytes(sizes[key])
            assert cache.num_bytes <= 10_000 + 4 * 901  # while others add theirs

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(use, range(4)))
    assert 5000 < cache.num_bytes <= 10_000
    assert cache.num_bytes == sum(map(len, cache._streams.values()))


def test_what_was_used_last_stays() -> None:
    cache, made = JpegCache(30), []

    def get(key: str) -> None:
        cache.get(key, lambda: made.append(key) or bytes(10))

    for key in "abcadab":
        get(key)
    assert made == ["a", "b", "c", "d", "b"]


def test_a_stream_larger_than_the_cache_is_returned_and_not_kept() -> None:
    cache = JpegCache(5)
    assert cache.get("a", lambda: bytes(6)) == bytes(6)
    assert cache.num_bytes == 0
