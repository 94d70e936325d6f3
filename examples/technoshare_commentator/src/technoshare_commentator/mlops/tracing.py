"""LLM observability: spans of what a job does, with what each found; numbers go to the run."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

import flowledger


class MLflowTracer:
    """Spans in the trace of the job around; never raises, never waits for the server."""

    def span(
        self, name: str, span_type: str = "CHAIN", inputs: Any = None
    ) -> AbstractContextManager[Any]:
        """A step in the trace: `with tracer.span("analysis.run", span_type="LLM") as span:`."""
        return flowledger.span(name, span_type, inputs=inputs)

    def trace_retrieval(
        self, span: Any, *, adapter: str, coverage: float, snippets: Sequence[str], tool_calls: int
    ) -> None:
        """What was found, by which adapter, and how much of what was looked for."""
        span.set_attributes({"adapter": adapter, "coverage": coverage})
        span.set_outputs(list(snippets))
        flowledger.log_param("adapter", adapter)
        numbers = {"snippet_count": len(snippets), "tool_call_count": tool_calls}
        flowledger.log_metrics({**numbers, "coverage": coverage})

    def trace_llm_call(self, span: Any, *, model: str, output: Any) -> None:
        """Which model answered, and what its answer is made of."""
        structure = {name: type(value).__name__ for name, value in output.items()}
        span.set_attributes({"model": model, "output_structure": structure})
        span.set_outputs(output)
        flowledger.log_params({"model": model, "output_structure": ", ".join(structure)})

    def trace_quality_gates(self, span: Any, *, passed: int, failures: Sequence[str]) -> None:
        """How many gates were passed, and what was wrong at the others."""
        span.set_attributes({"gate_passed": not failures, "gate_failures": len(failures)})
        span.set_outputs({"failures": list(failures)})
        flowledger.log_metrics({"gates_passed": passed, "gate_failures": len(failures)})
