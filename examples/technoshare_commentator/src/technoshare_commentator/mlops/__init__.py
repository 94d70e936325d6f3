"""What of the pipeline goes to MLflow."""
