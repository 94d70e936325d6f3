"""Writes posts as a persona."""
