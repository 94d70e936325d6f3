"""What lists of experiments and runs ask of a ledger, by feature; None stands for all features."""

import msgspec

from flowledger.questions.ledger import Ledger

__all__ = ["FeatureExperiment", "Numbers", "Run", "experiments", "latest", "numbers"]


class FeatureExperiment(msgspec.Struct, frozen=True, kw_only=True):
    """A feature and an MLflow experiment of its calls; `name` is None when that was removed."""

    feature: str
    experiment_id: int
    name: str | None = None


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """One call in a list; `details` is JSON and holds the caller's own metrics."""

    id: str
    start_ms: int
    operation: str
    model: str | None
    user_id: str | None
    total_tokens: int | None
    cost_usd: float | None
    latency_ms: float
    success: bool
    error_type: str | None
    details: str


class Numbers(msgspec.Struct, frozen=True, kw_only=True):
    """Numbers over all calls; None is an unknown number, never 0."""

    calls: int
    succeeded: int
    mean_ms: float | None
    total_tokens: int | None
    cost_usd: float | None


def experiments(ledger: Ledger) -> list[FeatureExperiment]:
    """Every feature with the experiments that its calls went to."""
    found = ledger._ask("feature_experiments", FeatureExperiment)
    names = {
        one.experiment_id: ledger._value("experiment_name", experiment_id=one.experiment_id)
        for one in found
    }
    return [msgspec.structs.replace(one, name=names[one.experiment_id]) for one in found]


def latest(ledger: Ledger, feature: str | None, limit: int) -> list[Run]:
    """The latest calls of a feature, newest first."""
    return ledger._ask("latest_of_feature", Run, feature=feature, limit=limit)


def numbers(ledger: Ledger, feature: str | None) -> Numbers:
    """Numbers over all calls of a feature."""
    return ledger._ask("numbers_of_feature", Numbers, feature=feature)[0]
