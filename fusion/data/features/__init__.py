"""Features of videos: the feature store and everything else that they are read from."""
