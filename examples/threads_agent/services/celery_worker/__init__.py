"""Does tasks, one after the other."""
