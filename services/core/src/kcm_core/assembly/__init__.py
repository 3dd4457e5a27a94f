"""The composition of a Core.

``ports``        what a Core reaches outside itself
``production``   these ports in production
``parts``        ``assemble(ports)``: every part is made once, in short functions
``core``         the order in which the parts start and end
"""

from kcm_core.assembly.core import Core
from kcm_core.assembly.parts import Parts, assemble
from kcm_core.assembly.ports import Limits, PageLimits, Ports

__all__ = ["Core", "Limits", "PageLimits", "Parts", "Ports", "assemble"]
