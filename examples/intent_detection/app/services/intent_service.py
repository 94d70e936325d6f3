"""The classifier: a DSPy program over categories and templates, in two strategies to compare."""

import hashlib
import os
import time
from threading import Thread
from typing import Any, Literal

from flowledger.integrations.dspy import instrument as _  # noqa: F401 - before dspy: no price list

import dspy  # isort: skip

from app.services.catalog import Catalog, catalog
from app.services.mlflow_config import DSPyMLflowTracker

MODEL = os.environ.get("INTENT_MODEL", "openai/gpt-4o-mini")
NONE = "none"
PROGRAMS = {"direct": dspy.Predict, "stepwise": dspy.ChainOfThought}


class DetectIntent(dspy.Signature):  # type: ignore[misc]
    """Classify what the user of a platform wants, and which template serves it."""

    message: str = dspy.InputField()
    user_role: str = dspy.InputField()
    current_module: str = dspy.InputField()
    current_tab: str = dspy.InputField()
    intent: str = dspy.OutputField()
    template: str = dspy.OutputField(desc="the template that fits, or none")
    confidence: float = dspy.OutputField(ge=0, le=1)


def program(known: Catalog, strategy: str = "direct") -> Any:
    """The program of a strategy, which can only answer what is known."""
    templates = (NONE, *known.workflows, *known.agents)
    signature = DetectIntent.with_updated_fields("intent", type_=Literal[tuple(known.categories)])
    return PROGRAMS[strategy](signature.with_updated_fields("template", type_=Literal[templates]))


def language_model() -> Any:
    """The model that is asked; address and key come from the environment."""
    return dspy.LM(MODEL, api_base=os.environ.get("OPENAI_BASE_URL"), cache=False)


def strategy_of(session: str) -> str:
    """The same strategy for the whole of a session, half of them each."""
    names = sorted(PROGRAMS)
    return names[hashlib.sha256(session.encode()).digest()[0] % len(names)]


class IntentService:
    """Detects intents; each detection is a run."""

    def __init__(self) -> None:
        self._tracker = DSPyMLflowTracker()
        self._lm = language_model()
        # DSPy asks litellm what the model can do, which takes seconds to import: not in a request.
        Thread(target=lambda: self._lm.supports_response_schema, daemon=True).start()

    def detect(self, message: str, context: dict[str, str], session: str) -> dict[str, Any]:
        """What the user wants; what a model raises is recorded and raised again."""
        known, strategy = catalog(), strategy_of(session)
        classify, started = program(known, strategy), time.perf_counter()
        run_id = self._tracker.start_intent_detection_run(
            message,
            {**context, "strategy": strategy},
            MODEL,
            classify.predictors()[0].signature,
        )
        try:
            with dspy.context(lm=self._lm, adapter=dspy.JSONAdapter(), track_usage=True):
                told = classify(message=message, **context)
            result = {
                "intent": told.intent,
                "confidence": told.confidence,
                "template": None if told.template == NONE else told.template,
                "requires_workflow": known.categories[told.intent],
                "category_source": known.source,
            }
            self._tracker.log_prediction_result(
                result,
                1000 * (time.perf_counter() - started),
                {"workflow": len(known.workflows), "agent": len(known.agents)},
                (told.get_lm_usage() or {}).get(MODEL, {}),
            )
        except Exception as exc:
            self._tracker.log_error(exc)
            raise
        finally:
            self._tracker.end_run()
        return {"run_id": run_id, **result}
