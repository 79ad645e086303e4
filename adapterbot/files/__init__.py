"""Files: found, read within bounds, and written whole or not at all. Pure of what is in them."""
