"""Integrations: one small lazy file for each library at the edge."""
