"""`flowledger server`: MLflow's pages and API, ingest, /metrics, on one port."""

from typing import Any

import click

from flowledger.errors import StoreMisconfigured


@click.command(context_settings={"show_default": True})
@click.option("--host", envvar="MLFLOW_HOST", default="127.0.0.1", help="Where to listen.")
@click.option("--port", envvar="MLFLOW_PORT", type=click.IntRange(1, 65535), default=5000)
@click.option(
    "--workers", envvar="MLFLOW_WORKERS", type=click.IntRange(1, 256), default=2, help="Processes."
)
@click.option(
    "--backend-store-uri",
    envvar="MLFLOW_BACKEND_STORE_URI",
    default="sqlite:///mlflow.db",
    metavar="URI",
    help="Database: sqlite:///file.db or postgresql://user@host/name. With a password in it, set"
    " MLFLOW_BACKEND_STORE_URI instead: arguments can be seen by others.",
)
@click.option(
    "--artifacts-destination",
    envvar="MLFLOW_ARTIFACTS_DESTINATION",
    default="./mlartifacts",
    metavar="URI",
    help="Where artifacts are kept: a folder, or s3://bucket.",
)
@click.option(
    "--auth",
    envvar="FLOWLEDGER_SERVER_AUTH",
    type=click.Choice(["basic"]),
    help="Who may come: `basic` asks for MLflow's users, or for a key to send calls.",
)
@click.option(
    "--allow-unauthenticated",
    is_flag=True,
    help="Listen off loopback without --auth, behind something that asks who comes.",
)
@click.argument("mlflow_options", nargs=-1, type=click.UNPROCESSED)
def command(**options: Any) -> None:
    """Run the server: MLflow's pages and API, ingest and /metrics, on one port.

    It runs `mlflow server --app-name flowledger` with checks before it; what follows `--` goes
    there as it is. Ctrl-C stops it. With --auth basic the first start needs
    MLFLOW_AUTH_ADMIN_PASSWORD, and several servers need the same MLFLOW_FLASK_SERVER_SECRET_KEY.

    \b
    Examples:
      flowledger server
      flowledger server --backend-store-uri postgresql://flow@db/mlflow --workers 4
      flowledger server --host 0.0.0.0 --auth basic -- --allowed-hosts llm.example.com
    """
    try:
        from flowledger.server.launch import Launch, run
    except ImportError as exc:
        raise StoreMisconfigured(
            f"{exc.name} is not installed: pip install 'flowledger[server]'"
        ) from exc
    launch = Launch(**{**options, "auth": options["auth"] or ""})
    run(launch, say=lambda line: click.echo(f"flowledger: {line}", err=True))
