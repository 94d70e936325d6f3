"""Tools for a terminal."""
