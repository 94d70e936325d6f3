"""Every exception flowledger raises on purpose.

    FlowledgerError
    |-- ConfigError             a setting is wrong; the message names it and the values it takes
    |-- RecordError             bytes or values that cannot become a record
    |-- JournalError            the journal folder cannot be used
    |-- StoreError              the store did not take a batch
    |   |-- StoreUnavailable    for now: the same batch is delivered again later
    |   `-- StoreMisconfigured  until somebody changes something; the message says what
    |-- NotFound                nothing is stored under that id
    `-- QuestionError           a question cannot be asked like that; the message says how

None of them reaches an application through capture: a decorator, a wrapped client and `record()`
log a warning and go on.
"""

__all__ = [
    "ConfigError",
    "FlowledgerError",
    "JournalError",
    "NotFound",
    "QuestionError",
    "RecordError",
    "StoreError",
    "StoreMisconfigured",
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


class StoreMisconfigured(StoreError):
    """The store refuses everything until somebody changes something; the message says what."""


class NotFound(FlowledgerError):
    """Nothing is stored under that id."""


class QuestionError(FlowledgerError):
    """A question cannot be asked like that; the message says how."""
