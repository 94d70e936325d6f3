"""What stands for the rest of the world on a machine without a network."""
