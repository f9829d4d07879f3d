"""Compare methods over seeds: a resumable queue of searches, and tables of trained genotypes."""

from msgdas.compare.tables import Table, read_nats, read_table

__all__ = ["Table", "read_nats", "read_table"]
