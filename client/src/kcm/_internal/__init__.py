"""Not public: the names that applications use are in ``kcm.__all__``."""
