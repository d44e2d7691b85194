import io
import json
import time
from typing import Any

import numpy as np
import pytest
from pace import too_late

from serving import limits
from serving.errors import BadRequest, InvalidInput, TooLarge, UnsupportedMediaType
from serving.frames import matrix
from serving.scoring import CSV, JSON, PARQUET, Chat, Scoring, answer
from serving.signature import Batch, Column, Param, Signature, Tensor
from tests.serving.transport import DENSE, FLOWER, IMAGE, MIXED, NAMES, ROW


def no_raw() -> Any:
    raise AssertionError("MLflow's parser is not needed here")


def read(signature: Signature, document: Any, content_type: str | None = JSON, **more: Any) -> Batch:
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    return Scoring(signature, no_raw, **more).read(body, content_type)


def problems(signature: Signature, document: Any) -> dict[tuple[str | int, ...], str]:
    with pytest.raises(InvalidInput) as caught:
        read(signature, document)
    return {item.loc: item.type for item in caught.value.problems}


TABLE = [[5.1, 3.5], [4.9, 3.0]]
FORMS = [
    {"dataframe_split": {"columns": list(NAMES), "data": TABLE}},
    {"dataframe_split": {"index": [7, 8], "columns": list(NAMES), "data": TABLE}},
    {"dataframe_split": {"columns": list(NAMES[::-1]), "data": [row[::-1] for row in TABLE]}},
    {"dataframe_split": {"columns": [*NAMES, "extra"], "data": [[*row, "x"] for row in TABLE]}},
    {"dataframe_records": [dict(zip(NAMES, row, strict=True)) for row in TABLE]},
    {"dataframe_records": [{"extra": 1, **dict(zip(NAMES, row, strict=True))} for row in TABLE]},
    {"instances": [dict(zip(NAMES, row, strict=True)) for row in TABLE]},
    {"inputs": [dict(zip(NAMES, row, strict=True)) for row in TABLE]},
    {"inputs": {name: [row[place] for row in TABLE] for place, name in enumerate(NAMES)}, "params": {"a": 1}},
    {"instances": {name: [row[place] for row in TABLE] for place, name in enumerate(NAMES)}, "unknown": 5},
]


@pytest.mark.parametrize("form", FORMS)
def test_all_forms_of_a_table(form: Any) -> None:
    batch = read(DENSE, form)
    assert batch.rows == 2
    assert matrix(DENSE, batch).tolist() == TABLE
    assert batch.params is None


def test_names_as_every_client_writes_them() -> None:
    """In turns, because the reader remembers how the last one wrote them."""
    scoring = Scoring(DENSE, no_raw)
    alike = [b'["sepal length (cm)","sepal width (cm)"]', b'["\\u0073epal length (cm)" , "sepal width (cm)"]']
    turned, wrong = b'["sepal width (cm)","sepal length (cm)"]', b'["sepal length (cm)","sepal"]'
    for names in (*alike, turned, *alike, wrong, *alike):
        body = b'{"dataframe_split": {"columns": %b, "data": [[1, 2]]}}' % names
        if names == wrong:
            with pytest.raises(InvalidInput):
                scoring.read(body, JSON)
        else:
            row = [2.0, 1.0] if names == turned else [1.0, 2.0]
            assert matrix(DENSE, scoring.read(body, JSON)).tolist() == [row]


@pytest.mark.parametrize("kind", ["double", "float", "integer", "long"])
@pytest.mark.parametrize(("width", "rows"), [(3, 1), (3, 200), (300, 1), (300, 3)])
def test_rows_of_every_size(kind: Any, width: int, rows: int) -> None:
    signature = Signature(columns=tuple(Column(f"c{place}", kind) for place in range(width)))
    values = np.arange(rows * width).reshape(rows, width) + (0.1 if kind in {"double", "float"} else 0)
    document = {"dataframe_split": {"columns": [f"c{place}" for place in range(width)], "data": values.tolist()}}
    found = matrix(signature, read(signature, document))
    assert found.dtype == signature.dense_dtype
    assert found.tolist() == values.astype(signature.dense_dtype).tolist()


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("value", [1e39, -1e39, 3.5e38])
def test_wide_tensors_that_single_precision_cannot_hold(value: float) -> None:
    signature = Signature(tensors=(Tensor(None, np.dtype("float32"), (-1, 300)),))
    for largest in (3.4028234663852886e38, 3.4028235e38):
        numbers = matrix(signature, read(signature, {"inputs": [[largest] * 300]}))
        assert numbers.min() == np.finfo(np.float32).max
    for row in ([value] + [0.0] * 299, [0.0] * 299 + [value]):
        found = problems(signature, {"inputs": [row]})
        assert found == {("body", "inputs", 0, row.index(value)): "number_out_of_range"}


