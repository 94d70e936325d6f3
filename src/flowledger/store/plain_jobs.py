"""Jobs in plain MLflow: runs, what is logged on them, and artifacts; spans have no place there.

MLflow's public API takes a trace whole or not at all, and a job may outlast the collector.
"""

from collections.abc import Callable
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Metric, Param, Run, RunTag
from mlflow.exceptions import MlflowException

from flowledger import logs
from flowledger.errors import RecordError
from flowledger.records import Artifact
from flowledger.store.job_entries import LoggedPart, Piece
from flowledger.store.uploads import Uploads

__all__ = ["PlainJobs"]

GONE = ("RESOURCE_DOES_NOT_EXIST", "INVALID_STATE")


class PlainJobs:
    """Writes jobs through MLflow's client; the tag `flowledger.id` says which run is whose.

    Args:
        client: of the server or folder.
        experiment: gives the id of an experiment by its name.
    """

    def __init__(self, client: MlflowClient, experiment: Callable[[str], str]) -> None:
        self._client = client
        self._experiment = experiment
        self._uploads = Uploads()
        self._runs: dict[str, str] = {}

    def store(self, made: Piece) -> None:
        """Store a record that is no call.

        Raises:
            RecordError: its run is not there, or the artifact store does not take it.
        """
        try:
            self._store(made)
        except MlflowException as exc:
            if exc.error_code in GONE:
                raise RecordError(f"its run was deleted: {exc.message}") from exc
            raise

    def _store(self, made: Piece) -> None:
        if made.run is not None and made.experiment:
            self._job(made)
        elif made.logged is not None:
            self._log(self._found(made), made.logged)
        elif isinstance(made.record, Artifact):
            self._upload(self._found(made), made.record)

    def with_parent(self, tags: dict[str, str]) -> dict[str, str]:
        """The tags with MLflow's own id of a run's parent, where that is a job of ours."""
        parents = ("mlflow.parentRunId", "mlflow.rootRunId")
        return {k: self._runs.get(v, v) if k in parents else v for k, v in tags.items()}

    def _job(self, made: Piece) -> None:
        run, logged = made.run, made.logged
        assert run is not None
        assert logged is not None
        tags = self.with_parent(dict(logged.first_tags))
        run_id = self._run_id(run.id, made.experiment)
        if run_id is None:
            started = self._client.create_run(
                self._experiment(made.experiment or ""), run.start_ns // 1_000_000, tags, run.name
            )
            run_id = self._runs[run.id] = str(started.info.run_id)
            tags = {}
        known = self._client.get_run(run_id)
        if known.info.status != "RUNNING":
            return
        new = [(key, value) for key, value in tags.items() if key not in known.data.tags]
        self._log(run_id, logged._replace(tags=new), known)
        if run.end_ns is not None:
            self._client.set_terminated(run_id, run.status, run.end_ns // 1_000_000)

    def _log(self, run_id: str, logged: LoggedPart, known: Run | None = None) -> None:
        params = (known or self._client.get_run(run_id)).data.params
        self._client.log_batch(
            run_id,
            metrics=[Metric(*metric) for metric in logged.metrics],
            params=[Param(key, value) for key, value in logged.params if key not in params],
            tags=[RunTag(key, value) for key, value in logged.tags],
        )

    def _upload(self, run_id: str, artifact: Artifact) -> None:
        folder: Any = self._client.get_run(run_id).info.artifact_uri
        try:
            self._uploads.put(folder, artifact)
        except RecordError:
            raise
        except Exception as exc:  # every kind of store has errors of its own
            logs.warn("store", "the artifact store does not take %s: %s", artifact.path, exc)
            raise RecordError(f"the artifact store does not take it: {exc}") from exc

    def _found(self, made: Piece) -> str:
        found = self._run_id(made.run_id or "", made.experiment)
        if found is None:
            raise RecordError(f"there is no run {made.run_id} to keep it with")
        return found

    def _run_id(self, our_id: str, experiment: str | None) -> str | None:
        if our_id not in self._runs:
            named = [self._experiment(experiment)] if experiment else None
            ids = named or [e.experiment_id for e in self._client.search_experiments()]
            found = self._client.search_runs(ids, f"tags.`flowledger.id` = '{our_id}'", 1)
            if not found:
                return None
            self._runs[our_id] = str(found[0].info.run_id)
        return self._runs[our_id]
