"""The same application with OpenTelemetry: spans, batched, by OTLP over HTTP to a local sink."""

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

from bench.children.timing import ANSWER, ATTRIBUTES, LIMITS, PROMPT, rounds
from bench.processes import argument, serve

provider = TracerProvider()
exporter = OTLPSpanExporter(endpoint=f"http://127.0.0.1:{argument()['port']}/v1/traces")
provider.add_span_processor(BatchSpanProcessor(exporter))
tracer = provider.get_tracer("bench")


def ask(prompt: str, temperature: float, max_tokens: int) -> str:
    """What is traced."""
    with tracer.start_as_current_span(ATTRIBUTES["operation"], attributes=ATTRIBUTES) as span:
        span.set_attributes(
            {
                "prompt": prompt,
                "temperature": temperature,
                "max_tokens": max_tokens,
                "response": ANSWER,
            }
        )
        return ANSWER


serve(timed=rounds(lambda: ask(PROMPT, **LIMITS), provider.force_flush))
