"""Detection, its record, and the questions to that record."""
