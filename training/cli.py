"""The command line: ``python -m training iris`` and ``python -m training digits``.

Progress goes to stderr; stdout holds only the result, a short summary or with ``--json`` one JSON document.
"""

import argparse
import contextlib
import dataclasses
import json
import logging
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, NoReturn, TextIO
from urllib.parse import unquote, urlsplit, urlunsplit

from training.errors import TrainingError, UsageError

if TYPE_CHECKING:
    from training.run import Options, Outcome, Session
    from training.tasks import Task

LOCAL_SERVER = "http://127.0.0.1:5000"
INTERRUPTED = 130
TERMINATED = 143

EXIT_CODES = """\
exit codes:
  0    the version passed; it is the champion now, or today's champion is at least as good, or --no-promote was given
  1    an error that the program did not expect
  2    an option is wrong
  3    the data set is missing, damaged or could not be downloaded
  4    the tracking server could not be reached or refused a request
  5    the version was registered and failed the check on held-out data
  6    the version passed, but today's champion could not be loaded or scored; nothing was promoted
  130  interrupted, 143 terminated; a version that was already registered stays validation_status=pending

environment:
  MLFLOW_TRACKING_URI, MLFLOW_TRACKING_USERNAME, MLFLOW_TRACKING_PASSWORD and all others of MLflow;
  TRAINING_UI_URL as --ui-url; TRAINING_GIT_COMMIT: commit to record when there is no git repository
"""

log = logging.getLogger("training")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code (see EXIT_CODES)."""
    options = build_parser().parse_args(arguments)
    _log_to_stderr()
    signal.signal(signal.SIGTERM, _terminate)
    try:
        # MLflow prints links to stdout; there they would break the JSON document.
        with contextlib.redirect_stdout(sys.stderr):
            session = _prepare(options)
            code = _run(session)
    except UsageError as error:
        log.error("error: %s", error)  # noqa: TRY400 - a message for the user, not a trace
        return error.exit_code
    except KeyboardInterrupt:
        log.error("interrupted")  # noqa: TRY400 - nothing went wrong
        return INTERRUPTED
    _print(session.outcome, sys.stdout, as_json=options.json)
    return code


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    common = argparse.ArgumentParser(add_help=False)
    add = common.add_argument
    add("--tracking-uri", metavar="URI", help="MLflow server or store; default: MLFLOW_TRACKING_URI")
    add("--experiment", metavar="NAME", help="experiment to log to; default: the name of the task")
    add("--model-name", metavar="NAME", help="registered model, e.g. prod.security.digits; default: the task's name")
    add("--run-name", metavar="NAME", help="name of the run; default: MLflow makes one up")
    add("--threshold", metavar="SHARE", type=float, help="lowest held-out accuracy to pass, 0..1; default: the task's")
    add("--no-promote", action="store_true", help="register and check, but leave the alias champion alone")
    add("--ui-url", metavar="URL", help="address of the MLflow UI for links; default: TRAINING_UI_URL, then the server")
    add("--json", action="store_true", help="print one JSON document instead of the summary")

    parser = argparse.ArgumentParser(
        prog="python -m training",
        description="Train a model, log it, register it, check it on held-out data, and promote it if it is the best.",
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="task", required=True, metavar="{iris,digits}")
    commands.add_parser("iris", parents=[common], help="species of an iris flower, logistic regression, named columns")
    digits = commands.add_parser(
        "digits", parents=[common], help="handwritten digits (MNIST, 28x28), neural network, tensor input"
    )
    data = digits.add_mutually_exclusive_group()
    data.add_argument("--data", metavar="DIR", type=Path, help="read MNIST from IDX files in DIR, plain or .gz")
    data.add_argument("--full", action="store_true", help="download all 70,000 images; default: 10,000 inside")
    digits.add_argument(
        "--epochs",
        metavar="N",
        type=int,
        help="passes over the training images; default: 40, with 20,000 images or more 20",
    )
    return parser


def _log_to_stderr() -> None:
    # On our own logger, because basicConfig does nothing where somebody has configured logging before.
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", datefmt="%H:%M:%S"))
    log.handlers[:] = [handler]
    log.setLevel(logging.INFO)
    log.propagate = False


def _prepare(options: argparse.Namespace) -> "Session":
    uri = options.tracking_uri or os.environ.get("MLFLOW_TRACKING_URI", "")
    if not uri.strip():
        # MLflow would quietly write to a file in the current directory, where nobody looks for the model.
        msg = f"no tracking server named; for the local platform: export MLFLOW_TRACKING_URI={LOCAL_SERVER}"
        raise UsageError(msg)
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")

    # After the checks above and inside the command, because importing MLflow takes seconds that --help need not pay.
    import mlflow  # noqa: PLC0415

    from training.run import Session  # noqa: PLC0415

    mlflow.set_tracking_uri(_without_login(uri))
    return Session(_task(options), _options(options))


def _without_login(uri: str) -> str:
    # MLflow prints the address with every run; a login in it belongs into the variables that MLflow has for that.
    parts = urlsplit(uri)
    if parts.scheme not in {"http", "https"} or parts.username is None:
        return uri
    os.environ["MLFLOW_TRACKING_USERNAME"] = unquote(parts.username)
    os.environ["MLFLOW_TRACKING_PASSWORD"] = unquote(parts.password or "")
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def _task(options: argparse.Namespace) -> "Task":
    from training.tasks import DigitsTask, IrisTask  # noqa: PLC0415

    if options.task == "iris":
        return IrisTask()
    return DigitsTask(options.data, full=options.full, epochs=options.epochs)


def _options(options: argparse.Namespace) -> "Options":
    from training.run import Options  # noqa: PLC0415

    return Options(
        experiment=options.experiment,
        model=options.model_name,
        run_name=options.run_name,
        threshold=options.threshold,
        promote=not options.no_promote,
        ui_url=options.ui_url or os.environ.get("TRAINING_UI_URL") or None,
    )


def _run(session: "Session") -> int:
    try:
        session.run()
    except TrainingError as error:
        log.error("error: %s", error)  # noqa: TRY400 - a message for the user, not a trace
        return error.exit_code
    return 0


def _print(outcome: "Outcome", stream: TextIO, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(dataclasses.asdict(outcome), indent=2), file=stream)
    elif outcome.version is not None:
        print(summary(outcome), file=stream)


def summary(outcome: "Outcome") -> str:
    """Return the result in a few lines for a person."""
    value = "not measured" if outcome.value is None else f"{outcome.value:.4f}"
    champion = "none" if outcome.champion_version is None else f"version {outcome.champion_version}"
    lines = {
        "run": outcome.run_url,
        "model": f"{outcome.model} version {outcome.version}",
        "validation": f"{outcome.validation_status}, {outcome.metric} {value}, threshold {outcome.threshold:g}",
        "promoted": f"{'yes' if outcome.promoted else 'no'}, {outcome.reason}",
        "champion": champion,
    }
    return "\n".join(f"{name + ':':<12}{text}" for name, text in lines.items())


def _terminate(_signal: int, _frame: FrameType | None) -> NoReturn:
    # As an exception, so that MLflow closes the run instead of leaving it RUNNING for ever.
    raise SystemExit(TERMINATED)
