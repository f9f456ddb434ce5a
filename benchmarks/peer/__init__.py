"""The same image by a Dockerfile, as a person who knows Docker well would write it."""
