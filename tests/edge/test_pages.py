"""The catalogue: what clients read about the models, as JSON, as tables and as a page."""

from __future__ import annotations

import json
import shlex
import subprocess
from html.parser import HTMLParser
from typing import Any

import pytest
from ansible.errors import AnsibleError

from .conftest import Render

IRIS: dict[str, Any] = {
    "name": "iris",
    "model": "prod.iris",
    "alias": "champion",
    "version": 3,
    "engine": "mlflow",
    "replicas": 1,
    "run_id": "abc",
    "signature": {"inputs": [{"name": "sepal <b>", "type": "double"}]},
    "input_example": {"dataframe_split": {"columns": ["it's"], "data": [[1.5]]}},
    "metrics": {"accuracy": 0.9733, "loss": float("nan")},
}
DIGITS: dict[str, Any] = {
    "name": "digits",
    "engine": "api",
    "version": "7",
    "port": 9201,
    "predict_example": {"image": [0] * 784},
}


class Page(HTMLParser):
    """Tags, addresses and command lines of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.commands: list[str] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.open.append(tag)
        values = dict(attrs)
        self.links += [value for key in ("href", "src") if (value := values.get(key))]
        assert "style" not in values
        if tag == "code" and "pre" in self.open:
            self.commands.append("")

    def handle_endtag(self, tag: str) -> None:
        while self.open and self.open.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        if self.open[-2:] == ["pre", "code"]:
            self.commands[-1] += data


def test_the_list_of_models(render: Render) -> None:
    iris, digits = json.loads(render("models.json.j2", edge_catalogue=[IRIS, DIGITS]))
    assert {key: iris[key] for key in ("name", "alias", "version", "engine", "replicas")} == {
        "name": "iris",
        "alias": "champion",
        "version": "3",
        "engine": "mlflow",
        "replicas": 1,
    }
    assert iris["urls"]["invocations"] == "/models/iris/invocations"
    assert "predict" not in iris["urls"]
    assert digits["urls"]["predict"] == "/models/digits/predict"
    assert digits["own_url"] == "http://localhost:9201/"
    assert digits["default"]
    assert not iris["default"]
    assert "signature" not in iris


def test_no_models_are_an_empty_list(render: Render) -> None:
    assert json.loads(render("models.json.j2", edge_catalogue=[])) == []


def test_versions(render: Render) -> None:
    lines = render("versions.map.j2", edge_catalogue=[IRIS, {**DIGITS, "version": None}]).splitlines()
    assert [line for line in lines if not line.startswith("#")] == ["iris 3"]


def test_metadata_is_one_line_of_json(render: Render) -> None:
    text = render("metadata.map.j2", edge_catalogue=[{**IRIS, "signature": {"note": "two\nlines"}}])
    (line,) = [line for line in text.splitlines() if line and not line.startswith("#")]
    name, _, body = line.partition(" ")
    assert name == "iris"
    metadata = json.loads(body)
    assert metadata["run_id"] == "abc"
    assert metadata["signature"] == {"note": "two\nlines"}
    assert metadata["metrics"] == {"accuracy": 0.9733, "loss": None}


def test_metadata_fits_into_the_buffer(render: Render) -> None:
    wide = {**IRIS, "input_example": {"inputs": [[0.123456789] * 20000]}}
    text = render("metadata.map.j2", edge_catalogue=[wide])
    assert len(text) < 81920
    assert '"input_example": null' in text
    assert "sepal <b>" in text


def test_the_page_needs_nothing_but_its_style_sheet(render: Render) -> None:
    page = Page(render("index.html.j2", edge_catalogue=[IRIS, DIGITS]))
    assert not {"script", "style", "img", "iframe", "form"} & set(page.tags)
    assert page.tags.count("h1") == 1
    assert page.tags.count("h2") == 2
    external = [link for link in page.links if not link.startswith(("/", "data:,", "http://localhost:"))]
    assert external == []
    assert "http://localhost:5000/#/models/prod.iris/versions/3" in page.links
    assert "/models/iris/docs" in page.links


def test_a_model_of_the_engine_api_leads_to_its_page(render: Render) -> None:
    page = Page(render("index.html.j2", edge_catalogue=[IRIS, DIGITS]))
    assert page.links.count("/models/digits/") == 2
    assert "/models/iris/" not in page.links
    iris, digits = json.loads(render("models.json.j2", edge_catalogue=[IRIS, DIGITS]))
    assert digits["urls"]["page"] == "/models/digits/"
    assert "page" not in iris["urls"]


def test_the_command_line_can_be_copied(render: Render) -> None:
    iris, digits = Page(render("index.html.j2", edge_catalogue=[IRIS, DIGITS])).commands
    words = shlex.split(iris)
    assert words[:2] == ["curl", "http://localhost:8000/models/iris/invocations"]
    assert json.loads(words[-1]) == IRIS["input_example"]
    assert json.loads(shlex.split(digits)[-1]) == DIGITS["predict_example"]
    assert shlex.split(digits)[1].endswith("/models/digits/predict")


def test_a_long_example_comes_from_a_file(render: Render) -> None:
    (command,) = Page(
        render("index.html.j2", edge_catalogue=[{**IRIS, "input_example": {"inputs": [[1.5] * 5000]}}])
    ).commands
    assert shlex.split(command)[-1] == "@request.json"


def test_a_tensor_without_a_short_example_gets_a_command_that_makes_one(render: Render) -> None:
    tensor = {"inputs": [{"type": "tensor", "tensor-spec": {"dtype": "float32", "shape": [-1, 784]}}]}
    page = render("index.html.j2", edge_catalogue=[{"name": "digits", "engine": "mlflow", "signature": tensor}])
    (command,) = Page(page).commands
    maker, _, client = command.partition(" | ")
    body = subprocess.run(shlex.split(maker), capture_output=True, text=True, check=True).stdout
    assert json.loads(body) == {"inputs": [[0] * 784]}
    assert shlex.split(client)[-2:] == ["-d", "@-"]
    assert "tensor of float32, shape n x 784" in page


def test_names_and_values_cannot_become_markup(render: Render) -> None:
    text = render("index.html.j2", edge_catalogue=[{**IRIS, "model": "<script>x</script>", "metrics": {"<i>": "<u>"}}])
    assert "<script" not in text
    assert "<i>" not in text
    assert "<u>" not in text


def test_a_page_without_models_says_what_to_do(render: Render) -> None:
    assert "served_models" in render("index.html.j2", edge_catalogue=[])


def test_many_models_fit_or_are_refused(render: Render) -> None:
    many = [{**IRIS, "name": f"m{number}"} for number in range(35)]
    assert len(render("index.html.j2", edge_catalogue=many)) < 81920 - 4096
    with pytest.raises(AnsibleError, match="Raise edge_buffer_size"):
        render("index.html.j2", edge_catalogue=many * 2)


def test_the_documentation_of_a_plain_model_is_one_line_without_scripts(render: Render) -> None:
    hostile = "<script>x</script>\n&\"'"
    inputs = [{"name": f"{hostile}{number}", "type": "double"} for number in range(500)]
    many = {
        **IRIS,
        "name": "many",
        "model": hostile,
        "signature": {"inputs": inputs},
        "input_example": {"inputs": [hostile] * 90},
    }
    comment, *lines = render("docs.map.j2", edge_catalogue=[IRIS, many, DIGITS]).splitlines()
    assert comment.startswith("#")
    assert [line.split(" ")[0] for line in lines] == ["iris", "many"]
    for line in lines:
        assert "<script" not in line
        assert len(line) < 81920 - 4096
        assert "<code>curl http" in line
    assert "and 460 more" in lines[1]


def test_documentation_that_outgrows_a_buffer_becomes_shorter(render: Render) -> None:
    wide = {
        **IRIS,
        "signature": {"inputs": [{"name": f"<{'&' * 60}{number}", "type": "double"} for number in range(99)]},
    }
    (line,) = render("docs.map.j2", edge_catalogue=[wide], edge_buffer_size=16384).splitlines()[1:]
    assert len(line) < 16384 - 4096
    assert "POST invocations" in line
