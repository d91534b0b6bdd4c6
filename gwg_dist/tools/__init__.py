"""What every part of the package may use: errors, random streams, ranks, the terminal, files, command lines."""
