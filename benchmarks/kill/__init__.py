"""How fast the kill switch is, and what it costs: ``make bench-kill``."""
