"""Speed beside a baseline and beside peers, alternating within one run; see docs/performance.md."""
