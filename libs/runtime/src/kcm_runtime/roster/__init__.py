"""The roster that this instance believes: its files, and its follower in the control stream."""
