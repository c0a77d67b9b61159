"""To come: memori for LangChain and LangGraph, as middleware, a store and a retriever, Bedrock included."""
