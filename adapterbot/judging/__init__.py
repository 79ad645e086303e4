"""How both sides are measured: all at once or early, against the engine's own noise, per user."""
