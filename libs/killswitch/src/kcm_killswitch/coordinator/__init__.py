"""The Core's part: commands on holds, exchange between regions, and results of finished kills."""
