"""Results per commit of the base branch: what is kept of a report, where, and what it shows."""