@pytest.mark.parametrize("dtype", ["float32", "float64", "int32"])
@pytest.mark.parametrize("row", [[0, 255, 7], [0, 256, 7], [-1, 0, 0], [2**30, 0, 1], [0, 1, 2] * 200])
def test_integers_for_tensors(dtype: str, row: list[int]) -> None:
    signature = Signature(tensors=(Tensor(None, np.dtype(dtype), (-1, len(row))),))
    for rows in ([row], [row, row[::-1]]):
        found = matrix(signature, read(signature, {"inputs": rows}))
        assert found.dtype == np.dtype(dtype)
        assert found.tolist() == np.array(rows, dtype).tolist()
    for wrong in (row[1:], [*row, 1], []):
        assert problems(signature, {"inputs": [row, wrong]})
    assert problems(signature, {"inputs": [[*row[1:], True]]})


def test_a_single_value_stands_for_a_row() -> None:
    assert matrix(DENSE, read(DENSE, {"inputs": FLOWER})).tolist() == [[5.1, 3.5]]


def test_csv() -> None:
    body = ",".join(f'"{name}"' for name in NAMES).encode() + b"\n5.1,3.5\n4.9,3\n"
    for kind in ("text/csv", "text/csv; charset=utf-8", "Text/CSV;charset=UTF-8"):
        assert matrix(DENSE, read(DENSE, body, kind)).tolist() == TABLE


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_lines_of_csv_end_as_on_any_machine(end: str) -> None:
    batch = read(DENSE, end.join([",".join(NAMES), "1,2", "3,4", ""]).encode(), "text/csv")
    assert matrix(DENSE, batch).tolist() == [[1.0, 2.0], [3.0, 4.0]]


def test_csv_of_every_type() -> None:
    body = b"flag,small,big,share,word,when\ntrue,1,9007199254740993,0.5,a,2024-01-02\n"
    batch = read(MIXED, body, "text/csv")
    assert {name: values.tolist() for name, values in batch.data.items() if name != "when"} == {
        "flag": [True], "small": [1], "big": [9007199254740993], "share": [0.5], "word": ["a"]}  # fmt: skip
    assert batch.data["when"].astype("datetime64[s]").tolist()[0].year == 2024


@pytest.mark.parametrize("body", [b"", b"a,b\n1,2\n3,4,5,6\n", b"\xff\xfe", b'"sepal length (cm)"\nx\n'])
def test_csv_that_is_no_table(body: bytes) -> None:
    with pytest.raises((BadRequest, InvalidInput)):
        read(DENSE, body, "text/csv")


@pytest.mark.parametrize(
    ("row", "columns"),
    [("true,3000000000,1,0.5,a", ["small"]), ("true,1.5,1,0.5,a", ["small"]), ("yes,1,9223372036854775808,0.5,a", ["flag", "big"]),
     ("true,1,1e999,x,a", ["big", "share"]), (",,,,", ["flag", "small", "big"]), ("1,1_0,-,1_0.5,a", ["flag", "small", "big", "share"]),
     ("true,1,1,1e39,a", ["share"]), (f"true,{'9' * 5000},1,0.5,a", ["small"])],
)  # fmt: skip
def test_cells_that_are_not_of_their_columns_type(row: str, columns: list[str]) -> None:
    with pytest.raises(InvalidInput) as caught:
        read(MIXED, f"flag,small,big,share,word\ntrue,1,1,0.5,a\n{row}\n".encode(), "text/csv")
    assert [item.loc for item in caught.value.problems] == [("body", 1, name) for name in columns]


