"""The kill switch.

``model``        what is decided: pure, without I/O and without a clock; time is an argument
``replica``      what every Core and Gateway runs: the holds it knows, its leases, its receipts
``coordinator``  what a Core adds: operators' commands, other regions, results of finished kills
"""
