"""The roster in force: its files, and its follower in the control stream."""
