"""Every exception flowledger raises on purpose.

    FlowledgerError
    |-- ConfigError             a setting is wrong; the message names it and the values it takes
    |-- RecordError             bytes or values that cannot become a record
    |-- JournalError            the journal folder cannot be used
    |-- StoreError              the store did not take a batch
    |   |-- StoreUnavailable    for now: the same batch is delivered again later
    |   |   `-- StoreOutdated     until flowledger or the database is upgraded to fit the other
    |   `-- StoreMisconfigured  until somebody changes something; the message says what
    |-- NotFound                nothing is stored under that id
    |-- QuestionError           a question cannot be asked like that; the message says how
    |-- PromptError             a prompt's variable has no value
    |-- DocumentError           a document cannot be read, or documents cannot be stored
    `-- ChatError               a chat call did not work
        |-- ChatInputError      what was asked cannot be asked; the message says what to change
        |-- NoDocumentsError    there is nothing to look up: add documents first
        `-- ProviderError       the provider refused or failed
            |-- ProviderKeyError         there is no key, or the provider does not take it
            |-- ProviderLimitError       too many requests, or nothing left to spend
            |-- ProviderTimeoutError     no answer in time
            `-- ProviderUnavailableError no connection, or the provider's own fault

None of them reaches an application through capture: a decorator, a wrapped client and `record()`
log a warning and go on. Chat raises its own, since it is what the application asked for.
"""

__all__ = [
    "ChatError",
    "ChatInputError",
    "ConfigError",
    "DocumentError",
    "FlowledgerError",
    "JournalError",
    "NoDocumentsError",
    "NotFound",
    "PromptError",
    "ProviderError",
    "ProviderKeyError",
    "ProviderLimitError",
    "ProviderTimeoutError",
    "ProviderUnavailableError",
    "QuestionError",
    "RecordError",
    "StoreError",
    "StoreMisconfigured",
    "StoreOutdated",
    "StoreUnavailable",
]


class FlowledgerError(Exception):
    """Anything flowledger raises on purpose."""


class ConfigError(FlowledgerError):
    """A setting is wrong; the message names it and the values it takes."""


class RecordError(FlowledgerError):
    """Bytes or values that cannot become a record."""


class JournalError(FlowledgerError):
    """The journal folder cannot be used."""


class StoreError(FlowledgerError):
    """The store did not take a batch."""


class StoreUnavailable(StoreError):
    """The store is out of reach for now; the same batch is delivered again later."""


class StoreOutdated(StoreUnavailable):
    """The store's tables are of a version that this flowledger must not write to."""


class StoreMisconfigured(StoreError):
    """The store refuses everything until somebody changes something; the message says what."""


class NotFound(FlowledgerError):
    """Nothing is stored under that id."""


class QuestionError(FlowledgerError):
    """A question cannot be asked like that; the message says how."""


class PromptError(FlowledgerError):
    """A prompt's variable has no value; the message names it."""


class DocumentError(FlowledgerError):
    """A document cannot be read, or documents cannot be stored."""


class ChatError(FlowledgerError):
    """A chat call did not work."""


class ChatInputError(ChatError):
    """What was asked cannot be asked; the message says what to change."""


class NoDocumentsError(ChatError):
    """There is nothing to look up: add documents first."""


class ProviderError(ChatError):
    """The provider refused or failed.

    `status` is its HTTP status, None where there was no answer. `begun` says that part of the
    answer had come already.
    """

    def __init__(self, message: str, status: int | None = None, begun: bool = False) -> None:
        super().__init__(message)
        self.status = status
        self.begun = begun


class ProviderKeyError(ProviderError):
    """There is no key, or the provider does not take it."""


class ProviderLimitError(ProviderError):
    """Too many requests, or nothing left to spend."""


class ProviderTimeoutError(ProviderError):
    """No answer came in time."""


class ProviderUnavailableError(ProviderError):
    """No connection, or a fault of the provider's own."""
