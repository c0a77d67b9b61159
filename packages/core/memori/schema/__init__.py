"""How memories lie in a database: column types, tables, and the migrations that make them."""
