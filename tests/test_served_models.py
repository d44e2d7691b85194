"""The filter that checks `served_models` before anything is changed."""

from __future__ import annotations

from typing import Any

import pytest
from ansible.errors import AnsibleFilterError
from hypothesis import given
from hypothesis import strategies as st

from filter_plugins.served_models import served_models


def refusal(*entries: Any, **options: Any) -> str:
    with pytest.raises(AnsibleFilterError) as error:
        served_models(list(entries), **options)
    return str(error.value)


def test_a_name_is_enough() -> None:
    assert served_models([{"name": "Iris"}], platform_name="p") == [
        {
            "name": "Iris",
            "model": "Iris",
            "alias": "champion",
            "engine": "mlflow",
            "replicas": 1,
            "port": None,
            "memory": "1g",
            "challenger": None,
            "allow_pickle": None,
            "build_from_source": [],
            "egress": [],
            "labels": {},
            "packages": [],
            "service": "p-model-iris",
            "challenger_service": None,
        }
    ]


def test_everything_said_is_kept() -> None:
    entry = {
        "name": "fraud-2",
        "model": "prod.security.fraud_blocker",
        "alias": "Gold_1",
        "engine": "api",
        "replicas": 3,
        "port": 9201,
        "memory": "512m",
        "challenger": {"alias": "next", "percent": 99},
    }
    (model,) = served_models([entry], platform_name="p", reserved_ports=[5000, 8000])
    assert {key: model[key] for key in entry} == entry
    assert model["challenger_service"] == "p-model-fraud-2--challenger"


def test_no_models_are_fine() -> None:
    assert served_models([]) == []


def test_one_model_under_two_names() -> None:
    assert len(served_models([{"name": "a", "model": "m"}, {"name": "b", "model": "m", "engine": "api"}])) == 2


def test_null_means_none_where_none_is_allowed() -> None:
    (model,) = served_models([{"name": "a", "port": None, "challenger": None}])
    assert model["port"] is None
    assert model["challenger"] is None


@pytest.mark.parametrize(
    ("said", "kept"), [(True, True), (False, False), (["3", 4], ["3", "4"]), ([], []), (None, None)]
)
def test_pickles_are_allowed_for_all_versions_or_some(said: object, kept: object) -> None:
    assert served_models([{"name": "a", "allow_pickle": said}])[0]["allow_pickle"] == kept


@pytest.mark.parametrize("said", [["no", "yes"], {0: "no", 1: "yes"}, {"0": "no", "1": "yes"}])
def test_labels_are_kept_by_class(said: object) -> None:
    assert served_models([{"name": "a", "labels": said}])[0]["labels"] == {"0": "no", "1": "yes"}


def test_debian_packages_are_names_each_once() -> None:
    [model] = served_models([{"name": "a", "packages": ["libsndfile1", "libgomp1", "libsndfile1"]}])
    assert model["packages"] == ["libgomp1", "libsndfile1"]


def test_what_may_be_built_from_source_is_named_with_its_version() -> None:
    [model] = served_models([{"name": "a", "build_from_source": ["b_c.d==1.0rc1+local", "e==1!2", "e==1!2"]}])
    assert model["build_from_source"] == ["b_c.d==1.0rc1+local", "e==1!2"]


