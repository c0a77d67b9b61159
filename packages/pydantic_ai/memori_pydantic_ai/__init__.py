"""To come: memori for Pydantic AI, as a capability of an agent."""
