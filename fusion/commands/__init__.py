"""What the command-line tools do, one file for each."""
