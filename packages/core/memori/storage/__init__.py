"""Where everything is kept: any SQL database, reached in any way, or MongoDB."""
