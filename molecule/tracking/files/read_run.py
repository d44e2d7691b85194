"""Read a run of which only the id is known, as a colleague of its author does."""

# ruff: noqa: T201 (the test reads its output)
import json
import sys

import mlflow

run = mlflow.get_run(sys.argv[1])
print(
    json.dumps({"metrics": run.data.metrics, "note": mlflow.artifacts.load_text(f"{run.info.artifact_uri}/note.txt")})
)
