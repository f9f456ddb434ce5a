"""Conversion of files of other tools to a first profile. Pure: the command line reads and writes the files."""
