"""From raw numbers to light: masters, defects, and what no sensor gave."""
