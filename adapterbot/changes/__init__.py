"""What a change is about: its two sides, and which adapters it adds, changes, moves or removes."""
