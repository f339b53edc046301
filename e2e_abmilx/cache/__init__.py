"""Slides → patch stores."""

from e2e_abmilx.cache.caching import CacheError, cache_slides, verify

__all__ = ["CacheError", "cache_slides", "verify"]
