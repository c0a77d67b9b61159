"""Text → unit vectors."""
