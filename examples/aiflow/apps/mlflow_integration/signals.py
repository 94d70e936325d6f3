"""Models that are tracked when they are saved: the feature each belongs to, and what is kept.

flowledger's Django application listens to `post_save` and records what commits; numbers become
metrics, the rest params, of a run in the feature's experiment.
"""

TRACKED_MODELS = {
    "engineering.PIDAnalysisReport": {
        "feature": "pid_verification",
        "fields": ["status", "total_issues", "critical_issues", "confidence_score"],
    },
    "engineering.PFDConversion": {
        "feature": "pfd_conversion",
        "fields": ["status", "extraction_method", "confidence_score"],
    },
    "engineering.CRSDocument": {
        "feature": "crs_analysis",
        "fields": ["status", "document_type", "processing_time"],
    },
}
