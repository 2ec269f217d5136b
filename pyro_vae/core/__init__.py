"""The ground: errors, configs, formats, random states, files. Knows no distribution."""
