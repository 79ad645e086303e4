"""How checkpoints of a training run are asked: by a command or by chunks of samples."""
