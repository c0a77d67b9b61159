"""One entity's memory in main memory: exact vectors, words and characters."""
