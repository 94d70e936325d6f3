"""One job from its link to its comment: four stages, each a run nested in the job's."""

from typing import Any

from openai import OpenAI

import flowledger

from . import slack
from .analysis import TEMPERATURE, analyse
from .config import Settings
from .gates import GATES, validate
from .jobs import Job
from .mlops.tracing import MLflowTracer
from .mlops.tracking import MLflowTracker
from .retrieval import Evidence, retrieve


class Pipeline:
    """Processes jobs; all that it does is in MLflow, and none of it waits for MLflow."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._client = flowledger.wrap(OpenAI())
        self._tracker = MLflowTracker()
        self._tracer = MLflowTracer()

    def process_job(self, job: Job) -> str:
        """Comment on one link; the outcome is `success` or `gate_failed`.

        What goes wrong is raised, with `error` as the outcome in MLflow.
        """
        told = {"channel_id": job.channel_id, "message_ts": job.message_ts, "target_url": job.url}
        tracker, model = self._tracker, self._settings.model
        with tracker.start_job_run(job.id, **told, attempt=str(job.attempt)):
            tracker.log_params({"model": model, "temperature": TEMPERATURE})
            tracker.set_tags({"outcome": "error"})  # until it is another one
            evidence = self._retrieval(job)
            names = {"domain": evidence.domain, "adapter_name": evidence.adapter_name}
            tracker.set_tags(names)
            tracker.log_dict_artifact(evidence.as_dict(), "evidence.json")
            analysis = self._analysis(evidence)
            tracker.log_dict_artifact(analysis, "analysis_result.json")
            failures = self._quality_gates(evidence, analysis)
            if not failures:
                message = slack.payload(job, evidence, analysis)
                self._slack_post(message)
                tracker.log_dict_artifact(message, "slack_payload.json")
            outcome = "gate_failed" if failures else "success"
            tracker.set_tags({"outcome": outcome})
        return outcome

    def _retrieval(self, job: Job) -> Evidence:
        with (
            self._tracker.start_nested_run("retrieval"),
            self._tracer.span("retrieval.fetch_evidence", "RETRIEVER", job.url) as span,
        ):
            found = retrieve(job.url, self._settings.fetch_through)
            self._tracer.trace_retrieval(
                span,
                adapter=found.adapter_name,
                coverage=found.coverage,
                snippets=found.snippets,
                tool_calls=found.tool_calls,
            )
        return found

    def _analysis(self, evidence: Evidence) -> dict[str, Any]:
        with (
            self._tracker.start_nested_run("analysis"),
            self._tracer.span("analysis.run", span_type="LLM") as span,
        ):
            analysis, model = analyse(self._client, self._settings.model, evidence)
            self._tracer.trace_llm_call(span, model=model, output=analysis)
        return analysis

    def _quality_gates(self, evidence: Evidence, analysis: dict[str, Any]) -> list[str]:
        with (
            self._tracker.start_nested_run("quality_gates"),
            self._tracer.span("quality_gates.validate", inputs=analysis) as span,
        ):
            failures = validate(evidence, analysis)
            passed = len(GATES) - len(failures)
            self._tracer.trace_quality_gates(span, passed=passed, failures=failures)
        return failures

    def _slack_post(self, message: dict[str, Any]) -> None:
        with (
            self._tracker.start_nested_run("slack_post"),
            self._tracer.span("slack.post_message", "TOOL", message),
        ):
            slack.post(self._settings.slack_url, self._settings.slack_token, message)
