"""The engine `api` behind the edge: what a program sees of it."""

from __future__ import annotations

import base64
import json
import re

import pytest
from clients import Clients
from instance import Instance

MODELS = "http://localhost:8000/models"
FLOWER = {"sepal length (cm)": 6.3, "sepal width (cm)": 3.3, "petal length (cm)": 6.0, "petal width (cm)": 2.5}
# A request without a content type, which clients of a higher level cannot be made to send.
UNTYPED = """
import http.client
connection = http.client.HTTPConnection("localhost", 8000)
connection.putrequest("POST", "/models/flowers/invocations")
connection.putheader("Content-Length", "2")
connection.endheaders(b"{}")
print(connection.getresponse().status)
"""

Digits = tuple[list[list[int]], list[int]]


@pytest.mark.parametrize(
    "url", ["http://localhost:9201/predict", "http://localhost:8000/predict", f"{MODELS}/digits/predict"]
)
def test_digits_answer_with_class_and_probabilities(instance: Instance, digits: Digits, url: str) -> None:
    image, label = digits[0][0], digits[1][0]
    nested = [image[row * 28 : row * 28 + 28] for row in range(28)]
    flat, square = (instance.http(url, {"image": form}).json() for form in (image, nested))
    assert flat == square
    assert (flat["prediction"], flat["model"], flat["version"]) == (label, "digits", "1")
    assert list(flat["probabilities"]) == list("0123456789")
    assert sum(flat["probabilities"].values()) == pytest.approx(1)


def test_a_picture_is_read(instance: Instance, clients: Clients, digits: Digits) -> None:
    picture = clients.python(f"""
import base64, io, json
from PIL import Image
image = Image.new("L", (28, 28)); image.putdata({digits[0][0]})
file = io.BytesIO(); image.save(file, "PNG")
print(json.dumps(base64.b64encode(file.getvalue()).decode()))
""")
    assert base64.b64decode(picture).startswith(b"\x89PNG")
    answer = instance.http("http://localhost:9201/predict", {"image": picture})
    assert answer.json()["prediction"] == digits[1][0], answer.body


def test_one_record_and_a_list_of_them(instance: Instance) -> None:
    one = instance.http(f"{MODELS}/flowers/predict", FLOWER).json()
    two = instance.http(f"{MODELS}/flowers/predict", [FLOWER, FLOWER]).json()
    assert (one["prediction"], one["label"]) == (2, "virginica")
    assert two["predictions"] == [{key: one[key] for key in ("prediction", "probabilities", "label")}] * 2


def test_every_offending_field_is_named(instance: Instance) -> None:
    wrong = instance.http(f"{MODELS}/flowers/predict", {**FLOWER, "petal width (cm)": "wide", "sepal width (cm)": None})
    assert wrong.status == 422
    assert {tuple(item["loc"]) for item in wrong.json()["detail"]} == {
        ("body", "petal width (cm)"),
        ("body", "sepal width (cm)"),
    }


def test_the_documented_differences_from_the_stock_server(instance: Instance) -> None:
    body = {"dataframe_records": [{**FLOWER, "petal width (cm)": "wide"}]}
    strict, stock = (instance.http(f"{MODELS}/{name}/invocations", body) for name in ("flowers", "iris"))
    assert (strict.status, stock.status) == (422, 400)
    for word in ("Traceback", "stack_trace", "/opt/", "wide", "double (required)"):
        assert word not in strict.body
    nameless = instance.sh(f"python3 -c '{UNTYPED}'").strip()
    assert nameless == "415"


def test_the_open_inference_protocol(instance: Instance) -> None:
    base = f"{MODELS}/flowers/v2"
    assert instance.http(f"{base}/health/ready").status == 200
    assert instance.http(f"{base}/models/flowers").json()["versions"] == ["1"]
    inputs = [{"name": name, "shape": [1], "datatype": "FP64", "data": [value]} for name, value in FLOWER.items()]
    answer = instance.http(f"{base}/models/flowers/infer", {"id": "a1", "inputs": inputs}).json()
    assert (answer["id"], answer["model_version"]) == ("a1", "1")
    assert answer["outputs"][0]["data"] == [2]


def test_metadata_says_what_is_served_and_how(instance: Instance) -> None:
    known = instance.http(f"{MODELS}/digits/metadata").json()
    assert (known["name"], known["version"], known["aliases"], known["engine"]) == ("digits", "1", ["champion"], "api")
    assert known["predictor"]["kind"] == "compiled"
    assert known["metrics"]["accuracy"] >= 0.96
    images = json.loads(
        instance.sh("docker image inspect --format '{{json .Id}}' $(docker images -q 'mlflow-anywhere/model-digits')")
    )
    assert known["image"] == images


def test_metrics_count_what_was_asked(instance: Instance) -> None:
    def count() -> float:
        text = instance.http(f"{MODELS}/flowers/metrics").body
        found = re.findall(
            r'^serving_requests_total\{[^}]*endpoint="predict"[^}]*status="200"[^}]*\} (\S+)$', text, re.MULTILINE
        )
        return sum(map(float, found))

    before = count()
    instance.http(f"{MODELS}/flowers/predict", FLOWER)
    assert count() == before + 1


def test_a_request_id_is_kept_and_logged_by_the_edge(instance: Instance) -> None:
    answer = instance.http(f"{MODELS}/flowers/predict", FLOWER, headers={"X-Request-Id": "order-66.a"})
    assert {name.lower(): value for name, value in answer.headers.items()}["x-request-id"] == "order-66.a"
    assert '"order-66.a"' in instance.logs("mlflow-anywhere-edge")
    made = instance.http(f"{MODELS}/flowers/predict", FLOWER, headers={"X-Request-Id": "not one; an id"})
    assert " " not in {name.lower(): value for name, value in made.headers.items()}["x-request-id"]


def test_the_stock_client_works_unmodified(clients: Clients) -> None:
    answer = clients.python("""
import json
import numpy as np
from mlflow.pyfunc.scoring_server.client import ScoringServerClient
client = ScoringServerClient("localhost", 9201)
client.ping()
print(json.dumps(client.invoke(np.zeros((3, 784), np.float32)).get_predictions().shape[0]))
""")
    assert answer == 3
