"""What a Core adds: commands on holds, exchange between regions, and results of finished kills."""
