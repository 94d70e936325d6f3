"""Settings: where they come from, which wins, and what is told about a wrong one."""

from pathlib import Path

import pytest

from flowledger import config
from flowledger.config import Settings, load, without_password
from flowledger.errors import ConfigError


def test_without_any_setting_the_tracking_uri_is_mlflows_own_default(home: Path) -> None:
    assert f"sqlite:///{Path('mlflow.db').absolute()}" == load({}).tracking_uri


def test_an_argument_wins_over_the_environment_and_that_over_the_file(home: Path) -> None:
    Path("flowledger.yaml").write_text("environment: file\nstore_as: run\nlog_level: INFO\n")
    environ = {"FLOWLEDGER_ENVIRONMENT": "variable", "FLOWLEDGER_STORE_AS": "trace"}
    settings = load(environ, environment="argument")
    expected = ("argument", "trace", "INFO")
    assert expected == (settings.environment, settings.store_as, settings.log_level)


def test_flowledgers_own_variable_wins_over_mlflows() -> None:
    environ = {"MLFLOW_TRACKING_URI": "http://a:1", "FLOWLEDGER_TRACKING_URI": "http://b:1"}
    assert "http://b:1" == load(environ).tracking_uri
    assert "http://a:1" == load({"MLFLOW_TRACKING_URI": "http://a:1"}).tracking_uri


@pytest.mark.parametrize("switch", config.SWITCHES)
@pytest.mark.parametrize("word", ["false", "0", "no", "OFF"])
def test_each_switch_turns_recording_off(switch: str, word: str) -> None:
    assert not load({switch: word}).enabled
    assert not config.switched_on({switch: word})


def test_mlflows_experiment_name_is_taken_literally() -> None:
    settings = load({"MLFLOW_EXPERIMENT_NAME": "bots {v2}"})
    assert "bots {v2}" == settings.experiment.format()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"tracking_uri": "s3://bucket"}, "unknown scheme 's3'; use sqlite:///"),
        ({"store_as": "both"}, "use one of run\\+trace, run, trace, ledger"),
        ({"experiment": "{nope}"}, "there is no nope; use feature"),
        ({"experiment": "{"}, "is no template"),
        ({"max_content_bytes": 1}, "must be from 1024"),
        ({"max_content_bytes": "many"}, "wrong type"),
        ({"colour": "red"}, "unknown setting colour; there are: enabled"),
    ],
)
def test_a_wrong_value_is_told_with_the_values_it_takes(
    arguments: dict[str, str], sentence: str
) -> None:
    with pytest.raises(ConfigError, match=sentence):
        load({}, **arguments)


@pytest.mark.parametrize("text", ["- a\n- b\n", "a: [", "colour: red\n"])
def test_a_wrong_file_is_told(home: Path, text: str) -> None:
    Path("flowledger.yaml").write_text(text)
    with pytest.raises(ConfigError):
        load({})


@pytest.mark.parametrize(
    "line", ["collector_python: ./evil.sh", "redact: keys,evil:run", "redact: [evil:run]"]
)
def test_a_file_that_merely_lies_there_chooses_no_code_to_run(home: Path, line: str) -> None:
    file = Path("flowledger.yaml")
    file.write_text(f"{line}\n")
    name = line.partition(":")[0]
    with pytest.raises(ConfigError, match=f"sets {name}, which names code to run: set FLOWLEDGER_"):
        load({})


def test_code_to_run_is_taken_from_a_file_that_is_named(home: Path) -> None:
    file = Path("flowledger.yaml")
    file.write_text("collector_python: /usr/bin/python3\nredact: keys,mine:redact\n")
    settings = load({"FLOWLEDGER_CONFIG": str(file)})
    assert ("/usr/bin/python3", "keys,mine:redact") == (settings.collector_python, settings.redact)
    file.write_text("redact: keys,email\n")
    assert "keys,email" == load({}).redact


def test_a_file_that_is_named_must_be_there() -> None:
    with pytest.raises(ConfigError, match="no such file"):
        load({"FLOWLEDGER_CONFIG": "/nonexistent.yaml"})


def test_a_switch_that_cannot_be_read_is_told() -> None:
    with pytest.raises(ConfigError, match="MLFLOW_ENABLED='maybe': use true or false"):
        load({"MLFLOW_ENABLED": "maybe"})


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("postgresql://ana:secret@db:5432/x", "postgresql://ana@db:5432/x"),
        ("postgresql://db/x", "postgresql://db/x"),
        ("http://u:p@host:5000", "http://u@host:5000"),
        ("sqlite:////tmp/x.db", "sqlite:////tmp/x.db"),
    ],
)
def test_a_password_is_taken_out_of_a_uri(uri: str, expected: str) -> None:
    assert expected == without_password(uri)


def test_processes_with_the_same_database_share_a_journal_whatever_their_password() -> None:
    one = load({}, tracking_uri="postgresql://ana:one@db/x")
    two = load({}, tracking_uri="postgresql://ana:two@db/x")
    other = load({}, tracking_uri="postgresql://ana:one@db/y")
    assert one.destination.key == two.destination.key
    assert one.destination.key != other.destination.key


def test_every_setting_is_described() -> None:
    described = Settings.__doc__ or ""
    assert [] == [name for name in Settings.__struct_fields__ if f"    {name}: " not in described]
