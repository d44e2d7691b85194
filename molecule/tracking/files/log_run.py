"""What a data scientist does with the plain MLflow client; the last line of output is JSON."""

# ruff: noqa: T201 (the test reads its output)
import json
import os
from pathlib import Path

import mlflow

SIZE = 3 * 1024 * 1024
KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SHARED_CREDENTIALS_FILE", "MLFLOW_S3_ENDPOINT_URL")

mlflow.set_experiment("molecule")
with mlflow.start_run() as run:
    mlflow.log_param("depth", 3)
    mlflow.log_metrics({"accuracy": 0.5}, step=1)
    mlflow.log_metrics({"accuracy": 0.75}, step=2)
    mlflow.log_text("written by a client", "note.txt")
    content = os.urandom(SIZE)
    Path("/tmp/big.bin").write_bytes(content)
    mlflow.log_artifact("/tmp/big.bin", "deep/er")

read = mlflow.MlflowClient().get_run(run.info.run_id)
copy = Path(mlflow.artifacts.download_artifacts(run_id=run.info.run_id, artifact_path="deep/er/big.bin"))
assert copy.read_bytes() == content
print(
    json.dumps(
        {
            "run": run.info.run_id,
            "experiment": run.info.experiment_id,
            "uri": read.info.artifact_uri,
            "note": mlflow.artifacts.load_text(f"{read.info.artifact_uri}/note.txt"),
            "metrics": read.data.metrics,
            "keys": [name for name in KEYS if name in os.environ],
        }
    )
)
