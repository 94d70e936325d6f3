"""What is kept of each drawing and document; each save is tracked in MLflow."""

from typing import ClassVar

from django.db import models


class PIDAnalysisReport(models.Model):  # type: ignore[misc]
    """Issues that were found in a piping and instrumentation diagram."""

    drawing = models.CharField(max_length=200)
    status = models.CharField(max_length=20, default="pending")
    total_issues = models.IntegerField(default=0)
    critical_issues = models.IntegerField(default=0)
    confidence_score = models.FloatField(null=True)

    class Meta:
        verbose_name = "P&ID analysis report"


class PFDConversion(models.Model):  # type: ignore[misc]
    """A process flow diagram on its way to a P&ID."""

    METHODS: ClassVar = [("gpt_text", "GPT, from its description"), ("manual", "by hand")]

    title = models.CharField(max_length=200)
    status = models.CharField(max_length=20, default="pending")
    extraction_method = models.CharField(max_length=20, choices=METHODS, default="gpt_text")
    confidence_score = models.FloatField(null=True)
    specification = models.TextField(blank=True)

    class Meta:
        verbose_name = "PFD conversion"


class CRSDocument(models.Model):  # type: ignore[misc]
    """A comment resolution sheet."""

    name = models.CharField(max_length=200)
    document_type = models.CharField(max_length=50, default="comment_sheet")
    status = models.CharField(max_length=20, default="pending")
    processing_time = models.FloatField(null=True, help_text="seconds")

    class Meta:
        verbose_name = "CRS document"
