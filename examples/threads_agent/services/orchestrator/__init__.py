"""Takes tasks over HTTP and hands them to workers."""
