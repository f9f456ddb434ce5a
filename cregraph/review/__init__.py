"""Questions about one lock and about a change of it, and the forms of the answers."""
