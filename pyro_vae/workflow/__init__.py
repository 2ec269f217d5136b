"""Stages put together: fit, compare, aggregate."""
