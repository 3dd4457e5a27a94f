"""Operations of production systems: provisioning a region, and changes of the roster."""
