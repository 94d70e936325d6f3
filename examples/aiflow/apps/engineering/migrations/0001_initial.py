"""The tables of drawings and documents."""

from typing import Any, ClassVar

from django.db import migrations, models

KEY = models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")
METHODS = [("gpt_text", "GPT, from its description"), ("manual", "by hand")]


class Migration(migrations.Migration):  # type: ignore[misc]
    """The first."""

    initial = True
    dependencies: ClassVar[list[Any]] = []
    operations: ClassVar[list[Any]] = [
        migrations.CreateModel(
            name="CRSDocument",
            fields=[
                ("id", KEY),
                ("name", models.CharField(max_length=200)),
                ("document_type", models.CharField(default="comment_sheet", max_length=50)),
                ("status", models.CharField(default="pending", max_length=20)),
                ("processing_time", models.FloatField(help_text="seconds", null=True)),
            ],
            options={"verbose_name": "CRS document"},
        ),
        migrations.CreateModel(
            name="PFDConversion",
            fields=[
                ("id", KEY),
                ("title", models.CharField(max_length=200)),
                ("status", models.CharField(default="pending", max_length=20)),
                (
                    "extraction_method",
                    models.CharField(choices=METHODS, default="gpt_text", max_length=20),
                ),
                ("confidence_score", models.FloatField(null=True)),
                ("specification", models.TextField(blank=True)),
            ],
            options={"verbose_name": "PFD conversion"},
        ),
        migrations.CreateModel(
            name="PIDAnalysisReport",
            fields=[
                ("id", KEY),
                ("drawing", models.CharField(max_length=200)),
                ("status", models.CharField(default="pending", max_length=20)),
                ("total_issues", models.IntegerField(default=0)),
                ("critical_issues", models.IntegerField(default=0)),
                ("confidence_score", models.FloatField(null=True)),
            ],
            options={"verbose_name": "P&ID analysis report"},
        ),
    ]
