"""To come: memori for Agno, as a learning store and hooks of an agent."""