@pytest.mark.parametrize("value", [None, "iris", {"name": "iris"}, 5, True])
def test_not_a_list(value: object) -> None:
    with pytest.raises(AnsibleFilterError, match="a list of mappings"):
        served_models(value)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"replica": 2}, "there is no key 'replica'. Allowed: name, model, alias, engine, replicas, port, memory"),
        ({"name": "iris_2"}, "name is 'iris_2'. Allowed: letters, digits and single dashes"),
        ({"name": "-iris"}, "name is '-iris'"),
        ({"name": "a--b"}, "name is 'a--b'"),
        ({"name": "iris\n"}, "name is 'iris\\n'"),
        ({"name": "größe"}, "name is 'gr\\xf6\\xdfe'"),
        ({"name": ""}, "name is ''"),
        ({"name": "a" * 33}, "at most 32 characters"),
        ({"name": 7}, "name is 7, which is no text"),
        ({"name": None}, "name is None"),
        ({"model": "a/b"}, "model is 'a/b'. Allowed: the name of a registered model"),
        ({"model": "a:b"}, "without / and :"),
        ({"model": ""}, "model is ''"),
        ({"model": "x" * 257}, "1 to 256 characters"),
        ({"alias": "latest"}, "alias is 'latest'"),
        ({"alias": "v1"}, "alias is 'v1'"),
        ({"alias": "a.b"}, "alias is 'a.b'"),
        ({"alias": "x" * 256}, "at most 255"),
        ({"alias": True}, "alias is True, which is no text"),
        ({"engine": "mlserver"}, "engine is 'mlserver'. Allowed: mlflow or api"),
        ({"engine": ["api"]}, "engine is ['api']"),
        ({"replicas": 0}, "replicas is 0. Allowed: 1 to 100"),
        ({"replicas": True}, "replicas is True, which is no whole number"),
        ({"replicas": "2"}, "replicas is '2', which is no whole number"),
        ({"replicas": 1.0}, "replicas is 1.0"),
        ({"replicas": 10**9}, "1 to 100"),
        ({"port": 0}, "port is 0. Allowed: 1 to 65535"),
        ({"port": 65536}, "port is 65536"),
        ({"port": "9201"}, "port is '9201', which is no whole number"),
        ({"port": 5000}, "port is 5000, which the platform uses itself. Allowed: 1 to 65535 except 5000, 8000"),
        ({"memory": "lots"}, "memory is 'lots'. Allowed: a size such as 512m or 2g"),
        ({"memory": 512}, "memory is 512, which is no text"),
        ({"challenger": "next"}, "challenger is 'next'. Allowed: a mapping"),
        ({"challenger": {"alias": "next"}}, "challenger.percent is missing"),
        ({"challenger": {"percent": 0}}, "challenger.percent is 0. Allowed: 1 to 99"),
        ({"challenger": {"percent": 100}}, "challenger.percent is 100"),
        ({"challenger": {"percent": True}}, "which is no whole number"),
        ({"challenger": {"percent": 5, "share": 5}}, "challenger has no key 'share'. Allowed: alias, percent"),
        ({"challenger": {"alias": "champion", "percent": 5}}, "the alias of the model itself"),
        (
            {"build_from_source": "a==1"},
            "build_from_source is 'a==1'. Allowed: a list of packages, each in one version",
        ),
        ({"build_from_source": ["a"]}, "build_from_source is ['a']"),
        ({"build_from_source": ["a>=1"]}, "build_from_source is ['a>=1']"),
        ({"build_from_source": ["a==1.*"]}, "build_from_source is ['a==1.*']"),
        ({"build_from_source": ["a==1\nb==2"]}, "build_from_source is ['a==1\\nb==2']"),
        ({"build_from_source": ["a @ file:///a==1"]}, "build_from_source is ['a @ file:///a==1']"),
        ({"build_from_source": ["--index-url==1"]}, "build_from_source is ['--index-url==1']"),
        ({"build_from_source": [{"name": "a", "version": "1"}]}, "build_from_source is [{'name': 'a'"),
        ({"build_from_source": {"a": "1"}}, "build_from_source is {'a': '1'}"),
        ({"build_from_source": None}, "build_from_source is None"),
        ({"allow_pickle": "yes"}, "allow_pickle is 'yes'. Allowed: true, false or a list of versions"),
        ({"allow_pickle": 3}, "allow_pickle is 3"),
        ({"allow_pickle": ["v3"]}, "allow_pickle is ['v3']"),
        ({"allow_pickle": ["3", True]}, "allow_pickle is ['3', True]"),
        ({"allow_pickle": [0]}, "allow_pickle is [0]"),
        ({"allow_pickle": [{"a": 1}]}, "allow_pickle is [{'a': 1}]"),
        ({"allow_pickle": {"3": True}}, "allow_pickle is {'3': True}"),
        ({"packages": "libgomp1"}, "packages is 'libgomp1'. Allowed: a list of names of Debian packages"),
        ({"packages": None}, "packages is None"),
        ({"packages": ["libgomp1=14"]}, "packages is ['libgomp1=14']"),
        ({"packages": ["libgomp1-"]}, "packages is ['libgomp1-']"),
        ({"packages": ["-y"]}, "packages is ['-y']"),
        ({"packages": ["./evil.deb"]}, "packages is ['./evil.deb']"),
        ({"packages": ["a b"]}, "packages is ['a b']"),
        ({"packages": ["a;id"]}, "packages is ['a;id']"),
        ({"packages": ["libgomp1\n"]}, "packages is ['libgomp1\\n']"),
        ({"labels": "setosa"}, "labels is 'setosa'. Allowed: a mapping of classes to texts such as"),
        ({"labels": None}, "labels is None"),
        ({"labels": [1, 2]}, "labels is [1, 2]"),
        ({"labels": {"0": ["a"]}}, "labels is {'0': ['a']}"),
        ({"labels": {True: "a"}}, "labels is {True: 'a'}"),
        ({"labels": [""]}, "labels is ['']"),
        ({"labels": ["a\nb"]}, "labels is ['a\\nb']"),
        ({"labels": ["x" * 81]}, "labels is ['xxx"),
        ({"labels": ["x"] * 101}, "labels is ['x', 'x'"),
        ({"egress": "db:5432"}, "egress is 'db:5432'. Allowed: a list of names with ports such as"),
        ({"egress": ["db"]}, "egress has 'db'"),
        ({"egress": ["10.0.0.5:5432"]}, "egress has '10.0.0.5:5432'"),
        ({"egress": ["[::1]:443"]}, "egress has '[::1]:443'"),
        ({"egress": ["169.254.169.254:80"]}, "egress has '169.254.169.254:80'"),
        ({"egress": ["2852039166:80"]}, "egress has '2852039166:80'"),
        ({"egress": ["0x7f.1:80"]}, "egress has '0x7f.1:80'"),
        ({"egress": ["0x7f000001:80"]}, "egress has '0x7f000001:80'"),
        ({"egress": ["127.0.0.0x1:80"]}, "egress has '127.0.0.0x1:80'"),
        ({"egress": ["localhost:80"]}, "egress has 'localhost:80'"),
        ({"egress": ["*.example.com:443"]}, "egress has '*.example.com:443'"),
        ({"egress": ["https://example.com:443"]}, "egress has 'https://example.com:443'"),
        ({"egress": ["example.com:0"]}, "egress has 'example.com:0'"),
        ({"egress": ["example.com:65536"]}, "egress has 'example.com:65536'"),
        ({"egress": ["example.com:443\n"]}, "egress has 'example.com:443\\n'"),
        ({"egress": [443]}, "egress has 443"),
    ],
)
def test_refused(change: dict[str, Any], says: str) -> None:
    message = refusal({"name": "iris", **change}, reserved_ports=[8000, 5000])
    assert "served_models[0]" in message
    assert says in message
    assert message.endswith("Edit served_models in inventory/<name>/group_vars/all/ and run the same command again.")


