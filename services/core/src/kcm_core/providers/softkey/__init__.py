"""``softkey:`` a root key in a file, for development."""
