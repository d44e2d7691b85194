import pytest

from serving import errors
from serving.errors import InvalidInput, Problem, ServingError

TABLE = [
    (errors.BadRequest, 400),
    (errors.NotFound, 404),
    (errors.RequestTimeout, 408),
    (errors.TooLarge, 413),
    (errors.UnsupportedMediaType, 415),
    (errors.QueueFull, 429),
    (errors.ModelFailed, 500),
    (errors.NotReady, 503),
    (errors.DeadlineExceeded, 504),
]


@pytest.mark.parametrize(("kind", "status"), TABLE)
def test_status_and_body(kind: type[ServingError], status: int) -> None:
    error = kind("why")
    assert error.status == status
    assert error.body() == {"error_code": error.code, "message": "why"}


def test_codes_are_those_of_mlflow_where_it_has_them() -> None:
    from mlflow.protos.databricks_pb2 import ErrorCode

    own = {"DEADLINE_EXCEEDED"} - set(ErrorCode.keys())
    assert {kind.code for kind, _ in TABLE} - own <= set(ErrorCode.keys())
    assert InvalidInput.code in set(ErrorCode.keys())


def test_method_not_allowed_names_the_methods() -> None:
    error = errors.MethodNotAllowed("no", "GET, HEAD")
    assert (error.status, error.headers) == (405, {"allow": "GET, HEAD"})


def test_those_that_may_be_repeated_say_when() -> None:
    assert errors.QueueFull("").headers["retry-after"] == "1"
    assert errors.NotReady("").headers["retry-after"] == "5"


def test_problems_have_paths() -> None:
    error = InvalidInput([Problem(("body", 0, "a"), "bad", "float_type"), Problem(("body", 1), "worse", "missing")])
    assert error.status == 422
    assert error.message == "body.0.a: bad (1 more in detail)"
    assert error.body()["detail"] == [
        {"loc": ["body", 0, "a"], "msg": "bad", "type": "float_type"},
        {"loc": ["body", 1], "msg": "worse", "type": "missing"},
    ]


def test_a_problem_of_the_whole_body_has_no_path() -> None:
    assert InvalidInput([Problem((), "bad", "value")]).message == "bad"


def test_long_names_are_shortened() -> None:
    error = InvalidInput([Problem(("body", "x" * 10_000), "bad", "extra_forbidden")])
    assert len(str(error.body())) < 1000
