"""Several processes that train one model: how they share the work, and their records as one."""
