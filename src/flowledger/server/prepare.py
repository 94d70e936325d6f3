"""`python -m flowledger.server.prepare`: make and check what a server needs in its database.

Run by `flowledger server` before it starts, in a process of its own. It prints what is wrong, and
ends with 2 for a setting and 3 for the database.
"""

import os
import sys
import warnings

from flowledger import config
from flowledger.config import Destination
from flowledger.errors import ConfigError, FlowledgerError, StoreMisconfigured, StoreUnavailable

__all__ = ["make_users_tables", "prepare"]

INSUFFICIENT_PRIVILEGE = "42501"  # PostgreSQL's code for it
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
    open_bulk(place).close()
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


def make_users_tables(uri: str) -> None:
    """Make the tables that MLflow keeps its users in, beside everything else in PostgreSQL.

    Raises:
        ConfigError: beside SQLite they are in a file of their own.
        StoreError: the database does not answer, or this user may not change tables.
    """
    if not uri.startswith("postgresql"):
        raise ConfigError(
            "--users is for PostgreSQL: leave it out, MLflow makes a file of its own for its users"
        )
    import sqlalchemy as sa

    engine = sa.create_engine(uri, poolclass=sa.pool.NullPool)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # MLflow's own, about what it is made of
            from mlflow.server.auth.db.utils import migrate_if_needed

            migrate_if_needed(engine, "head")
    except ImportError as exc:
        raise StoreMisconfigured(f"{exc}: pip install 'flowledger[server]'") from exc
    except sa.exc.SQLAlchemyError as exc:
        raise _of_users(exc) from exc


def _make_first_user() -> None:
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        from mlflow.server import auth

        auth.bootstrap_admin_user()
    except MlflowException as exc:
        raise ConfigError(f"MLflow's users: {exc.message}") from exc
    except SQLAlchemyError as exc:
        raise _of_users(exc) from exc


def _of_users(exc: Exception) -> StoreMisconfigured | StoreUnavailable:
    cause = getattr(exc, "orig", None)
    if getattr(cause, "sqlstate", None) == INSUFFICIENT_PRIVILEGE:
        return StoreMisconfigured(
            "the tables of MLflow's users must be made or changed, and this user may not: run "
            "`flowledger migrate --users` as the owner of the tables"
        )
    reason = str(cause or exc).partition("\n")[0]
    return StoreUnavailable(f"the database of MLflow's users does not answer: {reason}")


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
