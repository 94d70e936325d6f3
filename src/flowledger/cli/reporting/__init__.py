"""A report over a window: the numbers of the API and charts, as one document in several forms."""
