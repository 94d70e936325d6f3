"""The same application with `mlflow.trace`, its export asynchronous as MLflow has it by default."""

import mlflow

from bench.children.timing import ANSWER, ATTRIBUTES, LIMITS, PROMPT, rounds
from bench.processes import argument, serve

mlflow.set_tracking_uri(argument()["uri"])
mlflow.set_experiment(ATTRIBUTES["feature"])


@mlflow.trace(name=ATTRIBUTES["operation"], span_type="CHAT_MODEL", attributes=ATTRIBUTES)
def ask(prompt: str, temperature: float, max_tokens: int) -> str:
    """What is traced; MLflow takes inputs and outputs by itself."""
    return ANSWER


timed = rounds(lambda: ask(PROMPT, **LIMITS), mlflow.flush_trace_async_logging)
serve(timed=timed)
