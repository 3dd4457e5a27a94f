"""The tools of a deployment: what a machine and its brokers have, compared with what they need.

Nothing here runs in an instance. A check changes nothing, and shows no secret.
"""
