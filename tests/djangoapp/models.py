"""A model that is recorded when it is saved, and one that is not."""

from django.db import models


class Report(models.Model):  # type: ignore[misc]
    status = models.CharField(max_length=20)
    issues = models.IntegerField(default=0)
    secret = models.CharField(max_length=20, default="never")


class Note(models.Model):  # type: ignore[misc]
    text = models.CharField(max_length=20)
