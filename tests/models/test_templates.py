"""What the role serving makes of the registry's answers: images, services and the report of the run."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.models.test_checked_models import mlmodel
from tests.templates import ROLES, Render, text_renderer

MODELS: list[dict[str, Any]] = [
    {"name": "iris", "engine": "api"},
    {"name": "digits", "challenger": {"percent": 10}},
    {"name": "smiley", "model": "\U0001f600", "engine": "api"},
]
PICKLE = mlmodel(serialization_format="pickle")


def answer(model: str, version: str, **changed: Any) -> dict[str, Any]:
    """What the module says of a version."""
    return {
        "found": True, "problem": "", "model": model, "alias": "champion", "version": version, "run_id": "r1", "source": "models:/m-1",
        "artifact_uri": "mlflow-artifacts:/1", "tags": {}, "aliases": [], "metrics": {"accuracy": 0.5}, "mlmodel": mlmodel(),
        "requirements": ["mlflow==3.17.2"], "input_example": {"inputs": ["\U0001f600 \\ 'x'\u2028"]}, "sha256": "a" * 64, "code_files": [],
    } | changed  # fmt: skip


def missing(model: str) -> dict[str, Any]:
    return {"found": False, "problem": f"no {model}", "model": model, "alias": "challenger", "version": ""}


IRIS, DIGITS, SMILEY = answer("iris", "1"), answer("digits", "2"), answer("\U0001f600", "3")
ANSWERS = [IRIS, DIGITS, missing("digits"), SMILEY]
FAILURES = "{{ __serving_resolved | rejectattr('problem', 'eq', '') | items2dict(key_name='image', value_name='problem') | to_json }}"


@pytest.fixture(scope="module")
def render() -> Render:
    return text_renderer(
        "serving",
        role_path=str(ROLES / "serving"),
        __platform_fleet=False,
        served_models=MODELS,
        __serving_dockerfile="FROM x",
        __serving_package="",
        __serving_images={"mlflow-anywhere/runtime:3.17.2": "sha256:1"},
        __platform_engine={"version": "26.1"},
        __serving_host={"engine": {"services": {}}},
    )


def resolved(render: Render, answers: list[dict[str, Any]], **more: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(
        render("{{ __serving_resolved | to_json }}", __serving_found={"versions": answers}, **more)
    )
    return found


def run(render: Render, text: str, answers: list[dict[str, Any]], **more: Any) -> str:
    """What a text becomes after the task that says which image each service runs."""
    given = {"__serving_found": {"versions": answers}}
    failures = json.loads(render(FAILURES, **given))
    return render(
        text,
        __serving_deployments=resolved(render, answers),
        __serving_build_failures=failures,
        __serving_built={},
        **(given | more),
    )


def test_every_version_has_an_image_and_a_missing_challenger_none(render: Render) -> None:
    iris, digits, smiley = resolved(render, ANSWERS)
    assert iris["image"].startswith("mlflow-anywhere/model-iris:v1-")
    assert (digits["version"], smiley["model"]) == ("2", "\U0001f600")
    assert iris["input_example"] == IRIS["input_example"]
    assert iris["signature"]["inputs"][0]["name"] == "a"
    assert not iris["pickle"]


@pytest.mark.parametrize("changed", [{"sha256": "b" * 64}, {"requirements": ["x==1"]}, {"source": "models:/m-2"}])
def test_what_decides_what_is_inside_decides_the_image(render: Render, changed: dict[str, Any]) -> None:
    first, other = (resolved(render, [iris, *ANSWERS[1:]])[0] for iris in (IRIS, IRIS | changed))
    assert first["image"] != other["image"]


BROKEN: list[dict[str, Any]] = [
    {"mlmodel": "a: [\n"},
    {"mlmodel": "a: &a [*a]"},
    {"mlmodel": PICKLE},
    {"problem": "The requirements are bad"},
    {"found": True, "problem": "away", "version": ""},
    {"found": False, "problem": "gone", "version": ""},
]


@pytest.mark.parametrize("broken", BROKEN)
def test_one_bad_model_stops_nobody_else(render: Render, broken: dict[str, Any]) -> None:
    answers = [IRIS | broken, *ANSWERS[1:]]
    bad, digits, smiley = resolved(render, answers, serving_allow_pickle=False)
    assert bad["problem"]
    assert (digits["problem"], smiley["problem"]) == ("", "")
    assert digits["image"] == resolved(render, ANSWERS)[1]["image"]
    more: dict[str, Any] = {"serving_allow_pickle": False}
    given = {
        "__serving_found": {"versions": answers},
        "__serving_deployments": [bad, digits, smiley],
        "__serving_build_failures": json.loads(render(FAILURES, __serving_found={"versions": answers}, **more)),
        "__serving_built": {},
    }
    built = json.loads(render("{{ __serving_missing | map(attribute='image') | list | to_json }}", **given))
    assert sorted(built) == sorted([digits["image"], smiley["image"]])
    services = json.loads(render("{{ __serving_services | to_json }}", **given))
    assert [service["name"] for service in services] == ["mlflow-anywhere-model-digits", "mlflow-anywhere-model-smiley"]
    kept = {
        "mlflow-anywhere-model-iris": {"image": "x", "labels": {"mlflow-anywhere.version": "0"}, "serving": True},
    }
    ok = {service["name"]: {"ok": True} for service in services}
    problems = render("{{ __serving_problems }}", __serving_rollout={"services": ok, "kept": kept}, **given)
    title = problems.splitlines()[0]
    assert title.startswith("iris: version 1 of iris" if bad["version"] else "iris: iris (alias champion)")
    assert title.endswith("is not served. Version 0 goes on serving.")
    assert bad["problem"] in problems
    assert "could not be built" not in problems
    assert "digits" not in problems


def test_each_model_is_alone_on_its_network_and_has_no_name_server(render: Render) -> None:
    services = json.loads(run(render, "{{ __serving_services | to_json }}", ANSWERS))
    assert len(services) == 3
    for service in services:
        task = service["spec"]["TaskTemplate"]
        assert task["Networks"] == [{"Target": service["name"]}]
        assert task["ContainerSpec"]["DNSConfig"]["Nameservers"] == ["127.0.0.1"]
    assert json.loads(run(render, "{{ __serving_ways | to_json }}", ANSWERS)) == []


def test_a_destination_is_reached_by_a_service_of_its_own(render: Render) -> None:
    models = [{"name": "iris", "egress": ["db.example.com:5432", "api:443", "api:80"]}, {"name": "digits"}]
    given = {
        "served_models": models,
        "__serving_found": {"versions": [IRIS, DIGITS]},
        "__serving_build_failures": {},
        "__serving_built": {},
    }
    given["__serving_deployments"] = resolved(render, [IRIS, DIGITS], served_models=models)
    iris, digits = json.loads(render("{{ __serving_services | to_json }}", **given))
    assert iris["spec"]["TaskTemplate"]["ContainerSpec"]["DNSConfig"] == {
        "Nameservers": ["127.0.0.1"], "Search": ["egress"], "Options": ["timeout:1", "ndots:15"],
    }  # fmt: skip
    assert digits["spec"]["TaskTemplate"]["ContainerSpec"]["DNSConfig"]["Search"] == []
    api, database = json.loads(render("{{ __serving_ways | to_json }}", **given))
    assert api["spec"]["TaskTemplate"]["Networks"] == [
        {"Target": "mlflow-anywhere-model-iris", "Aliases": ["api.egress"]},
        {"Target": "mlflow-anywhere"},
    ]
    assert api["spec"]["TaskTemplate"]["ContainerSpec"]["Env"] == [
        "EGRESS_HOST=api", "EGRESS_PORTS=:80,:443", "EGRESS_FROM=10.118.0.0/16",
    ]  # fmt: skip
    assert "EGRESS_HOST=db.example.com" in database["spec"]["TaskTemplate"]["ContainerSpec"]["Env"]
    assert api["name"] != database["name"]
    rollout = {
        "services": {
            api["name"]: {
                "reason": "it does not start",
                "labels": api["spec"]["Labels"],
                "errors": ["no room"],
                "logs": "",
            }
        }
    }
    problems = render(
        "{{ __serving_problems }}", __serving_rollout=rollout | {"failed_services": [api["name"]], "kept": {}}, **given
    )
    assert problems.startswith("iris: its way out to api does not run.")
    assert "no room" in problems


def test_two_entries_of_one_version_are_refused_apart(render: Render) -> None:
    models = [{"name": "a", "model": "m"}, {"name": "b", "model": "m", "allow_pickle": ["1"]}]
    answers = [answer("m", "1", mlmodel=PICKLE)] * 2
    first, second = resolved(render, answers, served_models=models, serving_allow_pickle=False)
    assert first["problem"]
    assert second["problem"] == ""
    assert first["image"] != second["image"]


@pytest.mark.parametrize(
    ("changed", "allowed"),
    [
        ({}, True),
        ({"platform_bind_address": "::1"}, True),
        ({"platform_bind_address": "10.0.0.5"}, False),
        ({"platform_public_addresses": ["0.0.0.0"]}, False),
        ({"__platform_fleet": True}, False),
    ],
)
def test_pickles_are_loaded_where_nobody_else_comes_in(render: Render, changed: dict[str, Any], allowed: bool) -> None:
    assert render("{{ serving_allow_pickle | bool }}", **changed) == str(allowed)
    bad = resolved(render, [IRIS | {"mlmodel": PICKLE}, *ANSWERS[1:]], **changed)[0]
    assert (bad["problem"] == "") is allowed


def test_services_say_what_is_a_pickle(render: Render) -> None:
    answers = [IRIS | {"mlmodel": PICKLE}, *ANSWERS[1:]]
    services = json.loads(run(render, "{{ __serving_services | to_json }}", answers))
    said = {}
    for service in services:
        spec = service["spec"]["TaskTemplate"]["ContainerSpec"]
        entry = json.loads(service["spec"]["Labels"]["mlflow-anywhere.entry"])
        environment = dict(line.split("=", 1) for line in spec["Env"])
        said[entry["name"]] = (entry["pickle"], environment.get("SERVING_PICKLE"))
    assert said == {"iris": (True, "true"), "digits": (False, None), "smiley": (False, "false")}
    assert {"SERVING_MODEL=\U0001f600"} <= set(services[2]["spec"]["TaskTemplate"]["ContainerSpec"]["Env"])


def test_the_catalogue_holds_any_text(render: Render) -> None:
    services = json.loads(run(render, "{{ __serving_services | to_json }}", ANSWERS))
    states = {service["name"]: {"labels": service["spec"]["Labels"], "serving": True} for service in services}
    live = json.loads(
        run(render, "{{ __serving_live | to_json }}", ANSWERS, __serving_rollout={"services": states, "kept": {}})
    )
    assert [entry["name"] for entry in live] == ["digits", "iris", "smiley"]
    assert live[1]["input_example"] == IRIS["input_example"]
    assert live[2]["model"] == "\U0001f600"


def test_a_missing_challenger_is_a_warning(render: Render) -> None:
    warnings = json.loads(run(render, "{{ __serving_warnings | to_json }}", ANSWERS))
    assert warnings == ["No challenger is served: no digits"]


def spared(render: Render, answers: list[dict[str, Any]]) -> list[str]:
    own = {"mlflow-anywhere.platform": "mlflow-anywhere", "mlflow-anywhere.role": "model"}
    way = own | {"mlflow-anywhere.role": "egress"}
    services = {"mlflow-anywhere-model-old": own, "mlflow-anywhere-egress-old": way}
    host = {"engine": {"services": services, "images": []}}
    found: list[str] = json.loads(run(render, "{{ __serving_spared | to_json }}", answers, __serving_host=host))
    return found


def test_nothing_is_removed_while_an_entry_names_what_never_was(render: Render) -> None:
    assert spared(render, [missing("iris"), *ANSWERS[1:]]) == [
        "mlflow-anywhere-model-old",
        "mlflow-anywhere-egress-old",
    ]
    assert spared(render, [IRIS | {"problem": "bad"}, *ANSWERS[1:]]) == []
    assert spared(render, ANSWERS) == []


def test_builds_use_nothing_of_a_model_but_its_checked_requirements() -> None:
    dockerfile = (ROLES / "serving/templates/Dockerfile.j2").read_text()
    assert "conda" not in dockerfile
    assert "python_env" not in dockerfile
    assert "/opt/model/requirements.txt" not in dockerfile


def removed(render: Render, keep: int) -> list[str]:
    """Images of models that a run removes: iris has two that were made of an earlier runtime image, and three newer ones."""
    ages = {"model-iris:v5": 90, "model-iris:v4": 80, "model-iris:v3": 70, "runtime:3.17.2": 60}
    ages |= {"model-iris:v2": 50, "model-iris:v1": 40, "model-digits:v1": 30}
    images = [
        {"tag": f"mlflow-anywhere/{name}", "id": f"sha256:{age}", "created": age}
        for name, age in sorted(ages.items(), key=lambda item: -item[1])
    ]
    found: list[str] = json.loads(
        render(
            "{{ __serving_old_images | to_json }}",
            __serving_host={"engine": {"images": images}},
            __serving_images={image["tag"]: image["id"] for image in images},
            __serving_rollout={"services": {"a": {"image": "mlflow-anywhere/model-iris:v5"}}, "kept": {}},
            __serving_deployments=[],
            serving_keep_images=keep,
        )
    )
    return sorted(name.partition("/")[2] for name in found)


def test_images_of_an_earlier_runtime_image_go_and_of_the_others_the_newest_stay(render: Render) -> None:
    earlier = ["model-digits:v1", "model-iris:v1", "model-iris:v2"]
    assert removed(render, 2) == earlier
    assert removed(render, 1) == [*earlier, "model-iris:v3"]
    assert removed(render, 0) == [*earlier, "model-iris:v3", "model-iris:v4"]


def test_a_service_keeps_its_image_whatever_it_was_made_of(render: Render) -> None:
    images = [{"tag": "mlflow-anywhere/runtime:3.17.2", "id": "sha256:1", "created": 9}]
    images += [{"tag": "mlflow-anywhere/model-iris:v1", "id": "sha256:2", "created": 1}]
    text = render(
        "{{ __serving_old_images | to_json }}",
        __serving_host={"engine": {"images": images}},
        __serving_images={str(image["tag"]): image["id"] for image in images},
        __serving_rollout={"services": {"a": {"image": "mlflow-anywhere/model-iris:v1"}}, "kept": {}},
        __serving_deployments=[],
    )
    assert json.loads(text) == []
