"""Fixtures for the tests of the double and the inventory of droplets."""

from tests.cloud.fixtures import cloud, naps, run, url

__all__ = ["cloud", "naps", "run", "url"]
