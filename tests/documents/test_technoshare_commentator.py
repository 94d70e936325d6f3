"""technoshare's document: its blocks, tables and drawings, against its pipeline."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.documents.seeds import code, page
from tests.examples.test_technoshare_commentator import (
    ARTICLE,
    ARTIFACTS,
    FILTERS,
    GITHUB,
    SPANS,
    STAGES,
    Place,
    clean_deleted_run,
    comment_on_links,
    comment_switched_off,
    job_of,
    surroundings,
    variables,
)

NAME = "technoshare_commentator"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, empty_sqlite: Path) -> Iterator[Place]:
    """The server that block 1 starts, with the settings of block 2."""
    folder = tmp_path_factory.mktemp("technoshare")
    start = line_after("# Start (background)")
    assert code(NAME, 1).strip() in start
    with surroundings(folder, empty_sqlite, variables(code(NAME, 2)), start) as place:
        yield place


@pytest.fixture(scope="module")
def worked(place: Place) -> Place:
    """Four links, commented on by the worker as block 3 starts it."""
    comment_on_links(place, code(NAME, 3))
    return place


def line_after(comment: str) -> str:
    """A command of the document's last block."""
    lines = code(NAME, 7).splitlines()
    return lines[lines.index(comment) + 1]


def test_the_table_of_settings_is_what_the_file_env_gets(place: Place) -> None:
    table = re.findall(r"^\| `(MLFLOW_\w+)` \| `(.+?)` \|", page(NAME), re.MULTILINE)
    told = variables(code(NAME, 2))
    assert dict(table) == told
    assert told == variables((place.project.path / ".env").read_text())


def test_the_four_filters_of_the_document_find_the_right_runs(worked: Place) -> None:
    filters = re.findall(r"^\| [\w ]+ \| `(tags\..+?)` \|", page(NAME), re.MULTILINE)
    found = [{run.data.tags["target_url"] for run in worked.runs(text)} for text in filters]
    assert list(FILTERS.values()) == found


def test_the_artifacts_of_the_drawing_are_those_of_a_run(worked: Place) -> None:
    assert ARTIFACTS == {*re.findall(r"• (\w+\.json)", code(NAME, 5))}
    run = job_of(worked, GITHUB).info.run_id
    assert ARTIFACTS == {file.path for file in worked.client.list_artifacts(run)}


def test_the_nested_runs_of_the_drawing_are_those_of_a_job(worked: Place) -> None:
    assert STAGES == {*re.findall(r"── (\w+)", code(NAME, 6))}
    nested = worked.runs(f"tags.mlflow.parentRunId = '{job_of(worked, GITHUB).info.run_id}'")
    assert STAGES == {run.info.run_name for run in nested}


def test_the_spans_of_the_drawing_are_those_of_a_trace(worked: Place) -> None:
    drawn = re.findall(r'tracer\.span\("([\w.]+)"', code(NAME, 5))
    assert (4, SPANS) == (len(drawn), {*drawn})
    trace = worked.client.get_trace(f"tr-{job_of(worked, ARTICLE).info.run_id}")
    assert set() == SPANS - {span.name for span in trace.data.spans}


def test_switched_off_the_pipeline_works_and_nothing_reaches_mlflow(
    place: Place, tmp_path: Path
) -> None:
    for number, (switch, value) in enumerate(variables(code(NAME, 4)).items()):
        folder = tmp_path / str(number)
        folder.mkdir()
        comment_switched_off(place, folder, switch, value)


def test_the_servers_commands_work(place: Place) -> None:
    """It was started in the background as the document does.

    Stopping it by `pkill -f "mlflow server"` would stop every other one on this machine: the
    fixture ends the one process that the same pattern finds.
    """
    assert "curl http://127.0.0.1:5000/health" == line_after("# Check health")
    assert 'pkill -f "mlflow server"' == line_after("# Stop")
    assert {"mlflow.db", "mlflow.log"} <= {path.name for path in place.folder.iterdir()}
    assert "http://127.0.0.1:5000" == re.findall(r"Opens at (\S+)", page(NAME))[0]


def test_old_runs_that_were_deleted_are_cleaned_by_the_documents_command(worked: Place) -> None:
    clean_deleted_run(worked, line_after("# Clean old runs"))
