"""Message bytes to readings, or to the reason why not. Nothing here imports Beam."""
