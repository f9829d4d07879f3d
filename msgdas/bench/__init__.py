"""What a search step costs in time and memory."""
