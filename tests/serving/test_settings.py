from pathlib import Path

import pytest

from serving.settings import Settings, SettingsError


def test_defaults() -> None:
    settings = Settings.from_environment({})
    assert settings == Settings()
    assert settings.model_path == Path("/opt/model")
    assert (settings.host, settings.port, settings.workers, settings.timeout) == ("0.0.0.0", 8080, 1, 30.0)
    assert settings.max_body == 64 * 1024 * 1024
    assert settings.access_log is False


def test_every_kind_of_value() -> None:
    settings = Settings.from_environment(
        {
            "SERVING_MODEL_PATH": "/m",
            "SERVING_PORT": "9201",
            "SERVING_TIMEOUT": "2.5",
            "SERVING_ACCESS_LOG": "True",
            "SERVING_METRICS": '{"accuracy": 1}',
            "SERVING_NAME": "digits",
            "SERVING_LABELS": '{"0": "zero"}',
            "UNRELATED": "x",
        }
    )
    assert settings == Settings(model_path=Path("/m"), port=9201, timeout=2.5, access_log=True,
                                metrics={"accuracy": 1.0}, name="digits", labels={"0": "zero"})  # fmt: skip


def test_an_empty_variable_is_none() -> None:
    assert Settings.from_environment({"SERVING_PORT": "", "SERVING_METRICS": " "}) == Settings()


def test_the_registered_name_stands_in_for_the_name() -> None:
    assert Settings.from_environment({"SERVING_MODEL": "prod.fraud"}).name == "prod.fraud"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PORT", "x"),
        ("PORT", "70000"),
        ("WORKERS", "0"),
        ("TIMEOUT", "nan"),
        ("TIMEOUT", "-1"),
        ("ACCESS_LOG", "maybe"),
        ("METRICS", "[1]"),
        ("METRICS", '{"a": "b"}'),
        ("QUEUE", "1.5"),
    ],
)
def test_a_wrong_value_names_the_variable(name: str, value: str) -> None:
    with pytest.raises(SettingsError, match=f"SERVING_{name}"):
        Settings.from_environment({f"SERVING_{name}": value})
