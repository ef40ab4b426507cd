"""Who runs when and where: the Prefect server, its deployments and its workers."""
