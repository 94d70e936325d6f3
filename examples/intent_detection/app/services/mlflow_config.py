"""The record of every prediction.

The names in here are MLflow's, and flowledger keeps what they log: no request waits for MLflow, and
nothing that goes wrong with it reaches one.
"""

import logging
from collections.abc import Mapping
from contextlib import ExitStack
from contextvars import ContextVar
from importlib.metadata import version as version_of
from typing import Any

import flowledger as mlflow
from flowledger.integrations.dspy import prompt_version

DSPY_VERSION = version_of("dspy")
logger = logging.getLogger(__name__)


class DSPyMLflowTracker:
    """One run for each prediction, begun and ended by its request."""

    FEATURE = "dspy_intent_detection"
    OPTIMIZATION = "dspy_prompt_optimization"
    CONFIDENCE_SCORE = "confidence_score"
    RESPONSE_TIME_MS = "response_time_ms"
    TEMPLATE_MATCH_RATE = "template_match_rate"
    WORKFLOW_TEMPLATES = "available_workflow_templates"
    AGENT_TEMPLATES = "available_agent_templates"

    def __init__(self) -> None:
        self._run: ContextVar[tuple[Any, ExitStack] | None] = ContextVar("intent_run", default=None)

    def start_intent_detection_run(
        self, message: str, context: Mapping[str, str], model: str, signature: Any
    ) -> str:
        """Begin the run of one prediction; returns its id.

        Args:
            message: what the user wrote.
            context: `user_role`, `current_module`, `current_tab`, and any tag besides.
            model: that will be asked.
            signature: of the DSPy program; its hash is the version of the prompt.
        """
        stack, version = ExitStack(), prompt_version(signature)
        stack.enter_context(
            mlflow.context(
                user_role=context.get("user_role"),
                prompt_name=version.name,
                prompt_version=version.version,
            )
        )
        provider, _, name = model.rpartition("/")
        call = mlflow.call("detect_intent", feature=self.FEATURE, provider=provider, model=name,
                           prompt={"message": message, **context})  # fmt: skip
        stack.enter_context(call)
        self._run.set((call, stack))
        mlflow.set_tags({**context, "dspy_version": DSPY_VERSION})
        mlflow.log_params(
            {
                "model_name": name,
                "message_length": len(message),
                "message_word_count": len(message.split()),
            }
        )
        logger.debug("run %s begins", call.id)
        return str(call.id)

    def log_prediction_result(
        self,
        result: Mapping[str, Any],
        response_time_ms: float,
        templates: Mapping[str, int],
        usage: Mapping[str, Any],
    ) -> None:
        """Say what was predicted.

        Args:
            result: `intent`, `confidence`, `template`, `requires_workflow`, `category_source`.
            response_time_ms: what it took.
            templates: how many there were to choose from: `workflow`, `agent`.
            usage: the provider's tokens; empty when the answer came from DSPy's cache.
        """
        run = self._run.get()
        if run is None:
            return
        tokens = {"input_tokens": usage.get("prompt_tokens"),
                  "output_tokens": usage.get("completion_tokens")}  # fmt: skip
        run[0].answered(dict(result), **tokens)
        mlflow.log_metrics(
            {
                self.CONFIDENCE_SCORE: result["confidence"],
                self.RESPONSE_TIME_MS: response_time_ms,
                self.TEMPLATE_MATCH_RATE: float(result["template"] is not None),
                self.WORKFLOW_TEMPLATES: templates["workflow"],
                self.AGENT_TEMPLATES: templates["agent"],
            }
        )
        mlflow.set_tag("detected_intent", result["intent"])
        mlflow.log_params({name: result[name] for name in ("requires_workflow", "category_source")})

    def log_error(self, error: BaseException) -> None:
        """Say what went wrong; its type and its stack are kept."""
        if run := self._run.get():
            run[0].failed(error)
            logger.debug("run %s failed: %r", run[0].id, error)

    def end_run(self) -> None:
        """End the run of this request."""
        if run := self._run.get():
            self._run.set(None)
            run[1].close()
            logger.debug("run %s ends", run[0].id)

    def log_prompt_optimization_metrics(
        self, optimizer: str, score_before: float, score_after: float, examples: int
    ) -> str:
        """One run for an attempt at a better prompt; returns its id."""
        with mlflow.job("prompt_optimization", feature=self.OPTIMIZATION) as run:
            run.log_params({"optimizer": optimizer, "examples": examples})
            scores = {"score_before": score_before, "score_after": score_after}
            run.log_metrics({**scores, "improvement": score_after - score_before})
        return str(run.id)
