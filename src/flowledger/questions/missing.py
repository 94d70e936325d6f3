"""What calls lack that somebody who audits them asks for."""

__all__ = ["COUNTED", "LACKS"]

_asks_a_model = "kind IN ('chat', 'completion', 'vision', 'embedding', 'image', 'speech')"
_answers_in_tokens = "kind IN ('chat', 'completion', 'vision', 'embedding')"

# By what is missing, the condition on a row of `llm_calls`. Only a model that answered owes tokens
# and a price, only a failure owes a reason.
LACKS = {
    "user_id": "COALESCE(user_id, '') = ''",
    "session_id": "COALESCE(session_id, '') = ''",
    "audit_reason": "COALESCE(audit_reason, '') = ''",
    "model": f"{_asks_a_model} AND COALESCE(model, model_asked, '') = ''",
    "total_tokens": f"{_answers_in_tokens} AND success AND total_tokens IS NULL",
    "cost_usd": "cost_usd IS NULL AND (success AND model IS NOT NULL OR total_tokens IS NOT NULL"
    " OR images IS NOT NULL OR audio_seconds IS NOT NULL)",
    "error_type": "NOT success AND error_type IS NULL",
}
COUNTED = ", ".join(
    f"CAST(COALESCE(SUM(CASE WHEN {lacks} THEN 1 ELSE 0 END), 0) AS BIGINT) AS {name}"
    for name, lacks in LACKS.items()
)