def test_csv_with_very_many_columns_is_refused_before_pandas_sees_it() -> None:
    begin = time.monotonic()
    for header in (b"a," * 40_000, b"," * 40_000, b" \n" + b"a," * 40_000):
        with pytest.raises(TooLarge):
            read(DENSE, header + b"b\n" + b"1," * 40_000 + b"1", "text/csv")
    assert not too_late(begin, 2)
    more = [*NAMES, *(f"c{place}" for place in range(500))]
    assert read(DENSE, (",".join(more) + "\n" + ",".join(["1"] * 502)).encode(), "text/csv").rows == 1


def parquet(frame: Any, **more: Any) -> bytes:
    file = io.BytesIO()
    frame.to_parquet(file, **more)
    return file.getvalue()


def test_parquet() -> None:
    import pandas as pd

    kind = "application/vnd.apache.parquet"
    flowers = pd.DataFrame(TABLE, columns=list(NAMES))
    assert matrix(DENSE, read(DENSE, parquet(flowers), kind)).tolist() == TABLE
    with pytest.raises(UnsupportedMediaType):
        read(DENSE, parquet(flowers, compression="gzip"), kind)
    with pytest.raises(BadRequest):
        read(DENSE, b"PAR1", kind)
    # Kilobytes that stand for ten million cells: the same number over and over.
    bomb = parquet(pd.DataFrame({name: pd.Series([1.0]).repeat(5_000_000) for name in NAMES}, copy=False), index=False)
    assert len(bomb) < 100_000
    with pytest.raises(TooLarge, match="5000000 rows of 2 columns"):
        read(DENSE, bomb, kind)


@pytest.mark.parametrize("kind", [CSV, PARQUET])
def test_tables_have_limits_of_their_own(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import pandas as pd

    frame = pd.DataFrame(TABLE, columns=list(NAMES))
    body = frame.to_csv(index=False).encode() if kind == CSV else parquet(frame)
    monkeypatch.setattr(limits, "TABLE_CELLS", frame.size + 2)
    assert read(DENSE, body, kind).rows == len(frame)
    monkeypatch.setattr(limits, "TABLE_CELLS", frame.size - 1)
    with pytest.raises(TooLarge, match="cells"):
        read(DENSE, body, kind)
    with pytest.raises(TooLarge, match=f"limit for {kind} is {limits.TABLE_BYTES}"):
        read(DENSE, body + b" " * limits.TABLE_BYTES, kind)


def test_cells_that_no_byte_stands_for_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "CELLS", 5)
    for form in ("dataframe_records", "instances"):
        with pytest.raises(TooLarge, match="3 rows of 2 columns"):
            read(DENSE, json.dumps({form: [{}, {}, {}]}).encode())
    with pytest.raises(TooLarge, match="3 rows of 4 columns"):
        read(IMAGE, json.dumps({"dataframe_records": [{"a": 1, "b": 1, "c": 1, "d": 1}, {}, {}]}).encode())


def test_a_long_text_among_many_short_ones_does_not_make_all_of_them_long() -> None:
    signature = Signature(tensors=(Tensor(None, np.dtype("<U1"), (-1,)),))
    with pytest.raises(TooLarge):
        read(signature, json.dumps({"inputs": ["x" * 10_000, *["x"] * 10_000]}).encode())


@pytest.mark.parametrize(
    "kind", ["application/json; charset=utf-8", 'application/json;charset="UTF-8"', "APPLICATION/JSON"]
)
def test_content_types(kind: str) -> None:
    assert read(DENSE, {"inputs": FLOWER}, kind).rows == 1


@pytest.mark.parametrize(
    "kind",
    [
        None,
        "",
        "text/plain",
        "application/x-www-form-urlencoded",
        "application/json; charset=latin-1",
        "application/json; a=b",
    ],
)
def test_other_content_types(kind: str | None) -> None:
    with pytest.raises(UnsupportedMediaType):
        read(DENSE, {"inputs": FLOWER}, kind)


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"null", b"[]", b"5", b"{}", b'"x"', b"\xff", b"[" * 100_000, b'{"inputs": NaN}', b'{"inputs": [Infinity]}',
     b'{"inputs": [1], "instances": [1]}', b'{"data": [1]}', b'{"dataframe_split": [1]}', b'{"dataframe_split": {}}',
     b'{"dataframe_split": {"data": [[1, 2]], "more": 1}}', b'{"dataframe_records": {"a": 1}}', b"\xef\xbb\xbf{}",
     b'{"inputs": "\\ud800"}', '{"inputs": {"a": 1}}'.encode("utf-16"), b'{"inputs": {"a": 1}} x'],
)  # fmt: skip
def test_bodies_that_cannot_be_read(body: bytes) -> None:
    with pytest.raises(BadRequest) as caught:
        read(DENSE, body)
    assert len(caught.value.message) < 200


