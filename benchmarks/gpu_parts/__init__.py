"""The parts of `benchmarks/gpu.py`: each is a function of a `job.Job`, run in a process of its own."""
