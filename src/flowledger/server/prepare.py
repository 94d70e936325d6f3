"""`python -m flowledger.server.prepare`: make and check what a server needs in its database.

Run by `flowledger server` before it starts, in a process of its own. It prints what is wrong, and
ends with 2 for a setting and 3 for the database.
"""

import os
import sys

from flowledger import config
from flowledger.config import Destination
from flowledger.errors import ConfigError, FlowledgerError, StoreUnavailable

__all__ = ["prepare"]

NOT_OURS = (
    "partition_calls=month is not done, for this user may not change tables: run `flowledger "
    "migrate` with it as their owner"
)


def prepare(uri: str, auth: str) -> None:
    """Make MLflow's tables and ours where they are missing, and MLflow's first user.

    Raises:
        ConfigError: MLflow's users cannot be set up as they are configured.
        StoreError: the database is away, or cannot be used as it is.
    """
    from flowledger.store.bulk import open_bulk

    found = config.load(tracking_uri=uri)
    place = Destination(
        tracking_uri=found.tracking_uri, artifact_root="mlflow-artifacts:/", store_as=found.store_as
    )
    sink = open_bulk(place)
    if sink is not None:
        sink.close()
    if auth:
        _make_first_user()


def _partition(uri: str) -> None:
    """Keep calls by month, where that is set and this user may."""
    from flowledger import logs
    from flowledger.store.upkeep import open_upkeep

    settings = config.load(tracking_uri=uri)
    if settings.partition_calls != "month":
        return
    with open_upkeep(settings.tracking_uri) as upkeep:
        parts = upkeep.parts()
        if parts.ours or not uri.startswith("postgresql"):
            upkeep.by_month(lambda name, rows: None)
        elif not parts.by_month:
            logs.warn("server", NOT_OURS)


def _make_first_user() -> None:
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        from mlflow.server import auth

        auth.bootstrap_admin_user()
    except MlflowException as exc:
        raise ConfigError(f"MLflow's users: {exc.message}") from exc
    except SQLAlchemyError as exc:
        raise StoreUnavailable(f"the database of MLflow's users does not answer: {exc}") from exc


def main() -> None:
    """Prepare what the environment names."""
    uri = os.environ["MLFLOW_BACKEND_STORE_URI"]
    try:
        prepare(uri, os.environ.get("FLOWLEDGER_SERVER_AUTH", ""))
        _partition(uri)
    except FlowledgerError as exc:
        print(str(exc).partition("\n")[0])
        sys.exit(2 if isinstance(exc, ConfigError) else 3)


if __name__ == "__main__":
    main()
