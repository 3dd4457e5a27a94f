"""A Core's part in the limits of its region's audit stream: read, compare, trim, warn."""

from kcm_core.trimming.state import TrimFiles, TrimState
from kcm_core.trimming.trimmer import Trimmer

__all__ = ["TrimFiles", "TrimState", "Trimmer"]
