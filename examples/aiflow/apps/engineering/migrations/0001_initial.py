"""The tables of drawings and documents."""

from typing import ClassVar

from django.db import migrations, models


class Migration(migrations.Migration):  # type: ignore[misc]
    initial = True

    dependencies: ClassVar = []

    operations: ClassVar = [
        migrations.CreateModel(
            name="CRSDocument",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("name", models.CharField(max_length=200)),
                ("document_type", models.CharField(default="comment_sheet", max_length=50)),
                ("status", models.CharField(default="pending", max_length=20)),
                ("processing_time", models.FloatField(help_text="seconds", null=True)),
            ],
            options={
                "verbose_name": "CRS document",
            },
        ),
        migrations.CreateModel(
            name="PFDConversion",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("title", models.CharField(max_length=200)),
                ("status", models.CharField(default="pending", max_length=20)),
                (
                    "extraction_method",
                    models.CharField(
                        choices=[("gpt_text", "GPT, from its description"), ("manual", "by hand")],
                        default="gpt_text",
                        max_length=20,
                    ),
                ),
                ("confidence_score", models.FloatField(null=True)),
                ("specification", models.TextField(blank=True)),
            ],
            options={
                "verbose_name": "PFD conversion",
            },
        ),
        migrations.CreateModel(
            name="PIDAnalysisReport",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("drawing", models.CharField(max_length=200)),
                ("status", models.CharField(default="pending", max_length=20)),
                ("total_issues", models.IntegerField(default=0)),
                ("critical_issues", models.IntegerField(default=0)),
                ("confidence_score", models.FloatField(null=True)),
            ],
            options={
                "verbose_name": "P&ID analysis report",
            },
        ),
    ]
