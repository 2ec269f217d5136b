"""Tables of all names, options by name, and migrations of old names."""
