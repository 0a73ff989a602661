"""Alembic's entry: runs the migrations on the connection that the node has open."""

from alembic import context

context.configure(connection=context.config.attributes["connection"], target_metadata=None, transactional_ddl=True)
context.run_migrations()
