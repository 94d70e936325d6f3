"""What may be kept of a text: redactors, and content as a hash or not at all.

Runs on the caller's thread before the journal, on a record that is bounded and plain already. Never
raises; where a redactor fails the text is withheld, not let through.
"""

import hashlib
import importlib
import re
from collections.abc import Callable, Iterable
from typing import Any, TypeAlias

import msgspec

from flowledger import logs
from flowledger.asynchronous import reraise_asynchronous
from flowledger.config import Settings
from flowledger.errors import ConfigError, RecordError
from flowledger.records import Artifact, Call, Job, Logged, Record, Span, decode, encode

__all__ = ["REDACTORS", "Privacy", "Redactor", "is_hashed", "privacy_of"]

Redactor: TypeAlias = Callable[[str], str]

HASHED = "[sha256 "
WITHHELD = "[withheld: a redactor failed]"
LEAST_REPEATED = 8
DEEPEST = 60
LONGEST_CARD, SHORTEST_CARD, MOST_GROUPS = 19, 13, 6
IBAN_LENGTHS = range(15, 35)

_key = re.compile(
    r"(?<![A-Za-z0-9_])(?:"
    r"(?:sk|pk|rk)[-_](?:[A-Za-z]{2,12}[-_])*[A-Za-z0-9_-]{20,}"  # OpenAI, Anthropic, Stripe
    r"|(?:gh[pousr]_|github_pat_)[A-Za-z0-9_]{30,}"
    r"|glpat-[A-Za-z0-9_-]{20,}"
    r"|hf_[A-Za-z0-9]{30,}"
    r"|xox[abprs]-[A-Za-z0-9-]{20,}"
    r"|(?:AKIA|ASIA)[A-Z0-9]{16}(?![A-Z0-9])"
    r"|AIza[A-Za-z0-9_-]{35}"
    r"|flk_[0-9a-f]{12}_[A-Za-z0-9_-]{43}"
    r"|eyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}"  # JSON Web Tokens
    r")"
    r"|(?<=[Bb]earer )[A-Za-z0-9._~+/-]{20,}=*"
    r"|-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)",
    re.DOTALL,
)
# Looked for first, in bytes: a search for each takes less than one expression over all.
_KEY_SIGNS = (
    *("sk-", "sk_", "pk-", "pk_", "rk-", "rk_", "ghp_", "gho_", "ghu_", "ghs_", "ghr_", "hf_"),
    *(
        "github_pat_",
        "glpat-",
        "xox",
        "AKIA",
        "ASIA",
        "AIza",
        "flk_",
        "eyJ",
        "earer ",
        "PRIVATE KEY",
    ),
)
_KEY_BYTES = tuple(sign.encode() for sign in _KEY_SIGNS)
_email = re.compile(
    r"[A-Za-z0-9._%+'-]{1,64}@(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,62}[A-Za-z0-9])?\.){1,8}[A-Za-z]{2,24}"
)
_phone = re.compile(
    r"(?<![\w.+-])(?:"
    r"\+[1-9]\d{0,2}(?:[ .()/-]{0,2}\d){6,13}"
    r"|00[1-9]\d{0,2}[ /-]\d(?:[ .()/-]{0,2}\d){5,12}"
    r"|\(\d{3}\) ?\d{3}-\d{4}"
    r"|\d{3}-\d{3}-\d{4}"
    r")(?![\w-]|\.\d)"
)
_card = re.compile(r"(?<![\w.-])\d(?:[ -]?\d){12,}(?![\w-]|\.\d)")
_iban = re.compile(r"(?<![A-Za-z0-9])[A-Z]{2}\d{2}(?: ?[A-Z0-9]){11,30}(?![A-Za-z0-9])")
_cut_off = re.compile(r"[\w@.+%-][\w@.+% -]{0,63}(?= \[cut: \d)")


def without_keys(text: str) -> str:
    """The text without API keys, tokens and private keys of the forms that are in wide use."""
    return _key.sub("[key]", text) if any(sign in text for sign in _KEY_SIGNS) else text


def without_email(text: str) -> str:
    """The text without addresses of e-mail."""
    return _email.sub("[email]", text) if "@" in text else text


def without_phone(text: str) -> str:
    """The text without telephone numbers, international (`+49 ...`, `0049 ...`) or American."""
    return _phone.sub("[phone]", text)


def without_card(text: str) -> str:
    """The text without numbers of payment cards, known by their check digit (Luhn)."""
    return _card.sub(_masked_card, text)


def without_iban(text: str) -> str:
    """The text without IBANs, known by their check digits (ISO 7064)."""
    return _iban.sub(_masked_iban, text)


REDACTORS: dict[str, Redactor] = {
    "keys": without_keys,
    "iban": without_iban,
    "card": without_card,
    "email": without_email,
    "phone": without_phone,
}


