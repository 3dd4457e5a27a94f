"""The demonstration: two regions, real keys, and a kill that everyone hears.

It starts a whole system in a directory of its own, does the main job on real input, pulls the kill
switch under traffic, and ends everything it started, also after Ctrl-C.
"""

from kcm_devsystem.demo.scenario import Options, run

__all__ = ["Options", "run"]
