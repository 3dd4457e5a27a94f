"""Settings for all tests: no test asserts a time, so hypothesis does not either."""

from hypothesis import settings

settings.register_profile("kcm", deadline=None)
settings.load_profile("kcm")