class Privacy:
    """What is kept of the content of records.

    Args:
        redactors: plain callables from text to text, run in this order on every text.
        mode: `full`, `hashed` or `none`, of features that `modes` does not name.
        modes: the same by feature.
    """

    def __init__(self, redactors: Iterable[Redactor], mode: str, modes: dict[str, str]) -> None:
        self._redactors = tuple(redactors)
        self._mode = mode
        self._modes = modes
        self._keys_alone = self._redactors == (without_keys,)

    def apply(self, record: Record, payload: bytes) -> bytes:
        """The encoded record as it may be kept; `payload` itself when nothing is in the way.

        Args:
            record: which feature it is of.
            payload: the record's bytes, bounded and plain.

        Raises:
            RecordError: it cannot be encoded any more.
        """
        try:
            mode = self._mode_of(record)
            if mode == "full" and not (self._redactors and self._may_hold(payload)):
                return payload
            plain = decode(payload)
            if mode != "full":
                plain = _without_content(plain, mode)
            return encode(self._redacted(plain))
        except RecordError:
            raise
        except Exception as exc:
            reraise_asynchronous(exc)
            raise RecordError(f"its content cannot be made private: {type(exc).__name__}") from exc

    def _mode_of(self, record: Record) -> str:
        feature = getattr(record, "feature", None)
        if feature is None and isinstance(record, Span | Logged | Artifact):
            place = getattr(record, "place", None)  # they have no feature, and experiments its name
            feature = record.experiment or (None if place is None else place.experiment)
        return self._modes.get(feature or "", self._mode)

    def _may_hold(self, payload: bytes) -> bool:
        """Whether a redactor could find something; most calls hold no key."""
        return not self._keys_alone or any(sign in payload for sign in _KEY_BYTES)

    def _redacted(self, record: Record) -> Record:
        fields = {}
        for name in _TEXTUAL.get(type(record), ()):
            value = getattr(record, name)
            changed = self._walk(value, 0)
            if changed != value:
                fields[name] = changed
        return msgspec.structs.replace(record, **fields) if fields else record

    def _walk(self, value: Any, depth: int) -> Any:
        if isinstance(value, str):
            return self._text(value)
        if depth > DEEPEST:
            return WITHHELD
        if isinstance(value, dict):
            return {self._text(k): self._walk(v, depth + 1) for k, v in value.items()}
        if isinstance(value, list):
            return [self._walk(item, depth + 1) for item in value]
        if isinstance(value, msgspec.Struct):
            values = {f: getattr(value, f) for f in value.__struct_fields__}
            changed = {f: self._walk(v, depth + 1) for f, v in values.items()}
            return value if changed == values else msgspec.structs.replace(value, **changed)
        if isinstance(value, bytes):
            return self._bytes(value)
        return value

    def _text(self, text: str) -> str:
        if " [cut: " in text:
            text = _cut_off.sub("", text)  # half a number could not be known as one
        for redactor in self._redactors:
            try:
                text = _a_text(redactor(text))
            except Exception as exc:  # noqa: BLE001 - the application's own code may raise anything
                reraise_asynchronous(exc)
                logs.warn("privacy", "a redactor failed: %s", type(exc).__name__)
                return WITHHELD
        return text

    def _bytes(self, data: bytes) -> bytes:
        """A file, when it is text."""
        try:
            return self._text(data.decode()).encode()
        except UnicodeError:
            return data


def _a_text(value: Any) -> str:
    """What a redactor returned, which may be the application's own."""
    if not isinstance(value, str):
        raise TypeError("a redactor must return text")
    return value


def privacy_of(settings: Settings, own: Iterable[Redactor] = ()) -> Privacy:
    """What the settings keep of content.

    Args:
        settings: name the redactors and the modes.
        own: redactors passed in code, run after those.

    Raises:
        ConfigError: a redactor that is named cannot be found.
    """
    names = [name.strip() for name in settings.redact.split(",") if name.strip()]
    found = [_named(name) for name in names if name != "none"]
    return Privacy([*found, *own], settings.capture_content, settings.capture_content_of)


def _named(name: str) -> Redactor:
    if name in REDACTORS:
        return REDACTORS[name]
    module, _, function = name.partition(":")
    if not function:
        there = ", ".join(REDACTORS)
        raise ConfigError(f"redact names {name!r}; there are {there}, or module:function")
    try:
        found: Any = getattr(importlib.import_module(module), function)
    except Exception as exc:
        reraise_asynchronous(exc)
        raise ConfigError(f"the redactor {name} cannot be imported: {exc}") from exc
    if not callable(found):
        raise ConfigError(f"the redactor {name} is no function")
    redactor: Redactor = found
    return redactor


# Who and why (`actor`) is what the record is for: it stays as the application gives it.
_TEXTUAL: dict[type, tuple[str, ...]] = {
    Call: (
        *("operation", "function", "settings", "prompt", "response", "tool_calls", "outcome"),
        *("params", "metrics", "tags", "notes"),
    ),
    Job: ("name", "outcome", "params", "tags"),
    Logged: ("params", "metrics", "tags"),
    Span: ("name", "inputs", "outputs", "attributes", "outcome"),
    Artifact: ("content", "path"),
}


