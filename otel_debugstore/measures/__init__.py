"""What a call cost: CPU time, memory, I/O, and the same of child processes. What is not known is None."""
