"""The wire: subjects, error codes, message models, the codec and the record format.

Nothing here knows a service, a broker's client or a key.
"""
