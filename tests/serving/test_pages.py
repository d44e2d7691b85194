"""The pages of a model: forms from signatures, nothing inline, no text of a model that becomes markup."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

import serving.pages
from serving.information import ModelInformation
from serving.pages import ICON, Pages, pages
from serving.settings import Settings

from .described import ALL, BARE, DIGITS, HOSTILE, IRIS, IRIS_RECORD, MIXED, TWO_TENSORS

SOURCES = Path(serving.pages.__file__).parent
EACH = pytest.mark.parametrize("information", ALL, ids=lambda information: information.name)
VOID = {"meta", "link", "input", "img", "br"}


class Markup(HTMLParser):
    """Elements with their attributes, and the text in them."""

    def __init__(self, body: bytes) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, str] = {}
        self.open: list[str] = []
        self.feed(body.decode())
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        assert len(dict(attrs)) == len(attrs), (tag, attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open:
            self.texts[self.open[-1]] = self.texts.get(self.open[-1], "") + data

    def all(self, *tags: str) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.elements if tag in tags]

    def field(self, name: str, group: str = "record") -> dict[str, str | None]:
        (found,) = [one for _, one in self.elements if one.get("data-name") == name and one.get("data-group") == group]
        return found


def made(information: ModelInformation) -> Pages:
    return pages(information, Settings())


def page(information: ModelInformation, path: str = "/") -> Markup:
    return Markup(made(information)[path][1])


@EACH
@pytest.mark.parametrize("path", ["/", "/docs"])
def test_nothing_is_inline_or_from_elsewhere(information: ModelInformation, path: str) -> None:
    found = page(information, path)
    for script in found.all("script"):
        assert script.get("src") or script["type"] == "application/json"
    assert not found.all("style", "iframe", "object", "embed", "base")
    for _, attributes in found.elements:
        assert not [name for name in attributes if name == "style" or name.startswith("on")]
        for name in ("src", "href", "action"):
            address = attributes.get(name)
            # A leading slash would leave /models/NAME/, where the edge shows the page.
            assert address is None or re.fullmatch(r"data:image/svg\+xml,.*|\./|[a-z]+(\.(css|js|json))?", address), (
                address
            )


@EACH
def test_the_policy_allows_only_what_the_server_itself_has(information: ModelInformation) -> None:
    found = made(information)
    assert set(found) == {"/", "/docs", "/page.css", "/page.js", "/docs.js"}
    for _, _, headers in found.values():
        policy = headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'; ")
        assert "unsafe" not in policy
    assert found["/"][2]["vary"] == "accept"


@EACH
@pytest.mark.parametrize("path", ["/", "/docs"])
def test_every_part_that_a_page_asks_for_is_there(information: ModelInformation, path: str) -> None:
    parts = {one.get("src") or one.get("href") for one in page(information, path).all("script", "link")} - {
        None,
        ICON,
    }
    assert parts
    assert {f"/{part}" for part in parts} <= set(made(information))


@pytest.mark.parametrize("path", ["/", "/docs"])
def test_a_page_behind_the_edge_leads_to_all_models_and_to_mlflow(path: str) -> None:
    described = ModelInformation(**{**IRIS.__dict__, "model": "prod iris/x", "version": "3", "run_id": "abc"})
    settings = Settings(root_path="/models/iris", mlflow_url="http://localhost:5000/")
    links = {one.get("href") for one in Markup(pages(described, settings)[path][1]).all("a")}
    assert {
        "/models",
        "http://localhost:5000/#/models/prod%20iris%2Fx/versions/3",
        "http://localhost:5000/#/runs/abc",
    } <= links


def test_a_model_without_signature_and_example_is_not_asked_before_somebody_writes_a_request() -> None:
    found = page(BARE)
    assert "press Predict" in made(BARE)["/"][1].decode()
    assert len(found.all("textarea")) == 1
    assert found.texts["textarea"].strip() == ""


@EACH
def test_every_label_has_a_field_and_every_field_a_label(information: ModelInformation) -> None:
    found = page(information)
    ids = [attributes["id"] for _, attributes in found.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    labelled = [one["for"] for one in found.all("label")]
    assert sorted(map(str, labelled)) == sorted(str(one["id"]) for one in found.all("input", "select", "textarea"))
    for one in found.all("canvas"):
        assert one.get("aria-label") or one["aria-labelledby"] in ids
    for _, attributes in found.elements:
        if "data-name" in attributes:
            assert attributes["aria-describedby"] in ids


@pytest.mark.parametrize("path", ["/", "/docs"])
def test_text_of_a_model_never_becomes_markup(path: str) -> None:
    hostile = ModelInformation(**{**MIXED.__dict__, "name": HOSTILE, "model": HOSTILE, "alias": HOSTILE, "version": HOSTILE,
                                  "metrics": {HOSTILE: 1.0}})  # fmt: skip
    found = page(hostile, path)
    assert [one["src"] for one in found.all("img")] == [ICON]
    assert not any("onerror" in attributes for _, attributes in found.elements)
    assert found.texts["h1"] == HOSTILE
    if path == "/":
        assert found.field(HOSTILE)["value"] == HOSTILE


def test_text_in_the_data_of_the_script_stays_there() -> None:
    image = {**DIGITS.__dict__, "predict_example": {"image": HOSTILE}}
    found = page(ModelInformation(**image))
    assert [one["src"] for one in found.all("img")] == [ICON]
    assert json.loads(found.texts["script"])["example"] == {"image": HOSTILE}


def test_a_form_of_columns_is_filled_with_the_example() -> None:
    found = page(IRIS)
    for name, value in IRIS_RECORD.items():
        field = found.field(name)
        assert (field["type"], field["step"], field["value"]) == ("number", "any", str(value))
    assert not found.all("canvas")


def test_every_type_has_its_control() -> None:
    found = page(MIXED)
    assert found.field("flag")["type"] == "checkbox"
    assert "checked" in found.field("flag")
    assert "data-required" not in found.field("opt")
    assert (found.field("n")["step"], found.field("big")["value"]) == ("1", str(2**62))
    assert found.field("when")["type"] == "datetime-local"
    assert found.field("threshold", "params")["value"] == ""
    assert "default 0.5" in found.texts["small"]
    # Not given, yes and no, for the optional column and the parameter.
    assert len(found.all("option")) == 6
    assert json.loads(found.texts["textarea"].strip()) == ["a"]


def test_a_time_that_the_control_cannot_show_is_edited_as_text() -> None:
    record = {**(MIXED.predict_example or {}), "when": "2024-01-31T12:30:00.123456+02:00"}
    field = page(ModelInformation(**{**MIXED.__dict__, "predict_example": record})).field("when")
    assert (field["type"], field["value"]) == ("text", record["when"])


def test_what_looks_like_a_picture_is_drawn() -> None:
    found = page(DIGITS)
    drawing, seen = found.all("canvas")
    assert (drawing["data-name"], drawing["data-type"], drawing["tabindex"]) == ("image", "image", "0")
    assert (seen["width"], seen["height"]) == ("28", "28")
    data = json.loads(found.texts["script"])
    assert data["shape"] == [28, 28]
    assert len(data["example"]["image"]) == 784
    for shape in (None, (784,), (2, 392), (30, 30)):
        assert not page(ModelInformation(**{**DIGITS.__dict__, "input_shape": shape})).all("canvas")


def test_tensors_and_models_without_signature_are_edited_as_json() -> None:
    assert [field["data-name"] for field in page(TWO_TENSORS).all("textarea")] == ["left", "right"]
    (field,) = page(BARE).all("textarea")
    assert field["data-type"] == "body"


def test_scripts_never_read_text_as_markup_or_code() -> None:
    scripts = [path.read_text() for path in SOURCES.glob("*.js")]
    assert len(scripts) >= 2
    for script in scripts:
        assert not re.search(
            r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|new Function|setAttribute\(.style", script
        )
    for _, body, _ in (made(IRIS)["/page.js"], made(IRIS)["/docs.js"]):
        assert body.startswith(b'"use strict";')
