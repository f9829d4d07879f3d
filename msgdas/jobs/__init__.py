"""The commands as functions: settings in, a run folder out."""
