"""YAML to stages and steps. Pure."""
