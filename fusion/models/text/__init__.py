"""Text encoders: word vectors, frozen transformers beside the model, trained ones in it."""
