import json
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
import pydantic
import pytest
from mlflow.models import Model, ModelSignature
from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema
from mlflow.types.schema import Array, Object, Property

from serving.errors import BadRequest, InvalidInput
from serving.information import read
from serving.model import load
from serving.raw import RawParser
from serving.scoring import JSON, Chat, Scoring, answer
from serving.signature import Batch
from serving.typed import Typed

NESTED = Schema(
    [
        ColSpec(Array(DataType.long), "list"),
        ColSpec(Object([Property("a", DataType.string)]), "thing"),
        ColSpec(DataType.integer, "small"),
    ]
)
ROW = {"list": [1, 2], "thing": {"a": "x"}, "small": 3}


def scoring(path: Path, signature: ModelSignature | None) -> Scoring:
    model = Model(signature=signature)
    model.add_flavor("python_function", loader_module="none")
    model.save(str(path / "MLmodel"))
    return Scoring(read(path).signature, lambda: RawParser(path))


def raw(made: Scoring, document: Any) -> Batch:
    return made.read(json.dumps(document).encode(), JSON)


def test_nested_types(tmp_path: Path) -> None:
    made = scoring(tmp_path, ModelSignature(inputs=NESTED))
    for form in ({"dataframe_records": [ROW, ROW]},
                 {"dataframe_split": {"columns": list(ROW), "data": [list(ROW.values())] * 2}}):  # fmt: skip
        batch = raw(made, form)
        assert batch.rows == 2
        assert isinstance(batch.raw, pd.DataFrame)
        assert batch.raw["thing"].tolist() == [{"a": "x"}] * 2


@pytest.mark.parametrize(
    "wrong",
    [{"list": "x"}, {"list": ["x"]}, {"thing": {}}, {"thing": {"a": "x", "b": 1}}, {"small": 2**31}, {"small": "3"}],
)
def test_nested_types_that_do_not_fit(wrong: dict[str, Any], tmp_path: Path) -> None:
    made = scoring(tmp_path, ModelSignature(inputs=NESTED))
    with pytest.raises(InvalidInput) as caught:
        raw(made, {"dataframe_records": [{**ROW, **wrong}]})
    assert len(caught.value.message) < 150


def test_no_signature(tmp_path: Path) -> None:
    made = scoring(tmp_path, None)
    assert raw(made, {"dataframe_records": [{"x": 1}, {"x": 2}]}).raw["x"].tolist() == [1, 2]
    assert raw(made, {"inputs": [[1, 2], [3, 4]]}).raw.tolist() == [[1, 2], [3, 4]]
    assert made.read(b"x\n1\n2\n", "text/csv").rows == 2
    with pytest.raises(InvalidInput):
        raw(made, {"dataframe_records": []})
    with pytest.raises(BadRequest):
        raw(made, {"x": 1})


def test_chats(tmp_path: Path) -> None:
    params = ParamSchema([ParamSpec("heat", DataType.double, 1.0)])
    signature = ModelSignature(
        inputs=Schema([ColSpec(Array(Object([Property("content", DataType.string)])), "messages")]), params=params
    )
    batch = raw(scoring(tmp_path, signature), {"messages": [{"content": "hello"}], "heat": 0.5})
    assert batch.raw == {"messages": [{"content": "hello"}]}
    assert batch.params == {"heat": 0.5}
    assert isinstance(batch, Chat)
    assert raw(scoring(tmp_path, signature), {"messages": [{"content": "hello"}]}).params == {}
    assert answer(["hi"], wrapped=False) == b'["hi"]'


class Message(pydantic.BaseModel):
    text: str


class Loud(mlflow.pyfunc.PythonModel):  # type: ignore[misc]
    def predict(self, model_input: list[Message]) -> list[str]:
        return [message.text.upper() for message in model_input]


@pytest.mark.filterwarnings("ignore")
def test_a_model_with_type_hints_answers_its_own_example(tmp_path: Path) -> None:
    path = tmp_path / "model"
    mlflow.pyfunc.save_model(
        path, python_model=Loud(), input_example=[{"text": "hi"}, {"text": "ho"}], pip_requirements=["mlflow"]
    )
    known = read(path)
    request = Typed(known, lambda: RawParser(path)).read(json.dumps(known.predict_example).encode())
    assert known.predict_example == {"0": {"text": "hi"}}
    assert load(path, known).predict(request.batch) == ["HI"]
