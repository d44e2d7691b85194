"""Programs on the machine of an instance, as its users run them: the plain MLflow client, SQL, a browser."""

from __future__ import annotations

import json
import subprocess
from typing import Any

from instance import Instance

RUNTIME = "mlflow-anywhere/runtime:3.17.2"


class Clients:
    """Programs on the machine of an instance, as its users run them."""

    def __init__(self, instance: Instance) -> None:
        """Take the instance."""
        self.instance = instance

    def python(self, program: str, **environment: str) -> Any:
        """Run a Python program with the plain MLflow client on the host's own network; its last line of output is JSON."""
        settings = "".join(f" --env {name}='{value}'" for name, value in environment.items())
        output = self.instance.sh(
            f"docker run --rm --interactive --network host --env MLFLOW_TRACKING_URI=http://localhost:5000{settings} "
            f"{RUNTIME} python - <<'END_OF_PROGRAM' 2>/tmp/client.log || {{ cat /tmp/client.log >&2; exit 1; }}\n{program}\nEND_OF_PROGRAM"
        )
        return json.loads(output.strip().splitlines()[-1])

    def sql(self, query: str) -> list[str]:
        """Rows of a query to the metadata database."""
        command = f'docker exec mlflow-anywhere-postgres psql -qtAX -h /run/postgresql -U mlflow -d mlflow -c "{query}"'
        return self.instance.sh(command).split("\n")[:-1]

    def browse(self, url: str) -> str:
        """The page as a browser on this machine has built it, its scripts run."""
        command = ["docker", "run", "--rm", "--network", f"container:{self.instance.name}", "ma-instance/browser:13"]
        page = subprocess.run(
            [*command, "--virtual-time-budget=60000", "--timeout=60000", "--dump-dom", url],
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert page.returncode == 0, page.stderr
        return page.stdout
