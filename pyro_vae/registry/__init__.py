"""Every name and its table."""
