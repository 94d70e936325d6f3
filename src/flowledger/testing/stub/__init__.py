"""The parts of the stub LLM server; `flowledger.testing.llm` is its public door."""
