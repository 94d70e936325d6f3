"""The folder that `flowledger run` puts on `PYTHONPATH`, for its `sitecustomize`."""
