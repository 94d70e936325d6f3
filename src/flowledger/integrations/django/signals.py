"""Recording models when they are saved: those of `TRACKED_MODELS`, with the fields it names."""

from collections.abc import Mapping
from functools import partial
from numbers import Number
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.db import models, transaction
from django.db.models.signals import post_save

import flowledger
from flowledger import logs
from flowledger.asynchronous import reraise_asynchronous
from flowledger.integrations.django import conf

__all__ = ["watch"]


def watch() -> None:
    """Record each saved instance of the models in `TRACKED_MODELS`, once its transaction holds."""
    post_save.connect(_saved, weak=False, dispatch_uid="flowledger.saved")


def _saved(
    sender: type[models.Model],
    instance: models.Model,
    created: bool = False,
    raw: bool = False,
    using: str | None = None,
    **kwargs: Any,
) -> None:
    tracked = conf.get("TRACKED_MODELS").get(sender._meta.label)
    if tracked is None or raw:
        return
    try:
        told = _fields(instance, _named(tracked))
    except Exception as exc:  # noqa: BLE001 - no fault of ours may reach the application
        reraise_asynchronous(exc)
        logs.warn("django", "a saved %s is not recorded: %s", sender._meta.label, exc)
        return
    feature = tracked.get("feature") if isinstance(tracked, Mapping) else None
    record = partial(_record, sender, str(instance.pk), created, feature, told)
    transaction.on_commit(record, using=using, robust=True)


def _named(tracked: Any) -> list[str]:
    fields = tracked.get("fields", ()) if isinstance(tracked, Mapping) else tracked
    if isinstance(fields, str):
        raise ImproperlyConfigured("TRACKED_MODELS takes lists of fields")
    return list(fields)


def _fields(instance: models.Model, names: list[str]) -> dict[str, Any]:
    return {name: getattr(instance, name) for name in names}


def _record(
    sender: type[models.Model],
    key: str,
    created: bool,
    feature: str | None,
    told: dict[str, Any],
) -> None:
    numbers = {k: float(v) for k, v in told.items() if _is_number(v)}
    texts = {k: v if isinstance(v, str) else str(v) for k, v in told.items() if k not in numbers}
    with flowledger.job(
        f"{sender._meta.model_name}.{'created' if created else 'changed'}",
        feature=feature,
        params={name: text for name, text in texts.items() if told[name] is not None},
        tags={"django_model": sender._meta.label, "django_key": key},
    ) as run:
        if numbers:
            run.log_metrics(numbers)


def _is_number(value: Any) -> bool:
    return isinstance(value, Number) and not isinstance(value, complex)
