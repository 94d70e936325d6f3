"""`python -m app.optimize`: a better prompt from examples, its scores recorded before and after."""

from typing import Any

from flowledger.integrations.dspy import FlowledgerCallback

import dspy  # isort: skip

from app.services.catalog import FALLBACK
from app.services.intent_service import language_model, program
from app.services.mlflow_config import DSPyMLflowTracker

TOLD = {
    "Automate the approval of invoices": "create_workflow",
    "Start the onboarding for our new colleague": "run_workflow",
    "Let the analyst look at last month": "ask_agent",
    "What does the report tab show?": "question",
}


def main() -> None:
    """Optimise, and say what came of it."""
    place = {"user_role": "user", "current_module": "home", "current_tab": "overview"}
    given = [dspy.Example(message=text, **place, intent=intent, template="none", confidence=1.0)
             for text, intent in TOLD.items()]  # fmt: skip
    examples = [example.with_inputs("message", *place) for example in given]
    evaluate = dspy.Evaluate(devset=examples, metric=right, num_threads=1)
    callback = FlowledgerCallback(DSPyMLflowTracker.OPTIMIZATION)
    with dspy.context(lm=language_model(), adapter=dspy.JSONAdapter(), callbacks=[callback]):
        student = program(FALLBACK)
        optimizer = dspy.LabeledFewShot(k=len(examples))
        better = optimizer.compile(student, trainset=examples)
        before, after = evaluate(student).score, evaluate(better).score
    run_id = DSPyMLflowTracker().log_prompt_optimization_metrics(
        type(optimizer).__name__, before, after, len(examples)
    )
    print(f"score {before} before, {after} after: run {run_id}")


def right(example: Any, prediction: Any, trace: Any = None) -> bool:
    """Whether a prediction has the intent of its example."""
    return bool(example.intent == prediction.intent)


if __name__ == "__main__":
    main()
