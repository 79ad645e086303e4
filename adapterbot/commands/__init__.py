"""The commands, a module each: they read options and the environment, build the real clients, and
leave the thinking to the packages below them."""