def test_numbers_out_of_range() -> None:
    for number in (b"1e999", b"-1e999", b"1" + b"0" * 400, b"9" * 5000):
        with pytest.raises(InvalidInput):
            read(DENSE, b'{"inputs": {"sepal length (cm)": %b, "sepal width (cm)": 1}}' % number)


def test_integers_for_columns_of_doubles() -> None:
    batch = read(DENSE, b'{"inputs": {"sepal length (cm)": 1%b, "sepal width (cm)": 2}}' % (b"0" * 30))
    assert matrix(DENSE, batch).tolist() == [[1e30, 2.0]]


def test_duplicate_keys_take_the_last() -> None:
    batch = read(
        DENSE, b'{"dataframe_records": [{"sepal length (cm)": 1, "sepal width (cm)": 2, "sepal width (cm)": 3}]}'
    )
    assert matrix(DENSE, batch).tolist() == [[1.0, 3.0]]


@pytest.mark.parametrize("form", [{"dataframe_records": []}, {"inputs": []}, {"instances": []}, {"inputs": {name: [] for name in NAMES}},
                                  {"dataframe_split": {"columns": list(NAMES), "data": []}}])  # fmt: skip
def test_no_row(form: Any) -> None:
    assert set(problems(DENSE, form).values()) == {"too_short"}


def test_every_problem_has_its_path() -> None:
    rows = [{NAMES[0]: "1.0", NAMES[1]: True}, {NAMES[0]: [1]}]
    assert problems(DENSE, {"dataframe_records": rows}) == {
        ("body", "dataframe_records", 0, NAMES[0]): "double_type",
        ("body", "dataframe_records", 0, NAMES[1]): "double_type",
        ("body", "dataframe_records", 1, NAMES[0]): "double_type",
        ("body", "dataframe_records", 1, NAMES[1]): "missing",
    }
    split = {"columns": list(NAMES), "data": [[1, 2], [1, "x"], [3]]}
    assert problems(DENSE, {"dataframe_split": split}) == {("body", "dataframe_split", "data", 2): "length"}
    assert problems(DENSE, {"dataframe_split": {**split, "data": [[1, 2], [1, "x"]]}}) == {
        ("body", "dataframe_split", "data", 1, 1): "double_type"
    }
    assert problems(DENSE, {"inputs": {NAMES[0]: [1, 2], NAMES[1]: [1]}}) == {("body", "inputs", NAMES[1]): "length"}
    assert problems(DENSE, {"inputs": {NAMES[0]: 1}}) == {("body", "inputs", NAMES[1]): "missing"}


def test_at_most_twenty_problems() -> None:
    rows = [{NAMES[0]: "x", NAMES[1]: "y"}] * 50
    assert len(problems(DENSE, {"dataframe_records": rows})) == 20


WRONG = [
    ("flag", "true"), ("flag", 1), ("flag", None), ("small", 2**31), ("small", -(2**31) - 1), ("small", 1.5), ("small", "1"),
    ("small", True), ("small", None), ("big", 2**63), ("big", 1e30), ("big", 2**70), ("share", 1e39), ("share", "0.5"),
    ("share", False), ("size", {}), ("word", 5), ("word", ["a"]), ("blob", "%%%"), ("blob", 5), ("when", "soon"), ("when", 5),
]  # fmt: skip


@pytest.mark.parametrize(("name", "value"), WRONG)
def test_nothing_is_coerced(name: str, value: Any) -> None:
    assert set(problems(MIXED, {"dataframe_records": [{**ROW, name: value}]})) == {
        ("body", "dataframe_records", 0, name)
    }


RIGHT = [
    ("small", 2**31 - 1, 2**31 - 1), ("small", 3.0, 3), ("big", -(2**63), -(2**63)), ("big", 2**53 + 1, 2**53 + 1),
    ("share", 1, 1.0), ("size", 2**60, float(2**60)), ("word", "\u00e4\U0001f33c", "\u00e4\U0001f33c"), ("word", None, None),
    ("blob", "YWJj", b"abc"), ("blob", "", b""), ("blob", None, None),
]  # fmt: skip


