"""The services of threads_agent."""
