"""What is kept in Prefect: one file per destination, settings, entry schema and uploader in one class."""
