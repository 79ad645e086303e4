"""How a checkpoint of a history is asked: by a command, by chunks of samples, over one history."""
