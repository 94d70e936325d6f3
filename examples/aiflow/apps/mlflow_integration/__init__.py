"""Tracking of AI operations in MLflow: decorators, manual logging, saved models, a REST API."""
