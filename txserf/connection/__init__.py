"""One connection to an agent, and the next one: protocol, factory, session and lanes."""
