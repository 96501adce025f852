"""Which films there are, how they are cut into clips, and how a film is embedded."""
