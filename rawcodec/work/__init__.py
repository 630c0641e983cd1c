"""What the commands do to one photo: once for a command of one photo and for a folder.

Imports the standard library only; a task loads what it needs when it runs.
"""
