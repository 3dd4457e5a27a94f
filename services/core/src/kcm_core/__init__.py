"""The Core: the only component that unseals. It handles keys and never data records."""
