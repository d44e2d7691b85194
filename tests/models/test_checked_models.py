"""The filters that take the registry's word for nothing: MLmodel files, pickles, and what is refused for all."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pace import too_late

from roles.serving.filter_plugins import checked_models as module

SIGNATURE = {"inputs": json.dumps([{"type": "double", "name": "a", "required": True}]), "outputs": None, "params": None}
SKLEARN: dict[str, Any] = {
    "flavors": {
        "python_function": {
            "env": {"conda": "conda.yaml", "virtualenv": "python_env.yaml"},
            "loader_module": "mlflow.sklearn",
            "model_path": "model.skops",
            "predict_fn": "predict",
            "python_version": "3.13.5",
        },
        "sklearn": {
            "code": None,
            "pickled_model": "model.skops",
            "serialization_format": "skops",
            "sklearn_version": "1.9.1",
            "skops_trusted_types": None,
        },
    },
    "signature": SIGNATURE,
    "utc_time_created": "2026-11-28 04:20:40.834858",
}
WANTED = {
    "name": "iris",
    "service": "p-model-iris",
    "model": "prod.iris",
    "alias": "champion",
    "required": True,
    "allow_pickle": None,
}
FOUND = {"found": True, "problem": "", "model": "prod.iris", "version": "3", "code_files": []}


def mlmodel(flavor: str = "sklearn", pyfunc: dict[str, Any] | None = None, **changed: Any) -> str:
    """An MLmodel of one flavor, some of which is changed."""
    flavors = SKLEARN["flavors"]
    own = (flavors["sklearn"] if flavor == "sklearn" else {}) | changed
    general = flavors["python_function"] | {"loader_module": f"mlflow.{flavor}"} | (pyfunc or {})
    return yaml.safe_dump(SKLEARN | {"flavors": {"python_function": general, flavor: own}})


def checked(text: str, *, allow: bool = False, **wanted: Any) -> dict[str, Any]:
    return module.checked_model(FOUND | {"mlmodel": text}, WANTED | wanted, allow_pickle=allow, python="3.13")


def test_a_model_of_today_is_plain_values() -> None:
    model = checked(mlmodel())
    assert (model["problem"], model["pickle"], model["python"]) == ("", False, "3.13.5")
    assert model["signature"] == {
        "inputs": [{"type": "double", "name": "a", "required": True}],
        "outputs": None,
        "params": None,
    }
    assert model["flavors"] == ["python_function", "sklearn"]
    assert not {"mlmodel", "code_files"} & set(model)


@pytest.mark.parametrize(
    ("metadata", "labels"),
    [
        ({"labels": ["no", "yes"]}, {"0": "no", "1": "yes"}),
        ({"labels": {0: "no", "b": "yes"}}, {"0": "no", "b": "yes"}),
        ({"labels": ["x" * 81]}, {}),
        ({"labels": ["x"] * 101}, {}),
        ({"labels": [["no"]]}, {}),
        ({"labels": {}}, {}),
        ({}, {}),
        ("labels", {}),
        (None, {}),
    ],
)
def test_labels_are_those_of_the_model(metadata: Any, labels: dict[str, str]) -> None:
    assert checked(yaml.safe_dump(SKLEARN | {"metadata": metadata}))["labels"] == labels


def test_a_version_of_python_stays_text() -> None:
    assert checked(mlmodel().replace("3.13.5", "3.10"))["python"] == "3.10"


def bomb(levels: int) -> str:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, levels)]
    return "\n".join(lines)


WRONG_SIGNATURES: list[Any] = [7, "text", [], True, 1.5]
WRONG_VERSIONS: list[Any] = [{}, {"a": 1}, [3], "3", "three", "3.13\nx", "{{ 1 }}", "9" * 99]
WRONG_INPUTS: list[Any] = [
            7, [], {}, "{", "7", "{}", '"a"', "[7]", "[[]]", "[{}]", '[{"type": 7}]', '[{"type": "double", "name": 7}]',
            '[{"type": "double", "name": "\\ud800"}]', "[" * 5000, '[{"type": "object", "x": ' + "[" * 40 + "]" * 40 + "}]",
            "[" + "9" * 5000 + "]", '[{"type": "double", "x": 1e999}]', "[" + ",".join(['{"type":"double"}'] * 20_001) + "]",
]  # fmt: skip


@pytest.mark.parametrize(
    "text",
    [
        "", "#", "---", "a: [\n", "[]", "7", "text", "null", "a: b: c", "\t", "{", "- a\n- b", "%YAML 9.9\n---\na: 1", "a: 1\n---\nb: 2",
        bomb(9), "flavors: &x {python_function: {}}", "flavors: *x", "a: &a [*a]", "<<: {flavors: {}}", "flavors: {}\nflavors: {}",
        "flavors: !!python/object/apply:os.system [id]", "flavors: !!set {a}", "flavors: !!binary aGk=", "a: !x 1", "!!map {a: 1}",
        "a: " + "[" * 50 + "]" * 50, "a: " + "[" * 500_000, "a: " + "{b: " * 100_000, "a: [" + "1, " * 200_000 + "]", "a: \x00", "a: \x07",
        'a: "\\ud800"', "? [a, b]\n: c", "? {a: b}\n: c", "a: '", "flavors: []", "flavors: text", "flavors: 5", "flavors: {}", "flavors:",
        "flavors: {python_function: 5}", "flavors: {python_function: []}", "flavors: {python_function: {}, sklearn: 7}",
        "flavors: {python_function: {}, 'a b': {}}", "flavors: {? [a] : {}}",
        *(yaml.safe_dump(SKLEARN | {"signature": value}) for value in WRONG_SIGNATURES),
        *(yaml.safe_dump(SKLEARN | {"signature": {"inputs": value}}) for value in WRONG_INPUTS),
        *(mlmodel(pyfunc={"python_version": value}) for value in WRONG_VERSIONS),
    ],
)  # fmt: skip
def test_a_file_that_cannot_be_used_is_the_models_failure(text: str) -> None:
    began = time.monotonic()
    model = checked(text, allow=True)
    assert not too_late(began, 10)
    assert "The file MLmodel of version 3 of prod.iris (alias champion) cannot be used: " in model["problem"]
    assert "Log the model again" in model["problem"]
    assert len(model["problem"]) < 1000
    assert (model["python"], model["signature"], model["pickle"]) == ("", None, True)


@given(st.text(alphabet="a:-[]{}&*!<>|'\"#?%@\n \\\t0\u00e9", max_size=60))
def test_any_text_is_a_model_or_a_problem(text: str) -> None:
    model = checked(text)
    assert model["problem"]
    json.dumps(model, ensure_ascii=False, allow_nan=False).encode()


TREE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@given(st.dictionaries(st.sampled_from(["python_function", "sklearn", "x"]), TREE), TREE, TREE)
def test_wrong_types_anywhere_are_a_problem(flavors: Any, signature: Any, column: Any) -> None:
    for value in (signature, {"inputs": signature}, {"inputs": json.dumps(column)}):
        model = checked(yaml.safe_dump({"flavors": flavors, "signature": value}))
        assert model["problem"]
        json.dumps(model, ensure_ascii=False, allow_nan=False).encode()


def test_a_large_signature_is_read_in_seconds() -> None:
    inputs = json.dumps([{"type": "double", "name": f"feature {number}", "required": True} for number in range(10_000)])
    began = time.monotonic()
    assert len(checked(yaml.safe_dump(SKLEARN | {"signature": {"inputs": inputs}}))["signature"]["inputs"]) == 10_000
    assert not too_late(began, 20)


@pytest.mark.parametrize(
    "text",
    [
        mlmodel(),
        mlmodel(skops_trusted_types=["sklearn.neural_network._stochastic_optimizers.AdamOptimizer", "numpy.dtype", "numpy.float64"]),
        mlmodel("xgboost", data="model.ubj", model_class="xgboost.sklearn.XGBClassifier", model_format="ubj", xgb_version="3.0", code=None),
        mlmodel("xgboost", data="model.json", model_class="xgboost.core.Booster", model_format="json"),
        mlmodel("lightgbm", data="model.lgb", model_class="lightgbm.basic.Booster", lgb_version="4.6"),
        mlmodel("lightgbm", data="model.skops", model_class="lightgbm.sklearn.LGBMClassifier", serialization_format="skops"),
        mlmodel("onnx", data="model.onnx", onnx_version="1.19", providers=["CPUExecutionProvider"], onnx_session_options=None),
    ],
)  # fmt: skip
def test_forms_that_run_nothing_are_no_pickles(text: str) -> None:
    assert (checked(text)["problem"], checked(text)["pickle"]) == ("", False)


CODE = [
    mlmodel(serialization_format="pickle"), mlmodel(serialization_format="cloudpickle"), mlmodel(serialization_format=None),
    mlmodel(serialization_format=["skops"] * 0), mlmodel(serialization_format={}), mlmodel(pickled_model="model.pkl"),
    mlmodel(pickled_model="../model.skops"), mlmodel(pickled_model="/x.skops"), mlmodel(code="code"), mlmodel(code=["code"]),
    mlmodel(skops_trusted_types=["os.system"]), mlmodel(skops_trusted_types=["sklearn.Pipeline", "builtins.eval"]),
    mlmodel(skops_trusted_types=["joblib.load"]), mlmodel(skops_trusted_types="os.system"), mlmodel(skops_trusted_types=["sklearn.a.b"]),
    mlmodel(skops_trusted_types=[["os.system"]]), mlmodel(skops_trusted_types={"a": "b"}), mlmodel(something_new="x"),
    mlmodel(pyfunc={"loader_module": "mlflow.pyfunc.model"}), mlmodel(pyfunc={"loader_module": "evil"}), mlmodel(pyfunc={"loader_module": None}),
    mlmodel(pyfunc={"loader_module": "mlflow.xgboost"}), mlmodel(pyfunc={"loader_module": ["mlflow.sklearn"]}),
    mlmodel(pyfunc={"loader_module": "sklearn"}), mlmodel(pyfunc={"code": "code"}), mlmodel(pyfunc={"python_model": "python_model.pkl"}),
    mlmodel(pyfunc={"cloudpickle_version": "3"}), mlmodel(pyfunc={"model_code_path": "m.py"}), mlmodel(pyfunc={"config": {"a": 1}}),
    mlmodel(pyfunc={"model_path": "../x"}), mlmodel(pyfunc={"data": "a/b"}), mlmodel("pytorch", model_data="data"),
    mlmodel("statsmodels", data="model.statsmodels"), mlmodel("pmdarima"), mlmodel("spacy"), mlmodel("transformers"), mlmodel("tensorflow"),
    mlmodel("xgboost", data="model.pkl", model_format="ubj"), mlmodel("xgboost", data="m.ubj", model_class="os.system"),
    mlmodel("xgboost", data="m.ubj", model_class="xgboost.os.system"), mlmodel("lightgbm", data="model.pkl"),

    mlmodel("lightgbm", data="model.skops", model_class="lightgbm.sklearn.LGBMClassifier"),
    mlmodel("lightgbm", data="model.lgb", model_class="lightgbm.sklearn.LGBMClassifier", serialization_format="cloudpickle"),
    mlmodel("lightgbm", data="model.txt", model_class="lightgbm.sklearn.LGBMClassifier"), mlmodel("lightgbm", data="model.txt", model_class=None),
    mlmodel("xgboost", data="m.ubj", model_class="xgboost.core.Path"),
    mlmodel("onnx", data="model.onnx", onnx_session_options={"a": "b"}),
]  # fmt: skip


@pytest.mark.parametrize("text", CODE)
def test_all_else_counts_as_a_pickle_and_is_refused_where_none_is_allowed(text: str) -> None:
    refused = checked(text)
    assert refused["pickle"]
    assert "version 3 of prod.iris (alias champion) holds what may be a pickle or other code" in refused["problem"]
    assert 'set allow_pickle: ["3"] in the entry iris of served_models' in refused["problem"]
    allowed = checked(text, allow=True)
    assert (allowed["pickle"], allowed["problem"]) == (True, "")


def test_a_file_that_may_be_a_pickle_counts_whatever_the_flavors_say() -> None:
    found = FOUND | {"mlmodel": mlmodel(), "code_files": ["a.pkl", "b.pkl", "c.pkl", "d.pkl"]}
    model = module.checked_model(found, WANTED, allow_pickle=False, python="3.13")
    assert model["pickle"]
    assert "the file 'a.pkl', the file 'b.pkl', the file 'c.pkl' and 1 more" in model["problem"]


@pytest.mark.parametrize(
    ("said", "default", "served"),
    [
        (None, True, True), (None, False, False), (True, False, True), (False, True, False), (["3"], False, True), (["2", "4"], True, False),
        ([], True, False),
    ],
)  # fmt: skip
def test_the_inventory_says_which_pickles_are_loaded(said: object, default: bool, served: bool) -> None:
    assert (checked(CODE[0], allow=default, allow_pickle=said)["problem"] == "") is served


@pytest.mark.parametrize(
    ("logged", "python_model", "refused"),
    [
        ("3.11.2", "python_model.pkl", True), ("3.14.0", "python_model.pkl", True), ("3.1", "python_model.pkl", True),
        ("3.13.0", "python_model.pkl", False), ("3.13", "python_model.pkl", False), ("3.11.2", None, False),
    ],
)  # fmt: skip
def test_bytecode_of_another_python_is_refused(logged: str, python_model: str | None, refused: bool) -> None:
    pyfunc = {"loader_module": "mlflow.pyfunc.model", "python_model": python_model, "python_version": logged}
    problem = checked(mlmodel(pyfunc=pyfunc), allow=True)["problem"]
    assert (problem != "") is refused
    if refused:
        assert f"was logged by Python {logged} as a pickled class" in problem
        assert "models are served by Python 3.13. Log it by Python 3.13, or as models from code" in problem


def test_what_the_registry_refuses_is_handed_on_with_every_key() -> None:
    refused = module.checked_model(
        {"found": True, "problem": "gone", "model": "m", "version": ""}, WANTED, allow_pickle=True, python="3.13"
    )
    assert refused["problem"] == "gone"
    assert set(checked(mlmodel())) == set(refused)