def _without_content(record: Record, mode: str) -> Record:
    """The record with its content hashed or gone, also where the caller's own names repeat it."""
    keep = _hashed if mode == "hashed" else _nothing
    if isinstance(record, Call):
        texts = _texts(
            [record.prompt, record.response, *map(msgspec.structs.asdict, record.tool_calls)]
        )
        return msgspec.structs.replace(
            record,
            prompt=keep(record.prompt),
            response=keep(record.response),
            tool_calls=[
                msgspec.structs.replace(
                    tool, arguments=_kept(tool.arguments, keep), result=_kept(tool.result, keep)
                )
                for tool in record.tool_calls
            ],
            outcome=_failure(record.outcome, keep),
            settings=_unrepeated(record.settings, texts, keep),
            params=_unrepeated(record.params, texts, keep),
            tags=_unrepeated(record.tags, texts, keep),
            notes=[*record.notes, f"content is kept as: {mode}"],
        )
    if isinstance(record, Span):
        texts = _texts([record.inputs, record.outputs])
        return msgspec.structs.replace(
            record,
            inputs=keep(record.inputs),
            outputs=keep(record.outputs),
            attributes=_unrepeated(record.attributes, texts, keep),
            outcome=_failure(record.outcome, keep),
        )
    if isinstance(record, Job):
        return msgspec.structs.replace(record, outcome=_failure(record.outcome, keep))
    return record


def is_hashed(content: Any) -> bool:
    """Whether this stands for content that was not kept."""
    return isinstance(content, str) and content.startswith(HASHED)


def _failure(outcome: Any, keep: Callable[[Any], Any]) -> Any:
    """An error's message and stack may tell what was asked."""
    if outcome.message is None and outcome.stack is None:
        return outcome
    return msgspec.structs.replace(outcome, message=_kept(outcome.message, keep), stack=None)


def _hashed(value: Any) -> Any:
    if value is None:
        return None
    text = value if isinstance(value, str) else msgspec.json.encode(value, order="sorted").decode()
    digest = hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()
    return f"{HASHED}{digest}, {len(text)} characters]"


def _nothing(value: Any) -> Any:
    return None


def _kept(text: str | None, keep: Callable[[Any], Any]) -> str | None:
    kept = keep(text)
    return None if kept is None else str(kept)


def _unrepeated(
    given: dict[str, Any], texts: list[str], keep: Callable[[Any], Any]
) -> dict[str, Any]:
    """The caller's own values, those that repeat the content treated as it is."""
    return {
        name: keep(value) if any(_repeats(own, texts) for own in _texts([value])) else value
        for name, value in given.items()
        if not _repeats(name, texts)
    }


def _repeats(own: str, texts: list[str]) -> bool:
    return len(own) >= LEAST_REPEATED and any(own in text or text in own for text in texts)


def _texts(values: list[Any]) -> list[str]:
    """Every text in these values that is long enough to be told from a chance."""
    found, todo = list[str](), [*values]
    while todo:
        value = todo.pop()
        if isinstance(value, str):
            found += [value] if len(value) >= LEAST_REPEATED else []
        elif isinstance(value, dict):
            todo += value.values()
        elif isinstance(value, list):
            todo += value
    return found


def _masked_card(found: re.Match[str]) -> str:
    """Other numbers may stand beside a card's: it is groups of at least three digits."""
    parts = re.split(r"([ -])", found[0])
    for first in range(0, len(parts), 2):
        for last in range(first, min(len(parts), first + 2 * MOST_GROUPS), 2):
            groups = parts[first : last + 1 : 2]
            if min(map(len, groups)) >= 3 and _is_card("".join(groups)):
                before, after = "".join(parts[:first]), "".join(parts[last + 1 :])
                return f"{before}[card]{without_card(after)}"
    return found[0]


def _is_card(text: str) -> bool:
    digits = [int(one) for one in text if one.isdigit()]
    if not SHORTEST_CARD <= len(digits) <= LONGEST_CARD or digits[0] not in (2, 3, 4, 5, 6):
        return False
    doubled = [sum(divmod(2 * one, 10)) for one in digits[-2::-2]]
    return (sum(digits[-1::-2]) + sum(doubled)) % 10 == 0


def _masked_iban(found: re.Match[str]) -> str:
    """An IBAN may be followed by a word in capitals: the longest beginning that checks is it."""
    text = found[0]
    for end in range(len(text), IBAN_LENGTHS.start - 1, -1):
        if text[end - 1] != " " and _is_iban(text[:end].replace(" ", "")):
            rest = text[end:]
            if not rest or rest[0] == " ":
                return "[iban]" + rest
    return text


def _is_iban(text: str) -> bool:
    if len(text) not in IBAN_LENGTHS:
        return False
    return int("".join(str(int(one, 36)) for one in text[4:] + text[:4])) % 97 == 1
