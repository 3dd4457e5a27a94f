"""The demonstration: two regions, real keys, and a kill that all instances confirm.

It starts a whole system in a temporary directory, encrypts and decrypts real input, kills a tenant
under traffic, and ends all processes that it started, also after Ctrl-C.
"""

from kcm_devsystem.demo.scenario import Options, run

__all__ = ["Options", "run"]
