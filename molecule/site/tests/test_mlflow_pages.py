"""Every page of MLflow's UI through the edge: nothing fails, nothing is red, and what is off is not offered."""

from __future__ import annotations

from typing import Any

from browser import Browser, in_instance
from clients import Clients
from instance import Instance

MLFLOW = "http://localhost:5000/"
# Something to see on every page. Last line of output: what the addresses below need.
WORK = """
import json, os
os.environ["MLFLOW_ENABLE_ASYNC_TRACE_LOGGING"] = "false"
import mlflow, pandas as pd
experiment = mlflow.set_experiment("every page").experiment_id
runs = []
for depth in (2, 3):
    with mlflow.start_run() as run:
        mlflow.log_params({"depth": depth})
        for step in range(3):
            mlflow.log_metrics({"loss": depth / (step + 1)}, step=step)
        mlflow.log_text("a note", "note.txt")
        mlflow.log_dict({"depth": depth}, "depth.json")
        mlflow.log_input(mlflow.data.from_pandas(pd.DataFrame({"x": [1.0, 2.0]}), name="rows"), context="training")
        model = mlflow.initialize_logged_model("tree")
        mlflow.finalize_logged_model(model.model_id, "READY")
        runs.append(run.info.run_id)

@mlflow.trace
def answer(question):
    mlflow.update_current_trace(metadata={"mlflow.trace.session": "s1"})
    return question.upper()

answer("why")
trace = mlflow.get_last_active_trace_id()
prompt = mlflow.genai.register_prompt("greeting", "Hello {{name}}")
dataset = mlflow.genai.datasets.create_dataset(name="questions", experiment_id=[experiment])
dataset.merge_records([{"inputs": {"question": "why"}, "expectations": {"expected_response": "WHY"}}])
mlflow.genai.register_prompt("greeting", "Good day {{name}}")
print(json.dumps({"e": experiment, "r": runs[0], "other": runs[1], "t": trace, "m": model.model_id, "d": dataset.dataset_id}))
"""
EXPERIMENT = (
    "runs runs?compareRunsMode=CHART runs?compareRunsMode=ARTIFACT traces traces/{t} traces?selectedEvaluationId={t} chat-sessions chat-sessions/s1 datasets "
    "datasets/{d} evaluation-runs evaluation-runs/{r} judges models models/{m} models/{m}/artifacts models/{m}/traces overview overview/usage "
    "overview/quality overview/tool-calls playground prompts prompts/greeting review-queue"
)
RUN = "model-metrics system-metrics traces artifacts artifacts/note.txt artifacts/depth.json evaluations"
PAGES = [
    *("", "experiments", "experiments/{e}", "experiments/0/runs", "experiments/0/traces", "experiments/{e}/runs/{r}"),
    *(f"experiments/{{e}}/{page}" for page in EXPERIMENT.split()),
    *(f"experiments/{{e}}/runs/{{r}}/{page}" for page in RUN.split()),
    'compare-runs?runs=["{r}","{other}"]&experiments=["{e}"]',
    'compare-experiments/s?experiments=["0","{e}"]',
    (
        'metric?runs=["{r}","{other}"]&metric="loss"&experiments=["{e}"]&plot_metric_keys=["loss"]&plot_layout={{}}&x_axis="relative"'
        '&y_axis_scale="linear"&line_smoothness=1&show_point=false&deselected_curves=[]&last_linear_y_axis_range=[]'
    ),
    *(
        "models",
        "models/iris",
        "models/iris/versions/1",
        "models/digits/versions/1",
        "prompts",
        "prompts/greeting",
        "mcp-registry",
    ),
    *("settings", "settings/general", "settings/llm-connections", "settings/webhooks"),
    *("gateway", "gateway/api-keys", "gateway/budgets", "gateway/usage"),
]
# Hints of a library and of the browser to MLflow's own programmers, and a film of the empty list of traces, which is at mlflow.org and not here.
KNOWN = (
    "AG Grid: since",
    "ResizeObserver loop",
    "software WebGL",
    "GL Driver Message",
    # A metric's page looks its own chart up by its address.
    "is not a valid selector",
    "of chart should be greater than 0",
    "tracing-top.mp4",
)
# What a person would see of a refused request, or of a part that failed.
RED = "PERMISSION_DENIED|not reachable|Failed to|went wrong|NOT_IMPLEMENTED|feature is disabled|ENDPOINT_NOT_FOUND|INTERNAL_ERROR"


def test_every_page_of_mlflow_is_without_complaint(instance: Instance, clients: Clients) -> None:
    work: dict[str, Any] = clients.python(WORK)
    wrong: dict[str, list[str]] = {}
    with Browser(in_instance(instance.name)) as browser:
        browser.screen(1400, 900)
        for page in PAGES:
            address = page.format(**work)
            browser.open(f"{MLFLOW}#/{address}")
            browser.until("document.querySelector('main, [role=main], #root')?.innerText.length > 40")
            browser.quiet()
            red = browser.evaluate(f"document.body.innerText.match(/.*({RED}).*/g) ?? []")
            shown = browser.evaluate(
                "[...document.querySelectorAll('[data-assistant-ui]')].filter(e => e.checkVisibility()).length"
            )
            complaints = [text for text in [*browser.complaints, *red] if not any(known in text for known in KNOWN)]
            found = [*complaints, *(["the assistant is shown"] if shown else [])]
            browser.complaints.clear()
            if found:
                wrong[address] = found
    assert wrong == {}
