"""A Core's part in keeping its region's audit stream in bounds: read, compare, trim, warn."""

from kcm_core.trimming.memory import TrimFiles, TrimMemory
from kcm_core.trimming.trimmer import Trimmer

__all__ = ["TrimFiles", "TrimMemory", "Trimmer"]
