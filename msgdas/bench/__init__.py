"""Comparing methods over seeds: a queue of searches that goes on where it was stopped, and tables that know what every
genotype is worth."""

from msgdas.bench.tables import Table, read_nats, read_table

__all__ = ["Table", "read_nats", "read_table"]
