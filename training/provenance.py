"""Where a model comes from: the commit of the code and the packages it needs."""

import os
import subprocess
from importlib.metadata import version
from pathlib import Path

# What loading and predicting import. MLflow's own inference runs the model in a subprocess, adds whatever happens to be
# imported there (pytest, for one) and takes seconds.
MODEL_PACKAGES = ("mlflow", "numpy", "pandas", "scikit-learn", "scipy", "skops")

COMMIT_VARIABLE = "TRAINING_GIT_COMMIT"


def model_requirements() -> list[str]:
    """Return one exact ``name==version`` pin per package that a logged model needs."""
    return [f"{name}=={version(name)}" for name in MODEL_PACKAGES]


def git_commit(directory: Path = Path(__file__).parent) -> str | None:
    """Return the commit of the code, or None if it is unknown.

    TRAINING_GIT_COMMIT comes first: an image holds the package without its repository.
    """
    if commit := os.environ.get(COMMIT_VARIABLE, "").strip():
        return commit
    # A copy of the package inside somebody else's repository must not be given that repository's commit.
    if _git(directory, "ls-files", "--error-unmatch", Path(__file__).name) is None:
        return None
    return _git(directory, "rev-parse", "HEAD")


def _git(directory: Path, *arguments: str) -> str | None:
    command = ["git", "-C", str(directory), *arguments]
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)  # noqa: S603
    except (OSError, subprocess.SubprocessError):
        return None
    return result.stdout.strip() or None if result.returncode == 0 else None