@pytest.mark.parametrize(("name", "value", "expected"), RIGHT)
def test_what_fits_is_taken(name: str, value: Any, expected: Any) -> None:
    batch = read(MIXED, {"dataframe_records": [{**ROW, name: value}]})
    assert batch.data[name].tolist() == [expected]
    assert batch.data[name].dtype == {column.name: column.dtype for column in MIXED.columns}[name]


def test_null_is_nan_where_there_is_one() -> None:
    batch = read(MIXED, {"dataframe_records": [{**ROW, "share": None}, ROW]})
    assert np.isnan(batch.data["share"][0])
    assert read(DENSE, {"inputs": {NAMES[0]: None, NAMES[1]: 1}}).data[NAMES[0]].dtype == np.float64


def test_optional_columns_may_be_absent() -> None:
    short = {name: ROW[name] for name in ("flag", "small", "big", "share", "word")}
    assert set(read(MIXED, {"dataframe_records": [short]}).data) == set(short)
    batch = read(MIXED, {"dataframe_records": [short, ROW]})
    assert np.isnan(batch.data["size"][0])
    assert batch.data["blob"].tolist() == [None, b"abc"]
    assert np.isnat(batch.data["when"][0])


@pytest.mark.parametrize(
    "text", ["2024-01-02T03:04:05", "2024-01-02 03:04:05", "2024-01-02T05:04:05+02:00", "2024-01-02T03:04:05Z"]
)
def test_dates(text: str) -> None:
    values = read(MIXED, {"dataframe_records": [{**ROW, "when": text}]}).data["when"]
    assert values.dtype == np.dtype("datetime64[ns]")
    assert str(values[0].astype("datetime64[s]")) == "2024-01-02T03:04:05"


def test_dates_of_one_column_may_differ_in_precision() -> None:
    texts = ["2024-02-29T12:00:00", "2024-02-29T12:00:00.5", "2024-02-29"]
    values = read(MIXED, {"dataframe_records": [{**ROW, "when": text} for text in texts]}).data["when"]
    assert [str(value)[:21] for value in values] == [
        "2024-02-29T12:00:00.0",
        "2024-02-29T12:00:00.5",
        "2024-02-29T00:00:00.0",
    ]
    assert problems(MIXED, {"dataframe_records": [{**ROW, "when": "soon"}, ROW]}) == {
        ("body", "dataframe_records", 0, "when"): "datetime_type"}  # fmt: skip


@pytest.mark.parametrize("key", ["prompt", "input"])
def test_a_completion_is_a_record_of_a_model_with_that_column(key: str) -> None:
    signature = Signature(columns=(Column(key, "string"),), params=(Param("limit", "long", 5),))
    batch = read(signature, {key: "hello!", "limit": 7})
    assert (type(batch), batch.rows, batch.data[key].tolist(), batch.params) == (Chat, 1, ["hello!"], {"limit": 7})
    assert problems(signature, {key: 1, "limit": "x"}) == {("body", key): "string_type"}
    assert problems(signature, {"messages": "x"}) == {("body", key): "missing"}


def test_params() -> None:
    row = {"dataframe_records": [ROW]}
    assert read(MIXED, {**row, "params": {"limit": 5, "names": ["x"], "unknown": 1}}).params == {
        "limit": 5,
        "names": ["x"],
    }
    assert read(MIXED, row).params is None
    assert problems(MIXED, {**row, "params": {"limit": "5", "names": "x"}}) == {
        ("body", "params", "limit"): "integer_type",
        ("body", "params", "names"): "list_type",
    }
    assert problems(MIXED, {**row, "params": [1]}) == {("body", "params"): "object_type"}


def test_limit_of_rows() -> None:
    with pytest.raises(TooLarge):
        read(DENSE, FORMS[0], max_rows=1)
    assert read(DENSE, FORMS[0], max_rows=2).rows == 2


PIXELS = [[float(value) for value in range(64)]] * 2


@pytest.mark.parametrize("form", [{"inputs": PIXELS}, {"instances": PIXELS},
                                  {"dataframe_split": {"columns": list(range(64)), "data": PIXELS}},
                                  {"dataframe_split": {"columns": ["image"], "data": [[row] for row in PIXELS]}},
                                  {"dataframe_records": [{f"p{place}": value for place, value in enumerate(row)} for row in PIXELS]}])  # fmt: skip
