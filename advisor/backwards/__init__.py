"""Questions asked backwards: the longest sequence, the largest batch or model, the fewest or the cheapest cards that fit a plan."""
