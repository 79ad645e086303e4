"""What a judgement stands on, and how both sides are measured: all at once or early, user by user,
and against the engine's own noise."""
