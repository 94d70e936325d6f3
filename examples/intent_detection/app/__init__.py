"""What users of a platform want, detected with DSPy and recorded in MLflow."""