def test_a_missing_name() -> None:
    assert "served_models[0]: name is missing" in refusal({"engine": "api"})


def test_an_entry_that_is_no_mapping() -> None:
    assert "served_models[1]: is 'iris'. Allowed: a mapping" in refusal({"name": "a"}, "iris")


def test_names_equal_but_for_case() -> None:
    assert "served_models[1] ('IRIS'): served_models[0] has that name already" in refusal(
        {"name": "iris"}, {"name": "IRIS"}
    )


def test_two_models_on_one_port() -> None:
    message = refusal({"name": "a", "port": 9201}, {"name": "b", "port": 9201})
    assert "served_models[1] ('b'): port 9201 belongs to served_models[0] ('a') already" in message


def test_a_service_name_too_long_for_dns() -> None:
    entry = {"name": "a" * 32, "challenger": {"percent": 5}}
    assert served_models([{"name": "a" * 32}], platform_name="mlflow-anywhere")
    assert "66 characters. Allowed: 63: shorten name or platform_name by 3" in refusal(
        entry, platform_name="mlflow-anywhere"
    )


def test_every_mistake_is_in_one_message() -> None:
    message = refusal({"name": "a", "replica": 1, "port": 5000}, {"name": "b", "engine": "x"}, reserved_ports=[5000])
    assert message.startswith("served_models has 3 problems:\n- served_models[0] ('a'): there is no key 'replica'")
    assert message.count("\n- ") == 3


def test_where_to_edit_can_be_said() -> None:
    assert "inventory/fleet/group_vars/all/" in refusal({}, where="inventory/fleet/group_vars/all/")


def test_destinations_are_kept_by_host() -> None:
    given = ["db-1.example.com:5432", "api:443", "db-1.example.com:80", "api:443"]
    assert served_models([{"name": "iris", "egress": given}])[0]["egress"] == [
        {"host": "api", "ports": [443]},
        {"host": "db-1.example.com", "ports": [80, 5432]},
    ]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "name": st.sampled_from(["iris", "Iris", "digits"]) | JSON,
    "model": st.sampled_from(["iris", "prod.iris"]) | JSON,
    "alias": st.sampled_from(["champion", "v1"]) | JSON,
    "engine": st.sampled_from(["mlflow", "api"]) | JSON,
    "replicas": st.integers(0, 4) | JSON,
    "port": st.sampled_from([5000, 9201, 9202]) | JSON,
    "memory": st.sampled_from(["1g", "512m"]) | JSON,
    "build_from_source": st.lists(st.text() | st.just("a==1")) | JSON,
    "egress": st.lists(st.sampled_from(["a.b:1", "a.b:2", "c:99999"]) | JSON, max_size=3) | JSON,
    "packages": st.lists(st.sampled_from(["libgomp1", "g++", "a"]) | JSON, max_size=3) | JSON,
    "labels": st.lists(st.text(max_size=3))
    | st.dictionaries(st.integers() | st.text(max_size=3), st.text(max_size=3))
    | JSON,
    "allow_pickle": st.booleans() | st.lists(st.integers(0, 9) | st.text()) | JSON,
    "challenger": st.fixed_dictionaries({"percent": st.integers(0, 100) | JSON}, optional={"alias": JSON}) | JSON,
}
ENTRY = st.fixed_dictionaries({}, optional=VALUES)


@given(JSON | st.lists(ENTRY | JSON, max_size=4))
def test_any_input_is_a_list_or_a_refusal(value: object) -> None:
    try:
        models = served_models(value, reserved_ports=[5000, 8000])
    except AnsibleFilterError:
        return
    assert isinstance(value, list)
    assert len(models) == len(value)
    ports = [model["port"] for model in models if model["port"] is not None]
    assert len(ports) == len(set(ports))
    assert not {5000, 8000} & set(ports)
    assert all(len(model["challenger_service"] or model["service"]) <= 63 for model in models)
