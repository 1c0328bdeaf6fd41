"""What runs on the inside: a zygote that forks jailed Python sessions. Standard library only.

These files are loaded by a fresh interpreter with an empty environment, never by the process that trains; they import
nothing of the rest of the package.
"""
