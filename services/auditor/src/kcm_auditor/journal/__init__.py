"""The journal: append-only files whose lines are chained by their hashes.

``Journal`` writes, ``verify`` checks a directory offline. Lines are described in
``kcm_auditor.journal.format``; files are called by the number of their first entry.
"""

from kcm_auditor.journal.segments import JournalError
from kcm_auditor.journal.verify import Anchor, Report, verify
from kcm_auditor.journal.writer import Journal, Point

__all__ = ["Anchor", "Journal", "JournalError", "Point", "Report", "verify"]
