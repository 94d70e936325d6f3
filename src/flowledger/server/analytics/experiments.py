"""Making or restoring the experiments that calls go to."""

from flowledger.config import Settings
from flowledger.questions import Ledger
from flowledger.server.analytics.answers import Recreated, RecreatedExperiment

__all__ = ["recreate"]


def recreate(ledger: Ledger, settings: Settings) -> Recreated:
    """See that every experiment is there that has had calls, or that the settings name.

    Raises:
        StoreUnavailable: MLflow's tables do not answer.
    """
    from mlflow.exceptions import MlflowException
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    from flowledger.errors import StoreUnavailable

    try:
        store = SqlAlchemyStore(settings.tracking_uri, settings.artifact_root)
        there = {row.name: row for row in ledger.experiments()}
        done = []
        for name in _wanted(ledger, settings):
            found = there.get(name)
            if found is None:
                made = store.create_experiment(name)
                done.append(RecreatedExperiment(name=name, experiment_id=made, action="created"))
                continue
            experiment_id = str(found.experiment_id)
            if found.lifecycle_stage != "active":
                store.restore_experiment(experiment_id)
            action = "kept" if found.lifecycle_stage == "active" else "restored"
            done.append(RecreatedExperiment(name=name, experiment_id=experiment_id, action=action))
    except MlflowException as exc:
        raise StoreUnavailable(f"MLflow cannot make experiments: {exc.message}") from exc
    return Recreated(status="success", experiments=done)


def _wanted(ledger: Ledger, settings: Settings) -> list[str]:
    names = {row.experiment_id: row.name for row in ledger.experiments()}
    used = {row.experiment_id for row in ledger.features()}
    named = {names[one] for one in used if one in names} | set(settings.experiments.values())
    if "{" not in settings.experiment:
        named.add(settings.experiment)
    return sorted(named)
