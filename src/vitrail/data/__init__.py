"""Files in, batches of uint8 images and labels out; knows nothing of models."""
