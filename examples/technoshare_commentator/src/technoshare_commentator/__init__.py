"""Comments on links that are shared in Slack: retrieval, one analysis, quality gates, a post."""
