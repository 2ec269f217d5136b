"""Errors, configs, formats, random states and files, without any distribution."""
