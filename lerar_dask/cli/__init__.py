"""What the user types: commands, settings from every source, progress, and one line for every error."""
