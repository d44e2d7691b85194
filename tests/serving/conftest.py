"""Servers that are started once for all tests that only ask them."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, Schema

from bench import small
from bench.live import Live

from .trained import save_function


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A model of each kind, by name."""
    return small.make(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="session")
def trouble(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that does what each row tells it: fail, hang, end its process."""
    signature = ModelSignature(Schema([ColSpec("string", "word")]))
    return save_function(
        tmp_path_factory.mktemp("trouble") / "m", str(Path(__file__).with_name("trouble.py")), signature
    )


@pytest.fixture(scope="session")
def lives(models: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Live]]:
    """A server for each of them; all start at once."""
    logs = tmp_path_factory.mktemp("logs")
    with ExitStack() as stack:
        yield {
            name: stack.enter_context(Live(logs / name, model_path=path, name=name, model=f"prod.{name}", version=3))
            for name, path in models.items()
        }
