"""Use a trained model: embed texts, films, sounds and pictures, alone or together."""
