"""What decides which scenarios a change can touch."""