def test_all_forms_of_a_tensor(form: Any) -> None:
    rows = matrix(IMAGE, read(IMAGE, form))
    assert rows.tolist() == PIXELS
    assert rows.dtype == np.float32


def test_tensors_that_do_not_fit() -> None:
    assert set(problems(IMAGE, {"inputs": [[1.0] * 63]}).values()) == {"shape"}
    assert set(problems(IMAGE, {"inputs": [1.0] * 64}).values()) == {"shape"}
    assert problems(IMAGE, {"inputs": [[1.0] * 63 + ["x"]]}) == {("body", "inputs", 0, 63): "float32_type"}
    assert problems(IMAGE, {"inputs": [[1.0] * 64, [1.0] * 10 + [1e39] + [1.0] * 53]}) == {
        ("body", "inputs", 1, 10): "number_out_of_range"
    }
    assert set(problems(IMAGE, {"inputs": [[1.0] * 64, [1.0] * 63]}).values()) == {"shape"}
    assert set(problems(IMAGE, {"inputs": {"a": 1}}).values()) == {"shape"}


def test_named_tensors() -> None:
    signature = Signature(tensors=(Tensor("a", np.dtype("int8"), (-1, 2)), Tensor("b", np.dtype("bool"), (-1,))))
    for form in ({"inputs": {"a": [[1, 2], [3, 4]], "b": [True, False]}},
                 {"instances": [{"a": [1, 2], "b": True}, {"a": [3, 4], "b": False}]}):  # fmt: skip
        data = read(signature, form).data
        assert {str(name): values.tolist() for name, values in data.items()} == {
            "a": [[1, 2], [3, 4]],
            "b": [True, False],
        }
        assert data["a"].dtype == np.int8
    assert problems(signature, {"inputs": {"a": [[1, 128]], "b": [1]}}) == {
        ("body", "inputs", "a", 0, 1): "number_out_of_range",
        ("body", "inputs", "b", 0): "bool_type",
    }
    assert set(problems(signature, {"inputs": {"a": [[1, 2]]}}).values()) == {"missing"}
    assert set(problems(signature, {"inputs": {"a": [[1, 2]], "b": [True, True]}}).values()) == {"length"}


def test_names_that_msgspec_cannot_have() -> None:
    signature = Signature(columns=(Column('a"b\\c\n', "double"), Column("", "long")))
    batch = read(signature, {"dataframe_records": [{'a"b\\c\n': 1, "": 2}]})
    assert matrix(signature, batch).tolist() == [[1.0, 2.0]]


def test_unnamed_columns() -> None:
    signature = Signature(columns=(Column("0", "double"), Column("1", "long")), unnamed=True)
    for form in ({"inputs": [[1.5, 2]]}, {"dataframe_split": {"data": [[1.5, 2]]}}, {"dataframe_split": {"columns": ["x", "y"], "data": [[1.5, 2]]}},
                 {"dataframe_records": [{"x": 1.5, "y": 2}]}):  # fmt: skip
        assert matrix(signature, read(signature, form)).tolist() == [[1.5, 2.0]]


@pytest.mark.parametrize(
    "values",
    [[0], [1, 2], [0.1, 1e-05, 1e22, 5e-324], [True, False], [1, None], ["a", "\u00e4"], [[0.1, 2], [3, 4]], [float("nan"), 1.0],
     [float("inf")], [-0.0], [{"a": 1}], [], [[True]], "text", {"a": [1]}],
)  # fmt: skip
def test_answers_are_those_of_mlflow(values: Any) -> None:
    from mlflow.pyfunc.scoring_server import predictions_to_json

    expected = io.StringIO()
    predictions_to_json(values, expected)
    assert answer(values) == expected.getvalue().encode()


def test_answers_of_arrays_and_tables_are_those_of_mlflow() -> None:
    import pandas as pd
    from mlflow.pyfunc.scoring_server import predictions_to_json

    for values in (
        np.array([1, 2]),
        np.array([0.1], dtype=np.float32),
        pd.DataFrame({"a": [1], "b": ["x"]}),
        pd.Series([1.5]),
    ):
        expected = io.StringIO()
        predictions_to_json(values, expected)
        assert answer(values) == expected.getvalue().encode()
