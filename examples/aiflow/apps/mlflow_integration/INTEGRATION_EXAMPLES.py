"""Every way to track; `python -m apps.mlflow_integration.INTEGRATION_EXAMPLES` runs them all."""

import asyncio
from typing import Any

from openai import NotFoundError, OpenAI

from apps.mlflow_integration.decorators import track_custom_operation, track_gpt_text
from apps.mlflow_integration.tracker import mlflow_tracker


def decorators_of_different_features() -> None:
    """Decorators are on the functions of `apps.engineering.services`; calling those is all."""
    from apps.engineering import services

    drawing = services.generate_pid_diagram("a pump with a strainer before it")
    print("drawn:", str(drawing["url"])[:60])
    print("specified:", services.generate_specification("a centrifugal pump")["confidence"])
    print("valid:", services.validate_document("1 | A. Writer | Valve missing | Added")["valid"])


def manual_logging() -> None:
    """What ran elsewhere is logged when its numbers are known."""
    mlflow_tracker.log_experiment_result(
        feature="pfd_conversion",
        operation="spec_generation",
        params={"model": "gpt-4o", "temperature": 0.7},
        metrics={"tokens_used": 1500, "confidence": 0.95, "execution_time": 2.5, "cost": 0.012},
        tags={"version": "2.0"},
    )


@track_gpt_text("pfd_conversion", "model_comparison")
def describe(question: str, model: str, temperature: float = 0.0) -> Any:
    """An SDK's own answer tells model and tokens by itself."""
    return OpenAI().chat.completions.create(
        model=model, temperature=temperature, messages=[{"role": "user", "content": question}]
    )


def model_performance() -> None:
    """The same question to two models: compare the runs by `params.model`."""
    for model in ("gpt-4o", "gpt-4o-mini"):
        print(model, describe("What is a check valve for?", model=model).usage.total_tokens)


@track_custom_operation("crs_analysis", "clustering")
async def custom_metrics(comments: list[str]) -> dict[str, float]:
    """Every number in the answer is a metric of its run; coroutines are tracked as well."""
    words = [len(comment.split()) for comment in comments]
    return {"comments": len(comments), "longest": max(words), "mean_words": sum(words) / len(words)}


def error_handling() -> None:
    """A function that raises is a failed run with its stack trace, and raises all the same."""
    try:
        describe("Hello?", model="gpt-4o?status=404")
    except NotFoundError as error:
        print("raised as ever:", type(error).__name__)


def main() -> None:
    """Run all of them."""
    import django

    django.setup()
    decorators_of_different_features()
    manual_logging()
    model_performance()
    print(asyncio.run(custom_metrics(["Valve missing", "Wrong size of the pump"])))
    error_handling()


if __name__ == "__main__":
    import os

    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "aiflow.settings")
    main()
