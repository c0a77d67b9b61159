"""Memory for LLM applications that stays in your own database."""
