"""Taking a bot's model elsewhere."""
