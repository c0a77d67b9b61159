"""What memori costs on this machine: ``python -m benchmarks``, or ``--quick`` for a first look."""
