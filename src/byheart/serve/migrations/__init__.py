"""The database's forms, from version to version (alembic)."""
