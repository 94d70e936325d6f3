"""The processes that measure; started by `bench.processes.Child`."""
