"""Who asks: anyone, the holder of a key, or a user of MLflow's."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fastapi import HTTPException, Request
from mlflow.exceptions import MlflowException
from sqlalchemy.exc import SQLAlchemyError
from starlette.datastructures import Headers

from flowledger import logs
from flowledger.server.problems import first_line, unavailable
from flowledger.store.senders import SHIPPER

if TYPE_CHECKING:
    from fastapi import FastAPI

__all__ = ["ANYONE", "Caller", "MlflowUsers", "caller_of", "open_users"]

NOT_AUTHENTICATED = (
    "log in as one of MLflow's users (HTTP basic), or send a key made by `flowledger keys create`"
)
OF_THE_BODY = ("content-length", "transfer-encoding", "content-type", "content-encoding")
CHALLENGE = {"WWW-Authenticate": 'Basic realm="mlflow", Bearer'}


@dataclass(frozen=True)
class Caller:
    """Who sent a request.

    kind: `anyone` without authentication, `key`, `user` or `prometheus` with it.
    name: of the key or the user.
    is_admin: MLflow lets this user do everything.
    """

    kind: str
    name: str = ""
    is_admin: bool = False

    @property
    def sender(self) -> str:
        """As whom the caller delivers records; an administrator is a user like others there."""
        return self.name if self.kind == "user" else SHIPPER


ANYONE = Caller("anyone")


def caller_of(request: Request) -> Caller:
    """Who sent this request, as the guard found out."""
    caller: Caller = getattr(request.state, "caller", ANYONE)
    return caller


def not_authenticated(detail: str = NOT_AUTHENTICATED) -> HTTPException:
    """401, and how to do better."""
    return HTTPException(401, detail, CHALLENGE)


class MlflowUsers:
    """MLflow's own users and permissions (`mlflow.server.auth`), asked, never copied.

    Every method blocks: MLflow compares password hashes and asks its database.
    """

    def __init__(self) -> None:
        # Needs Flask-WTF and reads MLflow's auth configuration when it is imported.
        from mlflow.server import app, auth

        self._flask: Any = app
        self._auth: Any = auth

    def app(self) -> "FastAPI":
        """MLflow's app with its authentication in front of its own routes."""
        made: FastAPI = self._auth.create_app()
        return made

    def caller(self, headers: Headers, path: str, method: str) -> Caller:
        """The user whose credentials these headers carry, in whatever way MLflow is set up to.

        Raises:
            HTTPException: 401 when MLflow does not know them.
        """
        sent = [(name, value) for name, value in headers.items() if name not in OF_THE_BODY]
        with _answering(), self._flask.test_request_context(path, method=method, headers=sent):
            authorization = self._auth.authenticate_request()
            name = getattr(authorization, "username", None)
            if not name:  # a Flask response that says no
                raise not_authenticated()
            return Caller("user", name, bool(self._auth.store.get_user(name).is_admin))

    def let_write(self, caller: Caller, experiments: Iterable[str]) -> None:
        """Let a user log runs and traces to these experiments, as MLflow's own API would.

        An experiment that is not there is made, and belongs to the user who made it.

        Raises:
            HTTPException: 403, naming the experiment.
        """
        for name in sorted(experiments):
            with _answering():
                allowed = self._may_write(caller.name, name)
            if not allowed:
                raise HTTPException(
                    403,
                    f"user {caller.name} may not write to experiment {name}: ask for EDIT on it, or"
                    " use a key made by `flowledger keys create`",
                )

    def readable(self, caller: Caller, experiment_ids: Iterable[str]) -> set[str]:
        """Those of these experiments whose runs and traces MLflow would show the caller."""
        if caller.is_admin:
            return set(experiment_ids)
        auth = self._auth
        not_denied = [
            auth.Requirement(kind, "*", auth.ACTION_NOT_DENIED) for kind in ("run", "trace")
        ]
        with _answering():
            may_read = auth._role_based_read_predicate(caller.name, "experiment", not_denied)
            return {one for one in experiment_ids if may_read(one)}

    def _may_write(self, user: str, experiment: str) -> bool:
        store = self._auth._get_tracking_store()
        found = store.get_experiment_by_name(experiment)
        if found is None:
            made = store.create_experiment(experiment)
            self._auth.store.grant_user_permission(user, "experiment", made, "MANAGE")
            return True
        return all(
            self._auth._authorize_create_in_experiment_as(user, found.experiment_id, kind)
            for kind in ("run", "trace")
        )


@contextmanager
def _answering() -> Iterator[None]:
    """503 when MLflow cannot ask its database, rather than a no."""
    try:
        yield
    except (MlflowException, SQLAlchemyError) as exc:
        logs.warn("server", "MLflow's users cannot be asked: %s", first_line(exc))
        raise database_away() from exc


def open_users(auth: str) -> MlflowUsers | None:
    """MLflow's users when the server is to ask them, else None."""
    return MlflowUsers() if auth == "basic" else None


def database_away() -> HTTPException:
    """503: nobody can say whether the caller is known."""
    return unavailable("the database does not answer now, so nobody can log in: try again later")
