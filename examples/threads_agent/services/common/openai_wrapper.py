"""OpenAI as it was before tracking."""

import openai

__all__ = ["chat"]


def chat(model: str, prompt: str) -> str:
    """What the model answers.

    Raises:
        openai.OpenAIError: it did not.
    """
    answer = openai.OpenAI().chat.completions.create(
        model=model, messages=[{"role": "user", "content": prompt}]
    )
    return answer.choices[0].message.content or ""
