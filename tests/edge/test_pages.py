"""The catalogue: what clients read about the models, as JSON, as tables and as a page."""

from __future__ import annotations

import json
import shlex
import subprocess
from html.parser import HTMLParser
from typing import Any

import pytest
from ansible.errors import AnsibleError

from tests.templates import Render, renderer

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


@pytest.fixture(scope="module")
def render() -> Render:
    """Text of a template of the role; what a test puts into the catalogue is all that is declared."""
    return renderer("edge", served_models=[], serving_default_model="digits", __edge_reasons={})


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


def test_the_page_needs_nothing_but_its_style_sheet_and_its_script(render: Render) -> None:
    page = Page(render("index.html.j2", edge_catalogue=[IRIS, DIGITS]))
    assert not {"style", "iframe", "form"} & set(page.tags)
    assert page.tags.count("script") == 1
    assert page.tags.count("h1") == 1
    assert page.tags.count("h2") == 2
    external = [link for link in page.links if not link.startswith(("/", "data:image/svg+xml,", "http://localhost:"))]
    assert external == []
    assert "http://localhost:5000/#/models/prod.iris/versions/3" in page.links
    assert "/models/iris/docs" in page.links


def test_every_model_leads_to_its_page(render: Render) -> None:
    page = Page(render("index.html.j2", edge_catalogue=[IRIS, DIGITS]))
    assert page.links.count("/models/digits/") == page.links.count("/models/iris/") == 2
    for model in json.loads(render("models.json.j2", edge_catalogue=[IRIS, DIGITS])):
        assert model["urls"]["page"] == f"/models/{model['name']}/"


def test_what_is_declared_and_not_served_is_on_the_page_with_its_reason(render: Render) -> None:
    given = {
        "served_models": [{"name": "iris"}, {"name": "broken", "model": "m"}, {"name": "new"}],
        "__edge_reasons": {
            "broken": "Version 3 of m (alias champion) is not served: <its image> could not be built",
            "iris": "Version 4 is not served",
        },
        "edge_catalogue": [IRIS],
    }
    text = render("index.html.j2", **given)
    assert "3 models" in text
    iris, broken, new = text.split("<article ")[1:]
    assert "version 3<" in iris
    assert "Version 4 is not served" in iris
    assert "not served<" in broken
    assert "&lt;its image&gt; could not be built" in broken
    assert "not deployed yet" in new
    # Programs find what is served.
    assert [model["name"] for model in json.loads(render("models.json.j2", **given))] == ["iris"]
    assert "broken" in render("docs.map.j2", **given)


def test_a_long_list_is_compact_and_can_be_searched(render: Render) -> None:
    eight = [{**IRIS, "name": f"m{number}"} for number in range(8)]
    short, long = (Page(render("index.html.j2", edge_catalogue=models)) for models in (eight, [*eight, DIGITS]))
    assert not {"details", "input"} & set(short.tags)
    assert long.tags.count("details") == 9
    assert long.tags.count("input") == 1
    assert "9 models" in render("index.html.j2", edge_catalogue=[*eight, DIGITS])


def test_the_command_line_can_be_copied(render: Render) -> None:
    iris, digits = Page(render("index.html.j2", edge_catalogue=[IRIS, DIGITS])).commands
    words = shlex.split(iris)
    assert words[:2] == ["curl", "http://localhost:8000/models/iris/invocations"]
    assert json.loads(words[-1]) == IRIS["input_example"]
    assert json.loads(shlex.split(digits)[-1]) == DIGITS["predict_example"]
    assert shlex.split(digits)[1].endswith("/models/digits/predict")


def test_the_first_row_of_an_example_is_asked_with(render: Render) -> None:
    split = {"columns": ["a"], "index": [0, 1], "data": [[None], [2.0]]}
    for example, first in (
        ({"dataframe_split": split}, {"dataframe_split": {"columns": ["a"], "data": [[None]]}}),
        ({"inputs": [[0.5], [1.5]], "params": {"k": 1}}, {"inputs": [[0.5]], "params": {"k": 1}}),
        ({"inputs": {"a": [1], "b": [2]}}, {"inputs": {"a": [1], "b": [2]}}),
        ([1, 2], [1, 2]),
    ):
        (command,) = Page(render("index.html.j2", edge_catalogue=[{**IRIS, "input_example": example}])).commands
        assert json.loads(shlex.split(command)[-1]) == first


def test_a_picture_of_whole_numbers_fits_on_the_page(render: Render) -> None:
    picture = [[float(number % 256) for number in range(784)] for _ in range(3)]
    (command,) = Page(render("index.html.j2", edge_catalogue=[{**IRIS, "input_example": {"inputs": picture}}])).commands
    assert json.loads(shlex.split(command)[-1]) == {"inputs": picture[:1]}


def test_an_example_that_is_too_long_comes_from_the_metadata(render: Render) -> None:
    example = {"inputs": [[1.5] * 5000]}
    (command,) = Page(render("index.html.j2", edge_catalogue=[{**IRIS, "input_example": example}])).commands
    source, maker, client = command.split(" | ")
    assert shlex.split(source) == ["curl", "-s", "http://localhost:8000/models/iris/metadata"]
    made = subprocess.run(
        shlex.split(maker), input=json.dumps({"input_example": example}), capture_output=True, text=True, check=True
    )
    assert json.loads(made.stdout) == example
    assert shlex.split(client)[-2:] == ["-d", "@-"]


def test_a_model_without_example_says_what_to_do(render: Render) -> None:
    text = render("index.html.j2", edge_catalogue=[{**IRIS, "input_example": None}])
    assert shlex.split(Page(text).commands[0])[-1] == "@request.json"
    assert "write your request into the file request.json" in text


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
    assert text.count("<script") == 1
    assert "<i>" not in text
    assert "<u>" not in text


def test_a_page_without_models_says_what_to_do(render: Render) -> None:
    assert "served_models" in render("index.html.j2", edge_catalogue=[])


def test_of_many_models_the_page_says_less_and_of_too_many_the_run_says_so(render: Render) -> None:
    many = [{**IRIS, "name": f"m{number}"} for number in range(68)]
    reasons = {model["name"]: "x" * 1000 for model in many}
    some, most = (
        render("index.html.j2", edge_catalogue=listed, __edge_reasons=reasons) for listed in (many[:35], many)
    )
    assert max(map(len, (some, most, render("models.json.j2", edge_catalogue=many)))) < 81920 * 7 // 8
    assert most.count("xxx</p>") == 68
    assert (some.count("<details"), most.count("<details")) == (35, 0)
    assert most.count("version 3<") == 68
    assert "curl" in render("docs.map.j2", edge_catalogue=many)
    with pytest.raises(AnsibleError, match="Raise edge_buffer_size"):
        render("index.html.j2", edge_catalogue=many * 2)


def test_the_page_of_a_plain_model_is_one_line_with_one_script(render: Render) -> None:
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
        assert line.count("<script") == line.count('<script src="/pages.js"') == 1
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
