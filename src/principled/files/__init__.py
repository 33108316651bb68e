"""Small files of sparse, quantised and shared networks."""
