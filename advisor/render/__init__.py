"""Values to text. No arithmetic beyond formatting, and nothing that decides anything."""
