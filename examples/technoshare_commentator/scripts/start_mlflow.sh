#!/bin/sh
# MLflow's server with flowledger in front, on mlflow.db and mlartifacts in the working directory.
export MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false MLFLOW_DISABLE_TELEMETRY=true
exec mlflow server --app-name flowledger --host 127.0.0.1 --port "${MLFLOW_PORT:-5000}" --workers 1 \
    --backend-store-uri sqlite:///mlflow.db --artifacts-destination ./mlartifacts "$@"
