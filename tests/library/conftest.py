"""What the tests of several modules need: an account in the cloud, and an engine that listens on a socket."""

from tests.cloud.fixtures import cloud, naps, run, url
from tests.engine import listen

__all__ = ["cloud", "listen", "naps", "run", "url"]
