"""A whole system on one machine: a backbone, regions, services, each a real process.

Used by ``kcm dev``, by ``kcm demo`` and by the tests, so all three run the topology that
production runs, with one broker per region. Nothing here is imported by a service.
"""
