"""A whole system on one machine: a backbone, regions and components, each a real process.

``kcm dev``, ``kcm demo`` and the tests use it, so all three run the topology of production, with
one broker per region. No component imports anything from here.
"""
